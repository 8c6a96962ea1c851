// SPDX-License-Identifier: GPL-2.0

//! `fresh_frames`: what is merged first goes to a frame that nobody had.

use anyhow::{ensure, Result};
use ksm_tests::{
    domain,
    ksm::{self, Counters, Run, Scanner},
    pattern,
};

use crate::{
    case::{Case, Options},
    helpers::{holders, join_all, step, verify_all},
};

pub const CASES: &[Case] = &[Case::new(
    "fresh-frames",
    "with fresh_frames as many pages merge in a scan, and none in a frame that it was in",
    fresh_frames,
)];

/// More than the kernel gathers before it puts new pages on an LRU list.
const PAGES: usize = 512;

fn fresh_frames(_: &Options) -> Result<()> {
    let scanner = Scanner::start()?;
    ksm::write_own("fresh_frames", 1)?;
    scanner.scan_on_demand()?;
    let mut peers = holders(2, &pattern::pages(1, PAGES), 2)?;
    let owners = [peers[0].pid(), peers[1].pid()];
    let [first, second] = owners.map(domain::frames_in_order);
    let (first, second) = (first?, second?);

    step("one scan sees the checksums, the next one merges");
    scanner.scan_once()?;
    scanner.scan_once()?;
    let merged = ksm::counters()?;
    ensure!(
        [merged.shared, merged.sharing] == [PAGES as u64; 2],
        "merged in one scan: {merged}"
    );
    let common = domain::common_frames(owners[0], owners[1])?;
    ensure!(common == PAGES, "{common} frames are shared");
    let now = domain::frames_in_order(owners[0])?;
    for (page, frame) in now.iter().enumerate() {
        ensure!(
            ![first[page], second[page]].contains(frame),
            "page {page} is in a frame that an owner had it in"
        );
    }
    verify_all(&mut peers)?;

    step("run=2 leaves nothing merged");
    ksm::set_run(Run::Unmerge)?;
    let left = ksm::counters()?;
    ensure!(left == Counters::ZERO, "left over: {left}");
    verify_all(&mut peers)?;
    join_all(peers)
}
