// SPDX-License-Identifier: GPL-2.0

//! What `/proc` tells about processes, memory and modules.

use std::{
    collections::BTreeMap,
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{bail, Context, Result};

use crate::{region::Region, PAGE_SIZE};

/// Finds `KEY VALUE` or `KEY: VALUE` in a text of such lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?;
        let value = rest.strip_prefix(':').unwrap_or(rest);
        value.starts_with(char::is_whitespace).then(|| value.trim())
    })
}

fn number(text: &str, key: &str) -> Result<i64> {
    let value = field(text, key).with_context(|| format!("no {key} there"))?;
    let digits = value.split_whitespace().next().unwrap_or_default();
    digits
        .parse()
        .with_context(|| format!("{key} is no number but {value:?}"))
}

/// `/proc/PID/ksm_stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KsmStat {
    /// Pages that KSM keeps a record of.
    pub rmap_items: i64,
    /// Pages of zeros that became the zero page.
    pub zero_pages: i64,
    /// Pages that are merged.
    pub merging_pages: i64,
    /// Bytes saved, less the bytes for the records.
    pub profit: i64,
    /// Whether all of the process is offered to KSM.
    pub merge_any: bool,
}

impl KsmStat {
    /// Reads it for `process`: a process id, or `self`.
    pub fn read(process: impl std::fmt::Display) -> Result<Self> {
        let path = format!("/proc/{process}/ksm_stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Self::parse(&text).with_context(|| format!("cannot make sense of {path}"))
    }

    fn parse(text: &str) -> Result<Self> {
        Ok(Self {
            rmap_items: number(text, "ksm_rmap_items")?,
            zero_pages: number(text, "ksm_zero_pages")?,
            merging_pages: number(text, "ksm_merging_pages")?,
            profit: number(text, "ksm_process_profit")?,
            merge_any: field(text, "ksm_merge_any") == Some("yes"),
        })
    }
}

/// `/proc/PID/ksm_merging_pages`.
pub fn merging_pages(process: impl std::fmt::Display) -> Result<i64> {
    let path = format!("/proc/{process}/ksm_merging_pages");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} holds no number but {text:?}"))
}

/// True if the region carries `flag` (two letters) in this process's `smaps`.
pub fn has_vm_flag(region: &Region, flag: &str) -> Result<bool> {
    let smaps = fs::read_to_string("/proc/self/smaps").context("cannot read smaps")?;
    let flags = vm_flags_at(&smaps, region.address()).context("the region is not in smaps")?;
    Ok(flags.split_whitespace().any(|word| word == flag))
}

/// All flags of this process's mapping at `address`, if there is one.
pub fn vm_flags(address: usize) -> Result<Option<String>> {
    let smaps = fs::read_to_string("/proc/self/smaps").context("cannot read smaps")?;
    Ok(vm_flags_at(&smaps, address).map(str::to_owned))
}

/// A line of the region's entry in this process's `smaps`, in KiB.
pub fn smaps_kib(region: &Region, key: &str) -> Result<i64> {
    let smaps = fs::read_to_string("/proc/self/smaps").context("cannot read smaps")?;
    let entry = entry_at(&smaps, region.address()).context("the region is not in smaps")?;
    number(&entry, key)
}

/// The lines below the first one of the mapping that contains `address`.
fn entry_at(smaps: &str, address: usize) -> Option<String> {
    let is_elsewhere = |line: &&str| {
        !mapping_range(line).is_some_and(|(start, end)| (start..end).contains(&address))
    };
    let mut rest = smaps.lines().skip_while(is_elsewhere);
    rest.next()?;
    let entry: Vec<_> = rest
        .take_while(|line| mapping_range(line).is_none())
        .collect();
    Some(entry.join("\n"))
}

/// The `VmFlags` of the mapping that contains `address`.
fn vm_flags_at(smaps: &str, address: usize) -> Option<&str> {
    let mut inside = false;
    for line in smaps.lines() {
        if let Some((start, end)) = mapping_range(line) {
            inside = (start..end).contains(&address);
        } else if inside {
            if let Some(flags) = line.strip_prefix("VmFlags:") {
                return Some(flags.trim());
            }
        }
    }
    None
}

