// SPDX-License-Identifier: GPL-2.0

//! `madvise` of KSM for every kind of mapping, and for every kind of range.

use std::{ffi::c_void, fs::File, num::NonZeroUsize, os::fd::AsRawFd, ptr};

use anyhow::{Context, Result};
use ksm_tests::{procfs, PAGE_SIZE};
use nix::{errno::Errno, sys::mman::MlockAllFlags};

use crate::outcome::{in_new_process, show, Row};

const PAGES: usize = 4;
const LENGTH: usize = PAGES * PAGE_SIZE;

/// The end of what a process can map, without its last page.
const TOP: usize = (1 << 47) - PAGE_SIZE;

const ADVICE: &[(&str, i32)] = &[
    ("mergeable", libc::MADV_MERGEABLE),
    ("unmergeable", libc::MADV_UNMERGEABLE),
];

pub fn table() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &(name, protection, flags) in ANONYMOUS {
        rows.extend(in_new_process(|| {
            of_kind(name, || map(protection, flags, None))
        })?);
    }
    for &(name, path, flags) in FILES {
        rows.extend(in_new_process(|| {
            of_kind(name, || {
                let file = File::open(path).map_err(|_| Errno::ENOENT)?;
                map(libc::PROT_READ, flags, Some(&file))
            })
        })?);
    }
    for name in ["[stack]", "[heap]", "[vdso]", "[vvar]", "[vvar_vclock]"] {
        rows.extend(in_new_process(|| of_special(name))?);
    }
    for &(name, prepare) in PREPARED {
        rows.extend(in_new_process(|| of_kind(name, prepare))?);
    }
    for &(name, start, length) in RANGES {
        for &advice in ADVICE {
            rows.extend(in_new_process(|| of_range(name, (start, length), advice))?);
        }
    }
    rows.extend(in_new_process(for_processes)?);
    Ok(rows)
}

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Mappings without a file: protection and flags.
const ANONYMOUS: &[(&str, i32, i32)] = &[
    ("private", READ_WRITE, libc::MAP_PRIVATE),
    ("read-only", libc::PROT_READ, libc::MAP_PRIVATE),
    ("inaccessible", libc::PROT_NONE, libc::MAP_PRIVATE),
    (
        "executable",
        READ_WRITE | libc::PROT_EXEC,
        libc::MAP_PRIVATE,
    ),
    (
        "growing down",
        READ_WRITE,
        libc::MAP_PRIVATE | libc::MAP_GROWSDOWN,
    ),
    ("locked", READ_WRITE, libc::MAP_PRIVATE | libc::MAP_LOCKED),
    (
        "populated",
        READ_WRITE,
        libc::MAP_PRIVATE | libc::MAP_POPULATE,
    ),
    (
        "of huge pages",
        READ_WRITE,
        libc::MAP_PRIVATE | libc::MAP_HUGETLB,
    ),
    ("droppable", READ_WRITE, libc::MAP_DROPPABLE),
    ("shared", READ_WRITE, libc::MAP_SHARED),
];

/// Mappings of files: path and flags.
const FILES: &[(&str, &str, i32)] = &[
    ("private, of a file", "/proc/self/exe", libc::MAP_PRIVATE),
    ("shared, of a file", "/proc/self/exe", libc::MAP_SHARED),
    ("private, of /dev/zero", "/dev/zero", libc::MAP_PRIVATE),
    ("shared, of /dev/zero", "/dev/zero", libc::MAP_SHARED),
    ("of physical memory", "/dev/mem", libc::MAP_SHARED),
    (
        "of a file of KSM",
        "/sys/kernel/mm/ksm/run",
        libc::MAP_PRIVATE,
    ),
    (
        "private, of a block device",
        "/dev/zram0",
        libc::MAP_PRIVATE,
    ),
];

/// What makes a mapping, or fails to.
type Prepare = fn() -> nix::Result<usize>;

