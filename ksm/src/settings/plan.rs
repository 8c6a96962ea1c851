// SPDX-License-Identifier: GPL-2.0

//! Which writes bring the kernel to the wanted settings, and whether it would take them.

use anyhow::{anyhow, ensure, Result};
use serde::Serialize;

use crate::kernel::Ksm;

use super::{
    tunables::{ADVISOR_MODE, ALL, NO_ADVISOR, PAGES_TO_SCAN, RUN},
    Setting,
};

/// One file, and its values before and after.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The name of the file.
    pub name: &'static str,
    /// The value that it has.
    pub from: String,
    /// The value that it gets.
    pub to: String,
}

/// The value of `run` that scans.
const SCANNING: &str = "1";

/// The value of `run` that unmerges everything.
const UNMERGING: &str = "2";

/// The changes that the settings ask for, in an order in which the kernel takes them.
///
/// # Errors
///
/// The kernel would refuse one of them.
pub fn plan(ksm: &Ksm, settings: &[Setting]) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for setting in settings {
        let name = setting.tunable.name;
        let text = ksm
            .read(name)?
            .ok_or_else(|| anyhow!("this KSM has no {name}"))?;
        let from = setting.tunable.shown(&text);
        if from != setting.value {
            changes.push(Change {
                name,
                from,
                to: setting.value.clone(),
            });
        }
    }
    changes.sort_by_key(position);
    check_pace(ksm, &changes)?;
    check_rest(ksm, &changes)?;
    Ok(changes)
}

/// The scanner stops before all else changes, and starts after it.
fn position(change: &Change) -> usize {
    match change.name == RUN && change.to != SCANNING {
        true => 0,
        false => {
            1 + ALL
                .iter()
                .take_while(|tunable| tunable.name != change.name)
                .count()
        }
    }
}

fn find<'a>(changes: &'a [Change], name: &str) -> Option<&'a str> {
    let change = changes.iter().find(|change| change.name == name);
    change.map(|change| change.to.as_str())
}

/// The advisor sets the pace, and nobody else may then.
fn check_pace(ksm: &Ksm, changes: &[Change]) -> Result<()> {
    if find(changes, PAGES_TO_SCAN).is_none() {
        return Ok(());
    }
    let before = ksm.read(ADVISOR_MODE)?.unwrap_or_else(|| NO_ADVISOR.into());
    let is_off = match find(changes, ADVISOR_MODE) {
        Some(mode) => mode == NO_ADVISOR,
        None => before == NO_ADVISOR || before.contains("[none]"),
    };
    ensure!(
        is_off,
        "the advisor sets {PAGES_TO_SCAN}: leave it out, or set {ADVISOR_MODE}={NO_ADVISOR} as well"
    );
    Ok(())
}

/// Some settings say how pages are merged, so none may be.
fn check_rest(ksm: &Ksm, changes: &[Change]) -> Result<()> {
    let needs_rest = |change: &&Change| {
        ALL.iter()
            .any(|tunable| tunable.name == change.name && tunable.needs_rest)
    };
    let Some(change) = changes.iter().find(needs_rest) else {
        return Ok(());
    };
    let merged = ksm.read("pages_shared")?.is_some_and(|pages| pages != "0");
    ensure!(
        !merged || find(changes, RUN) == Some(UNMERGING),
        "{} changes only while nothing is merged: set {RUN}={UNMERGING} as well, which unmerges everything",
        change.name
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A directory like `/sys/kernel/mm` of a host that merges.
    fn host(values: &[(&str, &str)]) -> (tempfile::TempDir, Ksm) {
        let mm = tempfile::tempdir().unwrap();
        fs::create_dir(mm.path().join("ksm")).unwrap();
        let usual = [
            ("run", "1"),
            ("pages_to_scan", "100"),
            ("max_page_sharing", "256"),
            ("merge_across_nodes", "1"),
            ("smart_scan", "1"),
            ("advisor_mode", "[none] scan-time"),
            ("advisor_target_scan_time", "200"),
            ("pages_shared", "0"),
        ];
        for (name, value) in usual.iter().chain(values) {
            write(mm.path(), name, value);
        }
        let ksm = Ksm::below(mm.path()).unwrap();
        (mm, ksm)
    }

    fn write(mm: &Path, name: &str, value: &str) {
        fs::write(mm.join("ksm").join(name), format!("{value}\n")).unwrap();
    }

    fn planned(ksm: &Ksm, settings: &[&str]) -> Result<Vec<String>> {
        let settings: Vec<Setting> = settings.iter().map(|text| text.parse().unwrap()).collect();
        let changes = plan(ksm, &settings)?;
        Ok(changes
            .iter()
            .map(|change| format!("{}={}", change.name, change.to))
            .collect())
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let (_mm, ksm) = host(&[]);
        assert_eq!(
            planned(&ksm, &["run=1", "smart_scan=0"]).unwrap(),
            ["smart_scan=0"]
        );
    }

    #[test]
    fn scanning_starts_last_and_stops_first() {
        let (_mm, ksm) = host(&[("run", "0")]);
        assert_eq!(
            planned(&ksm, &["run=1", "smart_scan=0"]).unwrap(),
            ["smart_scan=0", "run=1"]
        );
        let (_mm, ksm) = host(&[]);
        assert_eq!(
            planned(&ksm, &["smart_scan=0", "run=2"]).unwrap(),
            ["run=2", "smart_scan=0"]
        );
    }

    #[test]
    fn the_advisor_is_off_before_the_pace_is_set() {
        let (_mm, ksm) = host(&[("advisor_mode", "none [scan-time]")]);
        let order = planned(&ksm, &["pages_to_scan=7", "advisor_mode=none"]).unwrap();
        assert_eq!(order, ["advisor_mode=none", "pages_to_scan=7"]);
        assert!(planned(&ksm, &["pages_to_scan=7"]).is_err());
    }

    #[test]
    fn the_advisor_starts_with_its_own_settings() {
        let (_mm, ksm) = host(&[]);
        let order = planned(
            &ksm,
            &["advisor_mode=scan-time", "advisor_target_scan_time=60"],
        )
        .unwrap();
        assert_eq!(
            order,
            ["advisor_target_scan_time=60", "advisor_mode=scan-time"]
        );
        assert!(planned(&ksm, &["advisor_mode=scan-time", "pages_to_scan=7"]).is_err());
    }

    #[test]
    fn some_settings_wait_until_nothing_is_merged() {
        let (_mm, ksm) = host(&[("pages_shared", "12")]);
        assert!(planned(&ksm, &["max_page_sharing=16"]).is_err());
        assert_eq!(planned(&ksm, &["max_page_sharing=256"]).unwrap(), [""; 0]);
        let order = planned(&ksm, &["max_page_sharing=16", "run=2"]).unwrap();
        assert_eq!(order, ["run=2", "max_page_sharing=16"]);
    }

    #[test]
    fn a_kernel_without_a_setting_says_so() {
        let (_mm, ksm) = host(&[]);
        assert!(planned(&ksm, &["only_zero_pages=1"]).is_err());
    }
}
