// SPDX-License-Identifier: GPL-2.0

//! Settings of KSM: their names, the values that the kernel takes, and the order in which it takes them.

mod plan;
mod tunables;

use std::{fs, path::Path, str::FromStr};

use anyhow::{anyhow, ensure, Context, Result};

pub use plan::{plan, Change};
use tunables::Tunable;

/// One tunable, and the value that it is to have.
#[derive(Clone, Debug)]
pub struct Setting {
    tunable: &'static Tunable,
    value: String,
}

impl FromStr for Setting {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| anyhow!("{text:?} is not NAME=VALUE"))?;
        let (name, value) = (name.trim(), value.trim());
        let tunable = tunables::find(name).ok_or_else(|| {
            anyhow!(
                "KSM has no setting {name:?}; there are {}",
                tunables::names().join(", ")
            )
        })?;
        Ok(Self {
            tunable,
            value: tunable.checked(value)?,
        })
    }
}

/// The settings in the lines of a file.
pub fn read_file(path: &Path) -> Result<Vec<Setting>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse_lines(&text).with_context(|| path.display().to_string())
}

fn parse_lines(text: &str) -> Result<Vec<Setting>> {
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let numbered = (1..).zip(lines).filter(|(_, line)| !line.is_empty());
    numbered
        .map(|(number, line)| line.parse().with_context(|| format!("line {number}")))
        .collect()
}

/// Settings of both; where both have the same one, the `first` counts.
///
/// # Errors
///
/// One of the two has a setting twice.
pub fn joined(first: Vec<Setting>, second: Vec<Setting>) -> Result<Vec<Setting>> {
    for settings in [&first, &second] {
        for (index, setting) in settings.iter().enumerate() {
            let name = setting.tunable.name;
            let again = settings[..index]
                .iter()
                .any(|earlier| earlier.tunable.name == name);
            ensure!(!again, "{name} is set twice");
        }
    }
    let mut all = first;
    for setting in second {
        if all
            .iter()
            .all(|other| other.tunable.name != setting.tunable.name)
        {
            all.push(setting);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(settings: &[Setting]) -> Vec<String> {
        settings
            .iter()
            .map(|setting| format!("{}={}", setting.tunable.name, setting.value))
            .collect()
    }

    #[test]
    fn lines_may_have_comments_and_spaces() {
        let text = "# pace\n\npages_to_scan = 500   # a step\nrun=1\n";
        let settings = parse_lines(text).unwrap();
        assert_eq!(names(&settings), ["pages_to_scan=500", "run=1"]);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, line) in [
            ("run=1\nrum=1\n", "line 2"),
            ("run\n", "line 1"),
            ("\nrun=3\n", "line 2"),
        ] {
            let error = format!("{:#}", parse_lines(text).unwrap_err());
            assert!(error.starts_with(line), "{error}");
        }
    }

    #[test]
    fn the_command_line_comes_before_the_file() {
        let (line, file) = ("run=0", "run=1\nsmart_scan=0\n");
        let all = joined(parse_lines(line).unwrap(), parse_lines(file).unwrap()).unwrap();
        assert_eq!(names(&all), ["run=0", "smart_scan=0"]);
    }

    #[test]
    fn no_setting_may_come_twice() {
        let twice = parse_lines("run=1\nrun=0\n").unwrap();
        assert!(joined(twice, Vec::new()).is_err());
    }
}
