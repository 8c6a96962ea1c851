// SPDX-License-Identifier: GPL-2.0

//! Settings of the module's own that a run is asked to have, in place of the defaults.

use std::{str::FromStr, sync::OnceLock};

use anyhow::{anyhow, Error, Result};
use ksm_tests::ksm;

/// A file in `/sys/kernel/mm/ksm_rs`, and what is written there.
#[derive(Clone)]
pub struct Setting {
    file: String,
    value: String,
}

impl FromStr for Setting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('=');
        let (file, value) = parts.ok_or_else(|| anyhow!("no NAME=VALUE but {text:?}"))?;
        Ok(Self {
            file: file.to_owned(),
            value: value.to_owned(),
        })
    }
}

static WANTED: OnceLock<Vec<Setting>> = OnceLock::new();

/// Notes what the run is asked to have; once.
pub fn want(settings: Vec<Setting>) {
    let _ = WANTED.set(settings);
}

/// Writes them. The scanner's settings are those of a test just now.
pub fn apply() -> Result<()> {
    let mut wanted = WANTED.get().into_iter().flatten();
    wanted.try_for_each(|setting| ksm::write_own(&setting.file, &setting.value))
}
