// SPDX-License-Identifier: GPL-2.0

//! `ksm set`: changes settings.

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
pub fn run(set: &Set, json: bool) -> Result<()> {
    let of_file = set
        .file
        .as_deref()
        .map_or(Ok(Vec::new()), settings::read_file)?;
    let wanted = settings::joined(set.settings.clone(), of_file)?;
    let ksm = Ksm::open()?;
    let changes = settings::plan(&ksm, &wanted)?;
    let (made, result) = make(&ksm, &changes);
    match json {
        true => println!("{}", serde_json::json!({ "changed": made })),
        false => made
            .iter()
            .for_each(|Change { name, from, to }| println!("{name}: {from} -> {to}")),
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