/// Mappings to which something was done before.
const PREPARED: &[(&str, Prepare)] = &[
    ("not to be dumped", || advised(libc::MADV_DONTDUMP)),
    ("not to be inherited", || advised(libc::MADV_DONTFORK)),
    ("wiped by fork", || advised(libc::MADV_WIPEONFORK)),
    ("mergeable", || advised(libc::MADV_MERGEABLE)),
    ("for huge pages", || advised(libc::MADV_HUGEPAGE)),
    ("guarded", || advised(GUARD_INSTALL)),
    ("of a process that locks all", || {
        nix::sys::mman::mlockall(MlockAllFlags::MCL_FUTURE)?;
        map(READ_WRITE, libc::MAP_PRIVATE, None)
    }),
    ("of an io_uring", io_uring),
    ("of an AIO context", aio_context),
    ("of secret memory", secret_memory),
    ("private, of a memfd", || memfd(libc::MAP_PRIVATE)),
    ("shared, of a memfd", || memfd(libc::MAP_SHARED)),
];

/// `MADV_GUARD_INSTALL`.
const GUARD_INSTALL: i32 = 102;

/// Offsets from a mapping of four pages between two holes of as many, and lengths.
const RANGES: &[(&str, Start, usize)] = &[
    ("all", Start::Mapping(0), LENGTH),
    ("its first page", Start::Mapping(0), PAGE_SIZE),
    ("its last page", Start::Mapping(3), PAGE_SIZE),
    ("a page in the middle", Start::Mapping(1), PAGE_SIZE),
    ("nothing", Start::Mapping(0), 0),
    ("a byte", Start::Mapping(0), 1),
    ("a byte more than a page", Start::Mapping(0), PAGE_SIZE + 1),
    ("a byte less than all", Start::Mapping(0), LENGTH - 1),
    ("an odd start", Start::Odd, PAGE_SIZE),
    ("an odd start and nothing", Start::Odd, 0),
    ("nothing in a hole", Start::Mapping(-1), 0),
    ("a hole", Start::Mapping(-2), PAGE_SIZE),
    ("a hole and the mapping", Start::Mapping(-2), LENGTH),
    ("the mapping and a hole", Start::Mapping(2), LENGTH),
    ("the mapping between holes", Start::Mapping(-2), 2 * LENGTH),
    ("the first page of all", Start::At(0), PAGE_SIZE),
    ("nothing at 0", Start::At(0), 0),
    ("the first half of all addresses", Start::At(0), 1 << 46),
    ("all that a process can have", Start::At(0), TOP),
    ("a page more than that", Start::At(0), TOP + PAGE_SIZE),
    (
        "the last page of a process",
        Start::At(TOP - PAGE_SIZE),
        PAGE_SIZE,
    ),
    ("the page after that", Start::At(TOP), PAGE_SIZE),
    ("nothing after that", Start::At(TOP), 0),
    ("no canonical address", Start::At(1 << 47), PAGE_SIZE),
    ("the kernel's half", Start::At(1 << 63), PAGE_SIZE),
    (
        "the vsyscall page",
        Start::At(0xffff_ffff_ff60_0000),
        PAGE_SIZE,
    ),
    (
        "the last page of all",
        Start::At(0usize.wrapping_sub(PAGE_SIZE)),
        PAGE_SIZE,
    ),
    (
        "around the end",
        Start::At(0usize.wrapping_sub(PAGE_SIZE)),
        LENGTH,
    ),
    (
        "around all",
        Start::Mapping(0),
        0usize.wrapping_sub(PAGE_SIZE),
    ),
    ("a length that rounds to 0", Start::Mapping(0), usize::MAX),
    ("half of all lengths", Start::Mapping(0), 1 << 63),
    ("beyond the end of a process", Start::Mapping(0), TOP),
];

#[derive(Clone, Copy)]
enum Start {
    /// So many pages from the start of the mapping.
    Mapping(isize),
    /// A byte after the start of the mapping.
    Odd,
    At(usize),
}

