// SPDX-License-Identifier: GPL-2.0

//! What can happen to the memory of some processes, and random sequences of it.
//!
//! Every sequence means something: processes, areas and pages are named by numbers that are
//! taken modulo what there is, and what cannot be done is passed over. So any part of a
//! sequence that failed can be left out to find the part that matters.

use ksm_tests::ksm::Run;
use proptest::{collection, prelude::*};
use serde::{Deserialize, Serialize};

use crate::{content::Content, tenancy};

/// An area of a process.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Target {
    pub process: u8,
    pub area: u8,
}

/// How much ksmd does before it pauses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Pace {
    pub pages_to_scan: u32,
    pub sleep_millisecs: u32,
}

/// What `run` is set to, as a word that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Stop,
    Merge,
    Unmerge,
}

impl From<State> for Run {
    fn from(state: State) -> Self {
        match state {
            State::Stop => Run::Stop,
            State::Merge => Run::Merge,
            State::Unmerge => Run::Unmerge,
        }
    }
}

/// One thing that happens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Operation {
    /// A new process without any area.
    Start,
    Fork {
        process: u8,
    },
    Exit {
        process: u8,
        killed: bool,
    },
    Map {
        process: u8,
        pages: u8,
        content: Content,
        advised: bool,
    },
    /// The size of a huge page, and one if the kernel has any, or other large folios.
    MapHuge {
        process: u8,
        content: Content,
    },
    Advise {
        on: Target,
        mergeable: bool,
    },
    MergeAny {
        process: u8,
        on: bool,
    },
    WritePage {
        to: Target,
        page: u8,
        content: Content,
    },
    WriteBytes {
        to: Target,
        at: u16,
        bytes: Vec<u8>,
    },
    /// Into another domain, or the one that it has already.
    Domain {
        process: u8,
        to: tenancy::Move,
    },
    DomainRule(tenancy::Rule),
    /// The same as `WriteBytes`, through `/proc/PID/mem`.
    WriteFromOutside {
        to: Target,
        at: u16,
        bytes: Vec<u8>,
    },
    /// Every process writes to one of its pages, again and again, while `run` changes.
    Hammer {
        area: u8,
        page: u8,
        times: u8,
        meanwhile: State,
    },
    Move(Target),
    Resize {
        what: Target,
        pages: u8,
    },
    /// What follows sees two areas in place of one; the kernel notices nothing yet.
    Split {
        what: Target,
        at: u8,
    },
    Unmap(Target),
    /// `MADV_DONTNEED`.
    Discard(Target),
    /// `MADV_COLLAPSE`, which the kernel may refuse.
    Collapse(Target),
    /// `MADV_PAGEOUT`.
    PageOut(Target),
    MoveToNode {
        what: Target,
        node: u8,
    },
    /// Read-only or inaccessible during a full scan.
    Protect {
        what: Target,
        readable: bool,
    },
    /// Pages lie in a pipe during a full scan.
    HoldInPipe(Target),
    /// A process looks at all that it has.
    Verify {
        process: u8,
    },
    /// The same, through `/proc/PID/mem`.
    VerifyFromOutside {
        process: u8,
    },
    /// The kernel looks for memory to swap out.
    Reclaim {
        pages: u8,
    },
    Compact,
    Run(State),
    /// Waits for that many full scans.
    Scans(u8),
    Pace(Pace),
    SmartScan(bool),
    UseZeroPages(bool),
    SkipUntouched(bool),
    OnlyZeroPages(bool),
    /// `huge_page_min_equal`.
    MinEqual(u16),
    /// What large folios new memory consists of where [`Operation::MapHuge`] maps it, in KiB.
    FolioSize(u16),
    PruneAtOnce(bool),
    /// A change of what the trees rest on, refused while anything is merged.
    Restructure {
        unmerge_first: bool,
        max_page_sharing: u8,
        merge_across_nodes: bool,
    },
}

fn target() -> impl Strategy<Value = Target> {
    (any::<u8>(), any::<u8>()).prop_map(|(process, area)| Target { process, area })
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        2 => Just(Content::Zero),
        4 => (0..Content::TEMPLATES).prop_map(Content::Same),
        4 => (0..Content::TEMPLATES).prop_map(Content::Series),
        1 => (0..Content::TEMPLATES).prop_map(Content::LastBit),
        1 => any::<u8>().prop_map(Content::Unique),
    ]
}

fn some_bytes() -> impl Strategy<Value = Vec<u8>> {
    collection::vec(any::<u8>(), 1..=16)
}

fn state() -> impl Strategy<Value = State> {
    prop_oneof![
        6 => Just(State::Merge),
        1 => Just(State::Stop),
        2 => Just(State::Unmerge),
    ]
}

fn domain() -> impl Strategy<Value = tenancy::Move> {
    prop_oneof![
        3 => (0..3u8).prop_map(tenancy::Move::Number),
        1 => Just(tenancy::Move::Private),
    ]
}

