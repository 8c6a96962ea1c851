// SPDX-License-Identifier: GPL-2.0

//! `ksm set`: changes settings.

use std::io::Write;

use anyhow::Result;

use crate::{
    cli::Set,
    kernel::Ksm,
    settings::{self, Change},
};

/// Brings KSM to the wanted settings.
///
/// # Errors
///
/// The kernel would refuse one of them, and nothing has changed; or it has refused one all the same, and
/// those before it stand.
pub fn run(set: &Set, json: bool, out: &mut dyn Write) -> Result<()> {
    let of_file = set
        .file
        .as_deref()
        .map_or(Ok(Vec::new()), settings::read_file)?;
    let wanted = settings::joined(set.settings.clone(), of_file)?;
    let ksm = Ksm::open()?;
    let changes = settings::plan(&ksm, &wanted)?;
    let (made, result) = make(&ksm, &changes);
    if json {
        writeln!(out, "{}", serde_json::json!({ "changed": made }))?;
    } else {
        for Change { name, from, to } in made {
            writeln!(out, "{name}: {from} -> {to}")?;
        }
    }
    result
}

/// Makes the changes in turn; returns those that were made.
fn make<'a>(ksm: &Ksm, changes: &'a [Change]) -> (&'a [Change], Result<()>) {
    for (index, change) in changes.iter().enumerate() {
        if let Err(error) = ksm.write(change.name, &change.to) {
            return (&changes[..index], Err(error));
        }
    }
    (changes, Ok(()))
}
