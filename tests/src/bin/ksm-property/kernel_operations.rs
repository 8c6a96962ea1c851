// SPDX-License-Identifier: GPL-2.0

//! What ksmd, an administrator or the rest of the kernel does to everybody's memory.

use std::{fmt::Display, io};

use anyhow::{ensure, Result};
use ksm_tests::{control_file, folio_size, ksm, PAGE_SIZE};

use crate::{
    operation::{Operation, Pace, State},
    stage::Stage,
};

impl Stage<'_> {
    /// Passes over what is no such operation, or cannot be done by this kernel.
    pub fn apply_to_kernel(&mut self, operation: &Operation) -> Result<()> {
        match *operation {
            Operation::Reclaim { pages } => {
                self.machine.group.reclaim(usize::from(pages) * PAGE_SIZE);
                Ok(())
            }
            Operation::Compact => control_file::write("/proc/sys/vm/compact_memory", 1),
            Operation::Scans(count) => self.scans(count),
            Operation::Pace(pace) => set_pace(pace),
            Operation::SmartScan(on) => set("smart_scan", on),
            Operation::UseZeroPages(on) => set("use_zero_pages", on),
            Operation::SkipUntouched(on) => set_own("skip_untouched", u16::from(on)),
            Operation::OnlyZeroPages(on) => set_own("only_zero_pages", u16::from(on)),
            Operation::MinEqual(pages) => set_own("huge_page_min_equal", pages),
            Operation::FolioSize(kib) if folio_size::is_there(kib.into()) => {
                folio_size::use_only(kib.into())
            }
            Operation::PruneAtOnce(on) => ksm::write(
                "stable_node_chains_prune_millisecs",
                if on { 0 } else { 2000 },
            ),
            Operation::Restructure {
                unmerge_first,
                max_page_sharing,
                merge_across_nodes,
            } => self.restructure(unmerge_first, max_page_sharing, merge_across_nodes),
            _ => Ok(()),
        }
    }

    fn restructure(
        &mut self,
        unmerge_first: bool,
        max_page_sharing: u8,
        merge_across_nodes: bool,
    ) -> Result<()> {
        if unmerge_first {
            self.set_state(State::Unmerge)?;
        }
        // Nobody unmerges what is going away by itself, and until it has gone it is in the way.
        self.await_ends()?;
        self.try_write("max_page_sharing", max_page_sharing)?;
        self.try_write("merge_across_nodes", u8::from(merge_across_nodes))?;
        if unmerge_first {
            self.set_state(State::Merge)?;
        }
        Ok(())
    }

    /// Refused at most while something is merged, and without effect then.
    fn try_write(&self, file: &str, value: impl Display) -> Result<()> {
        if !ksm::path(file).exists() {
            return Ok(());
        }
        let before: String = ksm::read(file)?;
        let expected = match ksm::write(file, &value) {
            Ok(()) => value.to_string(),
            Err(error) if is_busy(&error) && !self.has_no_ksm_page()? => before,
            Err(error) => return Err(error),
        };
        let now: String = ksm::read(file)?;
        ensure!(now == expected, "{file} is {now} and not {expected}");
        Ok(())
    }
}

fn is_busy(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
}

fn set(file: &str, on: bool) -> Result<()> {
    ksm::write(file, u8::from(on))
}

/// Sets what only `ksm_rs` has.
fn set_own(file: &str, value: u16) -> Result<()> {
    match ksm::is_ours() {
        true => ksm::write_own(file, value),
        false => Ok(()),
    }
}

fn set_pace(pace: Pace) -> Result<()> {
    ksm::write("pages_to_scan", pace.pages_to_scan)?;
    ksm::write("sleep_millisecs", pace.sleep_millisecs)
}