/// Advice for a mapping that `make` makes, back and forth, and the flag that it has then.
fn of_kind(name: &str, make: impl FnOnce() -> nix::Result<usize>) -> Result<Vec<Row>> {
    let row = |what: &str, outcome: String| Row {
        request: format!("madvise {what}: {name}"),
        outcome,
    };
    let address = match make() {
        Ok(address) => address,
        Err(errno) => return Ok(vec![row("nothing", format!("no mapping: {errno:?}"))]),
    };
    let mut rows = vec![row("nothing", flags(address, 1)?)];
    for (what, advice) in [ADVICE, ADVICE].concat() {
        rows.push(row(what, attempt((address, LENGTH), advice, address, 1)?));
    }
    Ok(rows)
}

/// The same for one of the mappings that every process has.
fn of_special(name: &str) -> Result<Vec<Row>> {
    let maps = std::fs::read_to_string("/proc/self/maps").context("reading maps")?;
    let line = maps.lines().find(|line| line.ends_with(name));
    let start = line.and_then(|line| usize::from_str_radix(line.split_once('-')?.0, 16).ok());
    let mut rows = Vec::new();
    if let Some(start) = start {
        for (what, advice) in [ADVICE, ADVICE].concat() {
            rows.push(Row {
                request: format!("madvise {what}: {name}"),
                outcome: attempt((start, PAGE_SIZE), advice, start, 1)?,
            });
        }
    }
    Ok(rows)
}

fn of_range(
    name: &str,
    (start, length): (Start, usize),
    (what, advice): (&str, i32),
) -> Result<Vec<Row>> {
    let mapping = between_holes()?;
    if advice == libc::MADV_UNMERGEABLE {
        // So that it has something to take away.
        madvise(mapping, LENGTH, libc::MADV_MERGEABLE)?;
    }
    let start = match start {
        Start::Mapping(pages) => mapping.wrapping_add_signed(pages * PAGE_SIZE as isize),
        Start::Odd => mapping + 1,
        Start::At(address) => address,
    };
    Ok(vec![Row {
        request: format!("madvise {what}: {name}"),
        outcome: attempt((start, length), advice, mapping, PAGES)?,
    }])
}

/// The result, and the flags that some pages have then.
fn attempt(
    (start, length): (usize, usize),
    advice: i32,
    shown: usize,
    pages: usize,
) -> Result<String> {
    let result = madvise(start, length, advice);
    Ok(format!("{}, then {}", show(result), flags(shown, pages)?))
}

fn madvise(start: usize, length: usize, advice: i32) -> nix::Result<()> {
    // SAFETY: The advice of KSM changes no content, wherever it is given; other advice is given
    // for new mappings only.
    Errno::result(unsafe { libc::madvise(start as *mut c_void, length, advice) }).map(drop)
}

/// Which of these pages are mergeable.
fn flags(address: usize, pages: usize) -> Result<String> {
    let flag = |page| {
        let is_mergeable = procfs::is_mergeable_at(address + page * PAGE_SIZE)?;
        Ok(if is_mergeable { 'm' } else { '-' })
    };
    (0..pages).map(flag).collect()
}

/// A new mapping; leaked, as its process ends soon.
fn map(protection: i32, flags: i32, file: Option<&File>) -> nix::Result<usize> {
    map_at_offset(protection, flags, file.map(AsRawFd::as_raw_fd), 0)
}

