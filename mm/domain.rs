// SPDX-License-Identifier: GPL-2.0

//! Domains: the address spaces whose pages may be merged with each other.
//!
//! The kernel keeps the number of an address space's domain in `mm->ksm_domain`, which
//! `/proc/<pid>/ksm_domain` shows and sets. The administrator's [`DomainRule`] says which numbers
//! count.

#![deny(unsafe_code)]

use kernel::bindings;

/// What `mm->ksm_domain` has said under the mmap lock. It does not change as long as that is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DomainWord(u64);

impl DomainWord {
    pub(crate) fn new(word: u64) -> Self {
        Self(word)
    }

    /// Whether pages may be merged now: not before the end of fork or exec, nor while the domain is being
    /// changed.
    pub(crate) fn is_settled(self) -> bool {
        self.0 & bindings::KSM_DOMAIN_NUMBER != 0 && self.0 & bindings::KSM_DOMAIN_CHANGING == 0
    }
}

/// Pages are merged only with those of the same domain. Domains have an order, so that they can be part
/// of the keys of trees.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) struct Domain(u64);

impl Domain {
    /// That of all whose numbers do not count.
    pub(crate) const COMMON: Self = Self(0);

    /// Undoes [`Domain::number`].
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// The number of the domain, 0 for [`Domain::COMMON`].
    pub(crate) fn number(self) -> u64 {
        self.0
    }

    fn is_marked(self) -> bool {
        self.0 & bindings::KSM_DOMAIN_UNMARKED == 0
    }
}

/// Which numbers count. Each of these tells no more domains apart than the next one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(crate) enum DomainRule {
    /// None: all are in one domain.
    Shared = 0,
    /// Those that somebody has given to an address space.
    #[default]
    Marked = 1,
    /// All: a program without a number has a domain of its own, with its forks.
    Private = 2,
}

impl DomainRule {
    /// The domain of an address space.
    pub(crate) fn domain_of(self, word: DomainWord) -> Domain {
        self.merge(Domain(word.0 & bindings::KSM_DOMAIN_NUMBER))
    }

    /// The domain that `domain`, which is one under this rule or under a later one, belongs to.
    pub(crate) fn merge(self, domain: Domain) -> Domain {
        match self {
            DomainRule::Shared => Domain::COMMON,
            DomainRule::Marked if !domain.is_marked() => Domain::COMMON,
            DomainRule::Marked | DomainRule::Private => domain,
        }
    }
}

#[kernel::macros::kunit_tests(ksm_rs_domain)]
mod tests {
    use super::*;

    const RULES: [DomainRule; 3] = [DomainRule::Shared, DomainRule::Marked, DomainRule::Private];

    /// Two numbers that somebody has given, and those of two programs.
    const NUMBERS: [u64; 4] = [
        7,
        8,
        bindings::KSM_DOMAIN_UNMARKED | 7,
        bindings::KSM_DOMAIN_UNMARKED | 8,
    ];

    #[test]
    fn each_rule_tells_more_domains_apart_than_the_last() {
        for (rule, together) in RULES.into_iter().zip([[0; 4], [7, 8, 0, 0], NUMBERS]) {
            for (number, domain) in NUMBERS.into_iter().zip(together) {
                assert_eq!(rule.domain_of(DomainWord::new(number)).number(), domain);
            }
        }
    }

    #[test]
    fn a_rule_can_be_applied_to_what_a_later_one_has_made() {
        for number in NUMBERS {
            let word = DomainWord::new(number);
            for rule in RULES {
                for later in RULES.into_iter().filter(|later| *later >= rule) {
                    assert_eq!(rule.merge(later.domain_of(word)), rule.domain_of(word));
                }
            }
        }
    }

    #[test]
    fn pages_are_merged_only_in_a_settled_domain() {
        assert!(!DomainWord::new(0).is_settled());
        for number in NUMBERS {
            let changing = DomainWord::new(number | bindings::KSM_DOMAIN_CHANGING);
            assert!(DomainWord::new(number).is_settled() && !changing.is_settled());
            let rule = DomainRule::Private;
            assert_eq!(rule.domain_of(changing).number(), number);
        }
    }
}
