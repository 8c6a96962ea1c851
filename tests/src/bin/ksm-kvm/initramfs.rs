// SPDX-License-Identifier: GPL-2.0

//! All files of a guest that runs Linux: an archive that its kernel unpacks into memory, so that
//! no device is needed to read it from.

use std::{
    fs::File,
    io::{BufWriter, Cursor, Read},
    path::Path,
};

use anyhow::{Context, Result};
use cpio::NewcBuilder;
use ksm_tests::procfs;

/// Where a guest finds what all guests hold.
pub const DATA: &str = "/data";

/// Where the kernel looks for the first program.
const FIRST_PROGRAM: &str = "init";

/// Where every dynamic program of x86-64 says that its loader is.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// Where the loader looks for libraries.
const LIBRARIES: &str = "lib";

/// Types of files, and who may do what with them.
const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_755;

type Entry = (NewcBuilder, Cursor<Vec<u8>>);

/// Writes an archive of this very program, of the libraries that it needs, and of `data`.
pub fn write(archive: &Path, data: Vec<u8>) -> Result<()> {
    let mut entries = vec![
        entry("lib64", DIRECTORY, Vec::new()),
        entry(LIBRARIES, DIRECTORY, Vec::new()),
        entry(DATA, FILE, data),
    ];
    for (file, length) in procfs::mapped_files()? {
        entries.push(entry(&place_of(&file)?, FILE, head_of(&file, length)?));
    }
    File::create(archive)
        .and_then(|archive| cpio::write_cpio(entries.into_iter(), BufWriter::new(archive)))
        .with_context(|| format!("cannot write {}", archive.display()))?;
    Ok(())
}

fn entry(name: &str, mode: u32, content: Vec<u8>) -> Entry {
    (NewcBuilder::new(name).mode(mode), Cursor::new(content))
}

/// Where a file goes that this program has mapped.
fn place_of(file: &Path) -> Result<String> {
    if file == std::env::current_exe().context("our own path")? {
        return Ok(FIRST_PROGRAM.to_owned());
    }
    if file.file_name() == Path::new(LOADER).file_name() {
        return Ok(LOADER.to_owned());
    }
    let name = file.file_name().unwrap_or_default();
    Ok(format!("{LIBRARIES}/{}", name.to_string_lossy()))
}

/// What of a file is ever mapped: what comes behind that is for debuggers.
fn head_of(file: &Path, length: u64) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(file)
        .and_then(|file| file.take(length).read_to_end(&mut head))
        .with_context(|| format!("cannot read {}", file.display()))?;
    Ok(head)
}