fn map_at_offset(
    protection: i32,
    flags: i32,
    file: Option<i32>,
    offset: i64,
) -> nix::Result<usize> {
    let flags = flags
        | if file.is_none() {
            libc::MAP_ANONYMOUS
        } else {
            0
        };
    // SAFETY: A new mapping at an address that the kernel chooses touches nothing of ours.
    let address = unsafe {
        libc::mmap(
            ptr::null_mut(),
            LENGTH,
            protection,
            flags,
            file.unwrap_or(-1),
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    Ok(address as usize)
}

fn advised(advice: i32) -> nix::Result<usize> {
    let address = map(READ_WRITE, libc::MAP_PRIVATE, None)?;
    madvise(address, LENGTH, advice)?;
    Ok(address)
}

/// Four pages with as many unmapped ones on either side.
fn between_holes() -> Result<usize> {
    let length = NonZeroUsize::new(3 * LENGTH).context("a length")?;
    // SAFETY: A new mapping at an address that the kernel chooses touches nothing of ours.
    let start = unsafe {
        nix::sys::mman::mmap_anonymous(
            None,
            length,
            nix::sys::mman::ProtFlags::PROT_READ | nix::sys::mman::ProtFlags::PROT_WRITE,
            nix::sys::mman::MapFlags::MAP_PRIVATE,
        )
    }?;
    for hole in [0, 2 * LENGTH] {
        // SAFETY: Both are parts of the new mapping, to which nobody refers.
        unsafe { nix::sys::mman::munmap(start.byte_add(hole), LENGTH) }?;
    }
    Ok(start.as_ptr() as usize + LENGTH)
}

fn io_uring() -> nix::Result<usize> {
    /// Size of the structure that `io_uring_setup` takes.
    const PARAMETERS: usize = 120;
    let mut parameters = [0u64; PARAMETERS / 8];
    // SAFETY: All zeros are good parameters, and there is room for the answer.
    let ring = Errno::result(unsafe {
        libc::syscall(libc::SYS_io_uring_setup, 64, parameters.as_mut_ptr())
    })?;
    map_at_offset(READ_WRITE, libc::MAP_SHARED, Some(ring as i32), SUBMISSIONS)
}

/// Where an io_uring has its array of submissions, `IORING_OFF_SQES`.
const SUBMISSIONS: i64 = 0x1000_0000;

/// The address of an AIO context is its name.
fn aio_context() -> nix::Result<usize> {
    let mut context = 0usize;
    // SAFETY: There is room for the answer.
    Errno::result(unsafe { libc::syscall(libc::SYS_io_setup, 1, &raw mut context) })?;
    Ok(context)
}

fn secret_memory() -> nix::Result<usize> {
    // SAFETY: It takes integers only.
    let file = Errno::result(unsafe { libc::syscall(libc::SYS_memfd_secret, 0) })? as i32;
    // SAFETY: The descriptor is ours.
    Errno::result(unsafe { libc::ftruncate(file, LENGTH as i64) })?;
    map_at_offset(READ_WRITE, libc::MAP_SHARED, Some(file), 0)
}

fn memfd(flags: i32) -> nix::Result<usize> {
    // SAFETY: The name is a string that lives on.
    let file = Errno::result(unsafe { libc::memfd_create(c"outcomes".as_ptr(), 0) })?;
    // SAFETY: The descriptor is ours.
    Errno::result(unsafe { libc::ftruncate(file, LENGTH as i64) })?;
    map_at_offset(READ_WRITE, flags, Some(file), 0)
}

/// `process_madvise` for this process, and for its parent.
fn for_processes() -> Result<Vec<Row>> {
    let address = map(READ_WRITE, libc::MAP_PRIVATE, None)?;
    let range = libc::iovec {
        iov_base: address as *mut c_void,
        iov_len: LENGTH,
    };
    let mut rows = Vec::new();
    for (who, pid) in [
        ("itself", std::process::id()),
        ("its parent", std::os::unix::process::parent_id()),
    ] {
        // SAFETY: It takes integers only.
        let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        for (what, advice) in ADVICE {
            // SAFETY: The range is one element, and the advice changes no content.
            let result = Errno::result(unsafe {
                libc::syscall(
                    libc::SYS_process_madvise,
                    process,
                    &raw const range,
                    1,
                    *advice,
                    0,
                )
            });
            rows.push(Row {
                request: format!("process_madvise {what}: {who}"),
                outcome: show(result),
            });
        }
    }
    Ok(rows)
}
