// SPDX-License-Identifier: GPL-2.0

//! What `/proc` tells about processes, memory and modules.

use std::{collections::BTreeMap, fmt::Display, fs, ops::Range, path::PathBuf, time::Duration};

use ::procfs::process::{all_processes, MMapPath, MemoryMap, Process, VmFlags};
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
    pub fn read(process: impl Display) -> Result<Self> {
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
pub fn merging_pages(process: impl Display) -> Result<i64> {
    let path = format!("/proc/{process}/ksm_merging_pages");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    text.trim()
        .parse()
        .with_context(|| format!("{path} holds no number but {text:?}"))
}

/// The directory of `process` in `/proc`: a process id, or `self`.
fn process(process: impl Display) -> Result<Process> {
    Ok(Process::new_with_root(format!("/proc/{process}").into())?)
}

/// The addresses of a mapping.
fn range_of(mapping: &MemoryMap) -> Range<usize> {
    let (start, end) = mapping.address;
    start as usize..end as usize
}

fn is_offered(mapping: &MemoryMap) -> bool {
    mapping.extension.vm_flags.contains(VmFlags::MG)
}

/// This process's mapping that contains `address`, with its lines in `smaps`.
fn mapping_at(address: usize) -> Result<MemoryMap> {
    let mut mappings = process("self")?.smaps()?.into_iter();
    mappings
        .find(|mapping| range_of(mapping).contains(&address))
        .with_context(|| format!("{address:#x} is not in smaps"))
}

/// True if the region is offered to KSM.
pub fn is_mergeable(region: &Region) -> Result<bool> {
    is_mergeable_at(region.address())
}

/// True if the page of this process at `address` is offered to KSM.
pub fn is_mergeable_at(address: usize) -> Result<bool> {
    Ok(is_offered(&mapping_at(address)?))
}

/// A line of the region's entry in this process's `smaps`, in KiB.
pub fn smaps_kib(region: &Region, key: &str) -> Result<i64> {
    let lines = mapping_at(region.address())?.extension.map;
    let bytes = lines.get(key).with_context(|| format!("no {key} there"))?;
    Ok(i64::try_from(bytes / 1024)?)
}

/// What huge pages a process has, in KiB.
pub fn anon_huge_kib(pid: impl Display) -> Result<u64> {
    let mappings = process(pid)?.smaps()?;
    let huge = mappings
        .iter()
        .filter_map(|mapping| mapping.extension.map.get("AnonHugePages"));
    Ok(huge.sum::<u64>() / 1024)
}

/// The parts of a process's memory that are offered to KSM.
pub fn mergeable_ranges(pid: impl Display) -> Result<Vec<Range<usize>>> {
    let mappings = process(pid)?.smaps()?;
    let offered = mappings.iter().filter(|mapping| is_offered(mapping));
    Ok(offered.map(range_of).collect())
}

/// Where a process has memory.
pub fn mapped_ranges(pid: impl Display) -> Result<Vec<Range<usize>>> {
    let mappings = process(pid)?.maps()?;
    // The kernel's own page of code stands in its half of the addresses.
    let ranges = mappings.iter().map(range_of);
    Ok(ranges
        .filter(|range| range.end <= isize::MAX as usize)
        .collect())
}

/// Each file that this process has mapped, and where in the file its last mapping ends.
pub fn mapped_files() -> Result<BTreeMap<PathBuf, u64>> {
    let mut files = BTreeMap::new();
    for mapping in process("self")?.maps()? {
        let end = mapping.offset + range_of(&mapping).len() as u64;
        if let MMapPath::Path(path) = mapping.pathname {
            let known = files.entry(path).or_default();
            *known = end.max(*known);
        }
    }
    Ok(files)
}

/// The state letter of a process, such as `S` or `Z`.
pub fn process_state(pid: impl Display) -> Result<char> {
    Ok(process(pid)?.stat()?.state)
}

/// Pages of a process that are in memory.
pub fn resident_pages(pid: impl Display) -> Result<usize> {
    let kib = process(pid)?.status()?.vmrss.context("no VmRSS there")?;
    Ok(usize::try_from(kib)? * 1024 / PAGE_SIZE)
}

/// Pages of a process that lie in swap.
pub fn swapped_pages(pid: impl Display) -> Result<usize> {
    let kib = process(pid)?.status()?.vmswap.context("no VmSwap there")?;
    Ok(usize::try_from(kib)? * 1024 / PAGE_SIZE)
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
    // A process may be gone by now.
    let mut present = all_processes()?.filter_map(|process| process.ok()?.stat().ok());
    Ok(present
        .find(|stat| stat.comm == name)
        .map(|stat| stat.pid as u32))
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
        let count = process(self.pid)?.status()?.voluntary_ctxt_switches;
        count.context("no voluntary_ctxt_switches there")
    }

    /// How long it has been on a CPU.
    pub fn cpu_time(&self) -> Result<Duration> {
        let schedstat = process(self.pid)?.schedstat();
        let schedstat = schedstat.context("CONFIG_SCHED_INFO?")?;
        Ok(Duration::from_nanos(schedstat.sum_exec_runtime))
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
    fn this_program_is_among_the_mapped_files() {
        let program = std::env::current_exe().unwrap();
        let length = fs::metadata(&program).unwrap().len();
        let end = mapped_files().unwrap()[&program];
        assert!((1..=length.next_multiple_of(PAGE_SIZE as u64)).contains(&end));
    }
}