/// The parts of a process's memory that are offered to KSM.
pub fn mergeable_ranges(process: impl std::fmt::Display) -> Result<Vec<Range<usize>>> {
    let path = format!("/proc/{process}/smaps");
    let smaps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(ranges_with_flag(&smaps, "mg"))
}

fn ranges_with_flag(smaps: &str, flag: &str) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut last = None;
    for line in smaps.lines() {
        if let Some((start, end)) = mapping_range(line) {
            last = Some(start..end);
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has_it = flags.split_whitespace().any(|word| word == flag);
            ranges.extend(last.take().filter(|_| has_it));
        }
    }
    ranges
}

/// Each file that this process has mapped, and where in the file its last mapping ends.
pub fn mapped_files() -> Result<BTreeMap<PathBuf, u64>> {
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read maps")?;
    let mut files = BTreeMap::new();
    for (path, end) in maps.lines().filter_map(mapped_file) {
        let known = files.entry(path.to_owned()).or_default();
        *known = end.max(*known);
    }
    Ok(files)
}

/// The file in a line of `maps`, and where in the file this mapping ends.
fn mapped_file(line: &str) -> Option<(&Path, u64)> {
    let path = &line[line.find('/')?..];
    let (start, end) = mapping_range(line)?;
    let offset = u64::from_str_radix(line.split_whitespace().nth(2)?, 16).ok()?;
    Some((Path::new(path), offset + (end - start) as u64))
}

/// The range in the first line of a mapping in `smaps`, or nothing if it is another line.
fn mapping_range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    Some((
        usize::from_str_radix(start, 16).ok()?,
        usize::from_str_radix(end, 16).ok()?,
    ))
}

/// The state letter of a process, such as `S` or `Z`.
pub fn process_state(pid: impl std::fmt::Display) -> Result<char> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    field(&text, "State")
        .and_then(|state| state.chars().next())
        .with_context(|| format!("no State in {path}"))
}

/// Pages of a process that lie in swap.
pub fn swapped_pages(pid: impl std::fmt::Display) -> Result<usize> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = usize::try_from(number(&text, "VmSwap")?)?;
    Ok(kib * 1024 / PAGE_SIZE)
}

/// A line of `/proc/vmstat`.
pub fn vmstat(key: &str) -> Result<i64> {
    let text = fs::read_to_string("/proc/vmstat").context("cannot read vmstat")?;
    number(&text, key)
}

/// A line of `/proc/meminfo`, in KiB.
pub fn meminfo_kib(key: &str) -> Result<i64> {
    let text = fs::read_to_string("/proc/meminfo").context("cannot read meminfo")?;
    number(&text, key)
}

/// Pages that nobody uses, those in the lists that each CPU keeps included.
pub fn free_pages() -> Result<u64> {
    let text = fs::read_to_string("/proc/zoneinfo").context("cannot read zoneinfo")?;
    Ok(free_pages_in(&text))
}

fn free_pages_in(zoneinfo: &str) -> u64 {
    let free = |line: &str| {
        let line = line.trim_start();
        let count = line
            .strip_prefix("pages free")
            .or(line.strip_prefix("count:"))?;
        count.trim().parse::<u64>().ok()
    };
    zoneinfo.lines().filter_map(free).sum()
}

/// A file's text, or none where the kernel does not have the file.
pub fn read_if_present(file: &str) -> Result<String> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {file}")),
    }
}