fn domain_rule() -> impl Strategy<Value = tenancy::Rule> {
    use tenancy::Rule::*;
    prop_oneof![1 => Just(Shared), 2 => Just(Marked), 1 => Just(Private)]
}

fn pace() -> impl Strategy<Value = Pace> {
    let pair = |pages_to_scan, sleep_millisecs| {
        Just(Pace {
            pages_to_scan,
            sleep_millisecs,
        })
    };
    prop_oneof![pair(10_000, 0), pair(1, 0), pair(16, 0), pair(500, 1)]
}

/// Processes that come and go.
fn about_processes() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        3 => Just(Start),
        4 => any::<u8>().prop_map(|process| Fork { process }),
        2 => any::<(u8, bool)>().prop_map(|(process, killed)| Exit { process, killed }),
        1 => any::<(u8, bool)>().prop_map(|(process, on)| MergeAny { process, on }),
        2 => (any::<u8>(), domain()).prop_map(|(process, to)| Domain { process, to }),
        3 => any::<u8>().prop_map(|process| Verify { process }),
        1 => any::<u8>().prop_map(|process| VerifyFromOutside { process }),
    ]
}

/// Areas that come, change and go.
fn about_areas() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        12 => (any::<u8>(), 1..=16u8, content(), prop::bool::weighted(0.9)).prop_map(
            |(process, pages, content, advised)| Map { process, pages, content, advised }
        ),
        2 => (any::<u8>(), content())
            .prop_map(|(process, content)| MapHuge { process, content }),
        1 => target().prop_map(Collapse),
        4 => (target(), any::<bool>()).prop_map(|(on, mergeable)| Advise { on, mergeable }),
        2 => target().prop_map(Move),
        2 => (target(), 1..=16u8).prop_map(|(what, pages)| Resize { what, pages }),
        4 => (target(), any::<u8>()).prop_map(|(what, at)| Split { what, at }),
        2 => target().prop_map(Unmap),
        2 => target().prop_map(Discard),
        2 => (target(), any::<bool>()).prop_map(|(what, readable)| Protect { what, readable }),
        1 => target().prop_map(HoldInPipe),
        2 => target().prop_map(PageOut),
        2 => (target(), 0..2u8).prop_map(|(what, node)| MoveToNode { what, node }),
    ]
}

/// Contents that change.
fn about_contents() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        6 => (target(), any::<u8>(), content())
            .prop_map(|(to, page, content)| WritePage { to, page, content }),
        6 => (target(), any::<u16>(), some_bytes())
            .prop_map(|(to, at, bytes)| WriteBytes { to, at, bytes }),
        2 => (target(), any::<u16>(), some_bytes())
            .prop_map(|(to, at, bytes)| WriteFromOutside { to, at, bytes }),
        2 => (any::<u8>(), any::<u8>(), any::<u8>(), state()).prop_map(
            |(area, page, times, meanwhile)| Hammer { area, page, times, meanwhile }
        ),
    ]
}

/// What ksmd, an administrator or the rest of the kernel does.
fn about_the_kernel() -> impl Strategy<Value = Operation> {
    use Operation::*;
    prop_oneof![
        10 => (1..=3u8).prop_map(Scans),
        5 => state().prop_map(Run),
        3 => (1..=64u8).prop_map(|pages| Reclaim { pages }),
        1 => Just(Compact),
        2 => pace().prop_map(Pace),
        1 => any::<bool>().prop_map(SmartScan),
        2 => any::<bool>().prop_map(UseZeroPages),
        1 => any::<bool>().prop_map(SkipUntouched),
        1 => prop::bool::weighted(0.3).prop_map(OnlyZeroPages),
        1 => prop_oneof![Just(1), Just(2), Just(8), Just(64), Just(512)].prop_map(MinEqual),
        1 => prop_oneof![Just(16), Just(64), Just(1024), Just(2048)].prop_map(FolioSize),
        1 => any::<bool>().prop_map(PruneAtOnce),
        1 => domain_rule().prop_map(DomainRule),
        2 => (prop::bool::weighted(0.8), 2..=5u8, any::<bool>()).prop_map(
            |(unmerge_first, max_page_sharing, merge_across_nodes)| Restructure {
                unmerge_first,
                max_page_sharing,
                merge_across_nodes,
            }
        ),
    ]
}

/// Operations that are left out together before they are tried one by one.
const CHUNK: usize = 8;

/// Sequences of up to about `longest` operations.
pub fn sequences(longest: usize) -> impl Strategy<Value = Vec<Operation>> {
    let operation = prop_oneof![
        3 => about_processes(),
        6 => about_areas(),
        4 => about_contents(),
        6 => about_the_kernel(),
    ];
    let chunk = collection::vec(operation, 1..=CHUNK);
    let most = longest.div_ceil(CHUNK);
    // The number comes first, so that the end of what has failed is left out before all else.
    (1..=most, collection::vec(chunk, 1..=most))
        .prop_map(|(count, chunks)| chunks.into_iter().take(count).flatten().collect())
}
