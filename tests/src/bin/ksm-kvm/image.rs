// SPDX-License-Identifier: GPL-2.0

//! What all guests hold: pages of a kernel, and pages of a machine's files.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, Result};
use ksm_tests::{corpus::Corpus, PAGE_SIZE};

/// So many pages: if there is a kernel, half of them from it.
pub fn of_pages(pages: usize, kernel: Option<&Path>) -> Result<Vec<u8>> {
    let mut image = match kernel {
        Some(path) => kernel_pages(path, pages / 2)?,
        None => Vec::new(),
    };
    let missing = pages - image.len() / PAGE_SIZE;
    let mut files = vec![0; missing * PAGE_SIZE];
    Corpus::of_pages(missing)?.read_into(&mut files)?;
    image.append(&mut files);
    Ok(image)
}

/// The first pages of a file, but for the zeros with which a linker fills gaps.
fn kernel_pages(path: &Path, pages: usize) -> Result<Vec<u8>> {
    let name = || format!("cannot read {}", path.display());
    let mut file = File::open(path).with_context(name)?;
    let mut found = Vec::new();
    let mut page = [0; PAGE_SIZE];
    while found.len() < pages * PAGE_SIZE {
        file.read_exact(&mut page).with_context(name)?;
        if page != [0; PAGE_SIZE] {
            found.extend_from_slice(&page);
        }
    }
    Ok(found)
}
