// SPDX-License-Identifier: GPL-2.0

//! Everything that can be written to a file of `/sys/kernel/mm/ksm`, and the odd ways to do it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::FileExt,
};

use anyhow::{Context, Result};
use ksm_tests::ksm;

use crate::outcome::{show_io, Row};

/// Texts, each written as it stands and with a newline.
const TEXTS: &[&[u8]] = &[
    b"",
    b" ",
    b"\n",
    b"\t1",
    b"0",
    b"1",
    b"2",
    b"3",
    b"00000000000000000000000000000001",
    b"+1",
    b"-0",
    b"-1",
    b"+-1",
    b"+",
    b"-",
    b"0x1",
    b"0X1",
    b"010",
    b"0b1",
    b"1.0",
    b"1e1",
    b"1_0",
    b"1,000",
    b"1 1",
    b"1 ",
    b"1\n1",
    b"1\r",
    b"\xd9\xa1",
    b"\xff",
    b"127",
    b"128",
    b"32768",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"-2147483648",
    b"-2147483649",
    b"4294967295",
    b"4294967296",
    b"4294967297",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551615",
    b"18446744073709551616",
    b"340282366920938463463374607431768211456",
    b"4294967296x",
    b"18446744073709551616x",
    b"-+1",
    b"-+99999999999",
    b"-99999999999x",
    b"-18446744073709551616x",
    b"y",
    b"no",
    b"On",
    b"of",
    b"o",
    b"true",
    b"False",
    b"none",
    b"scan-time",
    b"scan-tim",
    b"scan-time ",
    b"SCAN-TIME",
    b"[none] scan-time",
    b"\0",
    b"1\0",
    b"1\x002",
    b"\x001",
    b"none\0",
    b"scan-time\0junk",
];

/// Bytes repeated that often, before a one.
const LONG: &[(u8, usize)] = &[
    (b'0', 300),
    (b'0', 4094),
    (b'0', 4095),
    (b'0', 4096),
    (b'0', 70_000),
    (b'1', 4096),
    (b'1', 70_000),
    (b' ', 5000),
    (b'\n', 5000),
    (b'\0', 5000),
    (b'A', 70_000),
];

pub fn table() -> Result<Vec<Row>> {
    ksm::write("run", 2)?;
    ksm::write("run", 0)?;
    let mut names: Vec<_> = fs::read_dir(ksm::DIRECTORY)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    let mut rows = Vec::new();
    for name in names {
        // Of what cannot be opened for writing, one attempt says it all.
        if !fs::metadata(ksm::path(&name))?.permissions().readonly() {
            rows.extend(inputs(&name)?);
        }
        rows.extend(ways(&name)?);
    }
    Ok(rows)
}

fn inputs(name: &str) -> Result<Vec<Row>> {
    let texts = TEXTS
        .iter()
        .flat_map(|text| [text.to_vec(), [text, &b"\n"[..]].concat()])
        .map(|bytes| (bytes.escape_ascii().to_string(), bytes));
    let long = LONG.iter().map(|&(byte, count)| {
        let mut bytes = vec![byte; count];
        bytes.push(b'1');
        (format!("{count} times {:?}, 1", char::from(byte)), bytes)
    });
    texts
        .chain(long)
        .map(|(what, bytes)| attempt(name, &what, |file| file.write(&bytes)))
        .collect()
}

/// Writes in other ways than all at once, and what is no writing.
fn ways(name: &str) -> Result<Vec<Row>> {
    Ok(vec![
        attempt(name, "1 at offset 1", |file| file.write_at(b"1", 1))?,
        attempt(name, "1 at offset 4095", |file| file.write_at(b"1", 4095))?,
        attempt(name, "1 at offset 4096", |file| file.write_at(b"1", 4096))?,
        attempt(name, "1 at the largest offset", |file| {
            file.write_at(b"1", i64::MAX as u64)
        })?,
        attempt(name, "1, then 0 in a second write", |file| {
            Ok((file.write(b"1")?, file.write(b"0")?))
        })?,
        attempt(name, "1, then junk in a second write", |file| {
            Ok((file.write(b"1")?, file.write(b"junk")?))
        })?,
        attempt(name, "two parts in one write", |file| {
            file.write_vectored(&[io::IoSlice::new(b"1"), io::IoSlice::new(b"0\n")])
        })?,
        attempt(name, "truncate", |file| file.set_len(0))?,
        attempt(name, "extend", |file| file.set_len(8192))?,
        attempt(name, "sync", |file| file.sync_all())?,
        reading(name, "read at offset 0", |file| read_at(file, 0))?,
        reading(name, "read at offset 4096", |file| read_at(file, 4096))?,
        reading(name, "read of nothing", |file| file.read(&mut []))?,
        reading(name, "seek from the end", |file| {
            file.seek(SeekFrom::End(0))
        })?,
        reading(name, "write to what is open for reading", |file| {
            file.write(b"1")
        })?,
    ])
}

/// Whether there is something to read at all; the numbers themselves are no matter of the table.
fn read_at(file: &File, offset: u64) -> io::Result<bool> {
    Ok(file.read_at(&mut [0; 100], offset)? > 0)
}

/// Does something to a file that is open for writing, and puts its content back.
fn attempt<T: std::fmt::Debug>(
    name: &str,
    what: &str,
    action: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<Row> {
    let before = content(name)?;
    let file = OpenOptions::new().write(true).open(ksm::path(name));
    let is_open = file.is_ok();
    let result = show_io(file.and_then(|mut file| action(&mut file)));
    // What can only be read is counted anew all the time.
    let after = if is_open { content(name)? } else { "-".into() };
    restore(name, &before)?;
    Ok(Row {
        request: format!("{name}: {what}"),
        outcome: format!("{result}, then {after}"),
    })
}

/// Does something to a file that is open for reading.
fn reading<T: std::fmt::Debug>(
    name: &str,
    what: &str,
    action: impl FnOnce(&mut File) -> io::Result<T>,
) -> Result<Row> {
    let file = File::open(ksm::path(name));
    Ok(Row {
        request: format!("{name}: {what}"),
        outcome: show_io(file.and_then(|mut file| action(&mut file))),
    })
}

fn content(name: &str) -> Result<String> {
    let text = fs::read_to_string(ksm::path(name)).with_context(|| format!("reading {name}"))?;
    Ok(text.trim_end().to_owned())
}

fn restore(name: &str, before: &str) -> Result<()> {
    if content(name)? == before || fs::metadata(ksm::path(name))?.permissions().readonly() {
        return Ok(());
    }
    // `advisor_mode` shows both of its values, and marks the one that it has.
    let marked = before.split(['[', ']']).nth(1);
    ksm::write(name, marked.unwrap_or(before))
}