/// Names of slab caches; none where the kernel does not tell (`CONFIG_SLUB_DEBUG`).
pub fn slab_caches() -> Result<Vec<String>> {
    Ok(read_if_present("/proc/slabinfo")?
        .lines()
        .skip(2)
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// The process id of the thread named `name`.
pub fn find_process(name: &str) -> Result<Option<u32>> {
    for entry in fs::read_dir("/proc").context("cannot list /proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        // A process may be gone by now.
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if comm.trim_end() == name {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

/// The scanner's thread.
pub struct Ksmd {
    pid: u32,
}

impl Ksmd {
    /// Finds the running scanner.
    pub fn find() -> Result<Self> {
        match find_process("ksmd")? {
            Some(pid) => Ok(Self { pid }),
            None => bail!("there is no thread named ksmd"),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// True if it waits to be woken, or for time to pass.
    pub fn is_asleep(&self) -> Result<bool> {
        Ok(process_state(self.pid)? == 'S')
    }

    /// How often it has gone to sleep.
    pub fn sleeps(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(u64::try_from(number(&text, "voluntary_ctxt_switches")?)?)
    }

    /// How long it has been on a CPU.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/schedstat", self.pid);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("cannot read {path}: CONFIG_SCHED_INFO?"))?;
        let nanoseconds = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("{path} holds no number but {text:?}"))?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_whole_key() {
        let text = "ksm_rmap_items 7\nksm_merge_any: yes\nMemFree:   12 kB\n";
        assert_eq!(field(text, "ksm_rmap_items"), Some("7"));
        assert_eq!(field(text, "ksm_merge_any"), Some("yes"));
        assert_eq!(field(text, "ksm_rmap"), None);
        assert_eq!(number(text, "MemFree").unwrap(), 12);
        assert!(number(text, "ksm_merge_any").is_err());
    }

    #[test]
    fn free_pages_are_summed_over_zones_and_cpus() {
        let text = "Node 0, zone      DMA\n  pages free     15\n        boost    0\n  \
                    pagesets\n    cpu: 0\n              count:    3\n              high:  9\n\
                    Node 0, zone   Normal\n  pages free     100\n      nr_free_cma  0\n";
        assert_eq!(free_pages_in(text), 118);
    }

    #[test]
    fn ksm_stat_is_parsed() {
        let text = "ksm_rmap_items 3\nksm_zero_pages 0\nksm_merging_pages 2\n\
                    ksm_process_profit -128\nksm_merge_any: no\nksm_mergeable: yes\n";
        assert_eq!(
            KsmStat::parse(text).unwrap(),
            KsmStat {
                rmap_items: 3,
                zero_pages: 0,
                merging_pages: 2,
                profit: -128,
                merge_any: false
            }
        );
    }

    #[test]
    fn vm_flags_belong_to_their_mapping() {
        let smaps = "1000-2000 rw-p 0 00:00 0\nSize: 4 kB\nVmFlags: rd wr mg\n\
                     2000-4000 rw-p 0 00:00 0 [heap]\nVmFlags: rd wr\n";
        assert_eq!(vm_flags_at(smaps, 0x1fff), Some("rd wr mg"));
        assert_eq!(vm_flags_at(smaps, 0x2000), Some("rd wr"));
        assert_eq!(vm_flags_at(smaps, 0x4000), None);
        assert_eq!(
            entry_at(smaps, 0x1000).as_deref(),
            Some("Size: 4 kB\nVmFlags: rd wr mg")
        );
        assert_eq!(entry_at(smaps, 0x3000).as_deref(), Some("VmFlags: rd wr"));
    }

    #[test]
    fn ranges_are_chosen_by_flag() {
        let smaps = "1000-2000 rw-p 0 00:00 0\nSize: 4 kB\nVmFlags: rd wr mg\n\
                     2000-4000 rw-p 0 00:00 0 [heap]\nVmFlags: rd wr\n";
        assert_eq!(ranges_with_flag(smaps, "mg"), [0x1000..0x2000]);
        assert_eq!(ranges_with_flag(smaps, "rd").len(), 2);
    }

    #[test]
    fn mapped_files_have_an_end() {
        let line = "7f00a000-7f00c000 r-xp 00003000 00:15 77                 /usr/lib/a b.so";
        let expected = (Path::new("/usr/lib/a b.so"), 0x5000);
        assert_eq!(mapped_file(line), Some(expected));
        assert_eq!(
            mapped_file("7f00a000-7f00c000 rw-p 00000000 00:00 0 [heap]"),
            None
        );
    }
}
