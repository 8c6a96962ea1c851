// SPDX-License-Identifier: GPL-2.0

//! What the memory of a process holds over time, if it changes like that of a real one.
//!
//! Half of the pages never change; every second of these is the same in all processes, as if they ran
//! one program. Of the others most are used anew from time to time: either for content that nobody
//! else has, or for content that some others use at about that time, too, as when the same files are
//! read here and there. The rest changes between any two scans.
//!
//! All of it follows from the numbers of the process and of the moment, so who looks on knows what the
//! process holds.

/// Names a content: pages with equal numbers hold equal bytes.
pub type Content = usize;

/// Of 100 pages, those that never change, and those that are used anew from time to time.
const IDLE: usize = 50;
const REUSED: usize = 40;

/// A page of the latter is used anew at one of so many moments on average.
const LASTS: usize = 100;

/// In one of so many cases for content that others have.
const ONE_IN: usize = 2;

/// Such content is used for so many moments, by so many pages on average.
const PERIOD: usize = 20;
const COPIES: usize = 3;

/// The content of a page belongs to one of these sets, which have nothing in common.
const SET: usize = 1 << 60;
const COMMON: Content = SET;
const OF_A_PERIOD: Content = 2 * SET;
const OWN: Content = 3 * SET;

/// Whether the content came up while memory changed, and was not there from the beginning.
pub fn is_late(content: Content) -> bool {
    (OF_A_PERIOD..OWN).contains(&content)
}

/// The first moment: there was something before it.
pub const BEGINNING: usize = 10 * LASTS;

/// A process, at some moment.
pub struct Mixture {
    /// Each process has another number.
    number: usize,
    /// How many contents come up in a period.
    in_period: usize,
    contents: Vec<Content>,
}

impl Mixture {
    /// The process at the moment of its start. It is one of so many that run at a time, all alike.
    pub fn new(number: usize, pages: usize, processes: usize, moment: usize) -> Self {
        let uses = pages * processes * REUSED * PERIOD / (100 * LASTS * ONE_IN);
        let mut new = Self {
            number,
            in_period: (uses / COPIES).max(1),
            contents: Vec::new(),
        };
        new.contents = (0..pages).map(|page| new.first(page, moment)).collect();
        new
    }

    /// What each page holds.
    pub fn contents(&self) -> &[Content] {
        &self.contents
    }

    /// Goes on to `moment`, the next one; tells what is written to which page.
    pub fn advance(&mut self, moment: usize, mut write: impl FnMut(usize, Content)) {
        for page in 0..self.contents.len() {
            if let Some(content) = self.next(page, moment) {
                self.contents[page] = content;
                write(page, content);
            }
        }
    }

    fn first(&self, page: usize, moment: usize) -> Content {
        match page % 100 {
            place if place < IDLE && place % 2 == 0 => COMMON + page,
            place if place < IDLE => self.own(page, moment),
            // It was used before.
            place if place < IDLE + REUSED => {
                self.reused(page, moment - self.random(page, moment, 0, LASTS))
            }
            _ => self.own(page, moment),
        }
    }

    /// What is written to the page at this moment, if anything.
    fn next(&self, page: usize, moment: usize) -> Option<Content> {
        match page % 100 {
            place if place < IDLE => None,
            place if place < IDLE + REUSED => {
                (self.random(page, moment, 1, LASTS) == 0).then(|| self.reused(page, moment))
            }
            _ => Some(self.own(page, moment)),
        }
    }

    /// What a page is used for if it is used anew.
    fn reused(&self, page: usize, moment: usize) -> Content {
        if self.random(page, moment, 2, ONE_IN) > 0 {
            return self.own(page, moment);
        }
        let which = self.random(page, moment, 3, self.in_period);
        OF_A_PERIOD + ((moment / PERIOD) << 32) + which
    }

    /// A content that no other page has, and this one has not had.
    fn own(&self, page: usize, moment: usize) -> Content {
        OWN + (self.number << 40) + (page << 16) + moment
    }

    /// A number below `limit`: the same for the same page at the same moment, and no other rule in it.
    fn random(&self, page: usize, moment: usize, purpose: u64, limit: usize) -> usize {
        let seed = (self.number as u64) << 40 | (page as u64) << 16 | moment as u64;
        (mixed(mixed(seed) ^ purpose) % limit as u64) as usize
    }
}

/// The last step of the generator SplitMix64.
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const PAGES: usize = 2000;
    const PROCESSES: usize = 4;

    fn all(moments: usize) -> Vec<Mixture> {
        let mut all: Vec<_> = (0..PROCESSES)
            .map(|number| Mixture::new(number, PAGES, PROCESSES, BEGINNING))
            .collect();
        for moment in 1..=moments {
            for process in &mut all {
                process.advance(BEGINNING + moment, |_, _| ());
            }
        }
        all
    }

    /// How many pages could be saved, in percent.
    fn duplicate_percent(all: &[Mixture]) -> usize {
        let pages: Vec<_> = all.iter().flat_map(Mixture::contents).collect();
        let contents: HashSet<_> = pages.iter().collect();
        100 * (pages.len() - contents.len()) / pages.len()
    }

    #[test]
    fn about_a_third_can_be_saved_at_any_moment() {
        // Three in four of the quarter that is common, and two in three of a fifth, or fewer: some
        // have been overwritten.
        for moments in [0, 300] {
            let percent = duplicate_percent(&all(moments));
            assert!((27..35).contains(&percent), "{percent} after {moments}");
        }
    }

    #[test]
    fn half_of_all_never_changes() {
        let (before, after) = (all(0), all(500));
        let same = before[1].contents().iter().zip(after[1].contents());
        let same = same.filter(|(before, after)| before == after).count();
        assert!((PAGES / 2..PAGES * 52 / 100).contains(&same), "{same}");
    }

    #[test]
    fn what_is_written_is_what_there_is() {
        let mut process = Mixture::new(3, PAGES, PROCESSES, BEGINNING);
        let mut copy = process.contents().to_vec();
        let mut writes = 0;
        process.advance(BEGINNING + 1, |page, content| {
            assert_ne!(copy[page], content);
            copy[page] = content;
            writes += 1;
        });
        assert_eq!(process.contents(), copy);
        assert!((PAGES / 10..PAGES / 9).contains(&writes), "{writes}");
    }
}
