// SPDX-License-Identifier: GPL-2.0

//! How often the attacker was right.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{channel::Channel, frames::Frames};

/// Of all trials.
#[derive(Default, Serialize)]
pub struct Record {
    pub trials: u64,
    /// The trials in which the attacker was right, by channel.
    pub right: BTreeMap<String, u64>,
    pub frames: Frames,
}

impl Record {
    pub fn note(&mut self, channel: Channel, is_right: bool) {
        *self.right.entry(format!("{channel:?}")).or_default() += u64::from(is_right);
    }

    /// For people.
    pub fn print(&self) {
        for (channel, right) in &self.right {
            let percent = 100.0 * *right as f64 / self.trials as f64;
            println!(
                "  - {channel}: right in {right} of {} ({percent:.1} %)",
                self.trials
            );
        }
        let Frames {
            not_merged,
            attackers,
            victims,
            nobodys,
        } = self.frames;
        println!(
            "  - frame: the attacker's {attackers}, the victim's {victims}, nobody's {nobodys}, \
             not merged {not_merged}"
        );
    }
}
