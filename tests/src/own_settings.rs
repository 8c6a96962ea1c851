// SPDX-License-Identifier: GPL-2.0

//! Settings of the module's own that a program is asked to have, in place of the defaults.

use std::{env, path::Path, str::FromStr, sync::OnceLock};

use anyhow::{anyhow, Context, Error, Result};

use crate::ksm;

/// The variable that has settings for every program of a run, with spaces between them.
const VARIABLE: &str = "KSM_RS_SETTINGS";

/// A file in `/sys/kernel/mm/ksm_rs`, and what is written there.
#[derive(Clone, Debug, PartialEq)]
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

impl Setting {
    fn write(&self) -> Result<()> {
        ksm::write_own(&self.file, &self.value)
    }
}

static WANTED: OnceLock<Vec<Setting>> = OnceLock::new();

/// Notes what this program is asked to have; once.
pub fn want(settings: Vec<Setting>) {
    let _ = WANTED.set(settings);
}

/// Writes them, and those of the environment where the module is there. The scanner's settings are those of a test
/// just now.
pub(crate) fn apply() -> Result<()> {
    if Path::new(ksm::OWN_DIRECTORY).exists() {
        let text = env::var(VARIABLE).unwrap_or_default();
        parse_all(&text)
            .context(VARIABLE)?
            .iter()
            .try_for_each(Setting::write)?;
    }
    let mut wanted = WANTED.get().into_iter().flatten();
    wanted.try_for_each(Setting::write)
}

fn parse_all(text: &str) -> Result<Vec<Setting>> {
    text.split_whitespace().map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_names_and_values() {
        let setting = |file: &str, value: &str| Setting {
            file: file.to_owned(),
            value: value.to_owned(),
        };
        let expected = [setting("domains", "shared"), setting("skip_untouched", "1")];
        assert_eq!(
            parse_all(" domains=shared  skip_untouched=1").unwrap(),
            expected
        );
        assert_eq!(parse_all("").unwrap(), []);
        assert!(parse_all("domains").is_err());
    }
}
