// SPDX-License-Identifier: GPL-2.0

//! Sequences that have failed, as files: they are tried first.
//!
//! A sequence is written down before it runs and removed when it has passed, so one that takes
//! the whole kernel down stays there as well.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::operation::Operation;

/// Reads a sequence: a list in JSON, an operation a line.
pub fn read(path: &Path) -> Result<Vec<Operation>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no sequence", path.display()))
}

/// A sequence as [`read`] takes it.
pub fn to_text(sequence: &[Operation]) -> Result<String> {
    let lines = sequence
        .iter()
        .map(serde_json::to_string)
        .collect::<serde_json::Result<Vec<_>>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

/// All sequences in a directory, by name.
pub fn all(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = fs::read_dir(directory)
        .with_context(|| format!("cannot list {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension() == Some(OsStr::new("json")));
    paths.sort();
    Ok(paths)
}

/// The file of a sequence that is under way.
pub struct Record(Option<PathBuf>);

impl Record {
    /// A file called `name` in `directory`, if there is one.
    pub fn new(directory: Option<&Path>, name: &str) -> Self {
        Self(directory.map(|directory| directory.join(name).with_extension("json")))
    }

    /// Writes the sequence in place of any other.
    pub fn write(&self, sequence: &[Operation]) -> Result<()> {
        match &self.0 {
            Some(path) => fs::write(path, to_text(sequence)?)
                .with_context(|| format!("cannot write {}", path.display())),
            None => Ok(()),
        }
    }

    /// It has passed.
    pub fn remove(self) -> Result<()> {
        match self.0 {
            Some(path) => Ok(fs::remove_file(path)?),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_come_back_as_they_were() {
        let sequence = [Operation::Start, Operation::Scans(2)];
        let text = to_text(&sequence).unwrap();
        assert_eq!(text.lines().count(), 4);
        let back: Vec<Operation> = serde_json::from_str(&text).unwrap();
        assert_eq!(format!("{back:?}"), format!("{sequence:?}"));
    }
}
