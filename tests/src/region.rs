// SPDX-License-Identifier: GPL-2.0

//! Private anonymous memory, page by page.

use std::{ffi::c_void, fs::File, num::NonZeroUsize, os::unix::fs::FileExt, ptr::NonNull, slice};

use anyhow::{bail, Context, Result};
use nix::sys::mman::{
    madvise, mmap_anonymous, mprotect, mremap, munmap, MRemapFlags, MapFlags, MmapAdvise, ProtFlags,
};

use crate::{pattern, PAGE_SIZE};

/// A private anonymous mapping of whole pages, unmapped when dropped.
///
/// # Invariants
///
/// `[address, address + pages * PAGE_SIZE)` is mapped, readable and writable whenever a method
/// is not under way, and nothing else in this process refers to it.
pub struct Region {
    address: NonNull<c_void>,
    pages: NonZeroUsize,
}

// SAFETY: A region is plain memory that it alone owns; no thread is special to it.
unsafe impl Send for Region {}
// SAFETY: As above; a holder of a `&` gives advice at most, which the kernel takes from any thread.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `pages` pages that read as zero.
    pub fn new(pages: usize) -> Result<Self> {
        let pages = NonZeroUsize::new(pages).context("a region of no pages")?;
        let length = pages
            .checked_mul(PAGE_SIZE_NONZERO)
            .context("a region larger than the address space")?;
        // SAFETY: A new mapping at an address that the kernel chooses touches nothing of ours.
        let address = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
            )
        }
        .context("mmap")?;
        // INVARIANT: The mapping is new, readable and writable.
        let region = Self { address, pages };
        region.forbid_huge_pages()?;
        Ok(region)
    }

    /// A new region that holds `content`, whose length must be a multiple of the page size.
    pub fn with_content(content: &[u8]) -> Result<Self> {
        if content.len() % PAGE_SIZE != 0 {
            bail!("content of {} bytes is no whole page", content.len());
        }
        let mut region = Self::new(content.len() / PAGE_SIZE)?;
        region.bytes_mut().copy_from_slice(content);
        Ok(region)
    }

    /// A new advised region that holds `content`.
    pub fn mergeable(content: &[u8]) -> Result<Self> {
        let region = Self::with_content(content)?;
        region.advise_mergeable()?;
        Ok(region)
    }

    /// A new region of whole huge pages, if the kernel has some to spare.
    pub fn huge(content: &[u8]) -> Result<Self> {
        let pages = content.len() / PAGE_SIZE;
        if pages % HUGE_PAGES != 0 {
            bail!("content of {pages} pages is no whole huge page");
        }
        let mut region = Self::for_huge_pages(pages)?;
        region.bytes_mut().copy_from_slice(content);
        Ok(region)
    }

    /// A new region that gets huge pages when it is written to, if the kernel has some to spare.
    pub fn for_huge_pages(pages: usize) -> Result<Self> {
        let region = Self::aligned(pages)?;
        // A kernel without huge pages does not know the advice.
        let _ = region.advise_raw(libc::MADV_HUGEPAGE);
        Ok(region)
    }

    /// A new region that begins at a multiple of the size of a huge page.
    fn aligned(pages: usize) -> Result<Self> {
        let mut region = Self::new(pages + HUGE_PAGES)?;
        let excess = region.address() / PAGE_SIZE % HUGE_PAGES;
        if excess > 0 {
            let rest = region.split_off(HUGE_PAGES - excess)?;
            region = rest;
        }
        if region.pages() > pages {
            drop(region.split_off(pages)?);
        }
        Ok(region)
    }

    /// Any other advice that leaves contents as they are, by its number.
    pub fn advise_raw(&self, advice: i32) -> Result<()> {
        // SAFETY: The mapping is ours by the type invariant, and its contents stay.
        nix::errno::Errno::result(unsafe {
            libc::madvise(self.address.as_ptr(), self.len(), advice)
        })
        .map(drop)
        .with_context(|| format!("madvise({advice})"))
    }

    /// Keeps huge pages out, so that a page is a page in every lane.
    fn forbid_huge_pages(&self) -> Result<()> {
        match self.advise(MmapAdvise::MADV_NOHUGEPAGE) {
            // A kernel without huge pages does not know the advice.
            Err(nix::Error::EINVAL) => Ok(()),
            other => other.context("madvise(MADV_NOHUGEPAGE)"),
        }
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: The mapping is ours by the type invariant. Callers pass no advice that changes
        // contents unless they have the region by `&mut`.
        unsafe { madvise(self.address, self.len(), advice) }
    }

    /// `madvise(MADV_MERGEABLE)`.
    pub fn advise_mergeable(&self) -> Result<()> {
        self.try_advise_mergeable()
            .context("madvise(MADV_MERGEABLE)")
    }

    /// As [`Region::advise_mergeable`], for those who have no memory for an error's text.
    pub fn try_advise_mergeable(&self) -> nix::Result<()> {
        self.advise(MmapAdvise::MADV_MERGEABLE)
    }

    /// `madvise(MADV_UNMERGEABLE)`.
    pub fn advise_unmergeable(&self) -> Result<()> {
        self.advise(MmapAdvise::MADV_UNMERGEABLE)
            .context("madvise(MADV_UNMERGEABLE)")
    }

    /// As [`Region::advise_unmergeable`], for those who have no memory for an error's text.
    pub fn try_advise_unmergeable(&self) -> nix::Result<()> {
        self.advise(MmapAdvise::MADV_UNMERGEABLE)
    }

    /// `madvise(MADV_DONTNEED)`: the region reads as zero afterwards.
    pub fn discard(&mut self) -> Result<()> {
        self.advise(MmapAdvise::MADV_DONTNEED)
            .context("madvise(MADV_DONTNEED)")
    }

    /// `madvise(MADV_FREE)`: each page may read as zero afterwards, or as before.
    pub fn discard_lazily(&mut self) -> Result<()> {
        self.advise(MmapAdvise::MADV_FREE)
            .context("madvise(MADV_FREE)")
    }

    /// `madvise(MADV_POPULATE_WRITE)`: has all pages in memory, as if each had been written to.
    pub fn populate(&self) -> Result<()> {
        self.advise_raw(libc::MADV_POPULATE_WRITE)
    }

    /// Whether page `index` is in memory, by `mincore`.
    pub fn is_resident(&self, index: usize) -> Result<bool> {
        let page = &self.bytes()[index * PAGE_SIZE..][..PAGE_SIZE];
        let mut resident = 0;
        // SAFETY: The page is mapped by the type invariant. The call does not touch it, and writes one byte.
        nix::errno::Errno::result(unsafe {
            libc::mincore(page.as_ptr().cast_mut().cast(), PAGE_SIZE, &mut resident)
        })
        .context("mincore")?;
        Ok(resident & 1 == 1)
    }

    /// Writes a whole page as the kernel does, so that nothing in the page table tells of it.
    pub fn write_unseen(&mut self, index: usize, content: &[u8]) -> Result<()> {
        let memory = File::options().write(true).open("/proc/self/mem")?;
        let address = self.page_mut(index).as_ptr().addr() as u64;
        memory
            .write_all_at(content, address)
            .context("/proc/self/mem")
    }

    /// Number of pages.
    pub fn pages(&self) -> usize {
        self.pages.get()
    }

    /// Number of bytes.
    #[expect(clippy::len_without_is_empty, reason = "a region is never empty")]
    pub fn len(&self) -> usize {
        self.pages() * PAGE_SIZE
    }

    /// The address of the first byte.
    pub fn address(&self) -> usize {
        self.address.as_ptr() as usize
    }

    /// The address of page `index`.
    pub fn page_address(&self, index: usize) -> usize {
        assert!(index < self.pages());
        self.address() + index * PAGE_SIZE
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: By the type invariant this is readable memory, borrowed through `self`. What
        // KSM does to the page tables does not change what is read.
        unsafe { slice::from_raw_parts(self.address.as_ptr().cast(), self.len()) }
    }

    /// All of it, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: As in `bytes`, writable, and borrowed through `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.address.as_ptr().cast(), self.len()) }
    }

    /// One page.
    pub fn page(&self, index: usize) -> &[u8] {
        &self.bytes()[index * PAGE_SIZE..][..PAGE_SIZE]
    }

    /// One page, to change.
    pub fn page_mut(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes_mut()[index * PAGE_SIZE..][..PAGE_SIZE]
    }

    /// Fails, and says where, unless the region holds exactly `expected`.
    pub fn verify(&self, expected: &[u8]) -> Result<()> {
        match pattern::first_difference(self.bytes(), expected) {
            None => Ok(()),
            Some(at) => bail!(
                "DATA LOST: page {} differs from byte {} on: {:02x?} instead of {:02x?}",
                at / PAGE_SIZE,
                at % PAGE_SIZE,
                excerpt(self.bytes(), at),
                excerpt(expected, at),
            ),
        }
    }

    /// Takes the pages from `at` on out of this region, as a region of their own.
    pub fn split_off(&mut self, at: usize) -> Result<Self> {
        let rest = self.pages().checked_sub(at).and_then(NonZeroUsize::new);
        let (Some(kept), Some(rest)) = (NonZeroUsize::new(at), rest) else {
            bail!("cannot split a region of {} pages at {at}", self.pages());
        };
        // SAFETY: `at` is below the number of pages, so this stays within the mapping.
        let address = unsafe { self.address.byte_add(at * PAGE_SIZE) };
        self.pages = kept;
        // INVARIANT: `self` no longer covers these pages.
        Ok(Self {
            address,
            pages: rest,
        })
    }

    /// `mremap` to `pages` pages, in place or elsewhere as the kernel likes.
    pub fn resize(&mut self, pages: usize) -> Result<()> {
        let new_pages = NonZeroUsize::new(pages).context("cannot shrink to no pages")?;
        // SAFETY: The old mapping is ours by the type invariant, and `&mut self` says that
        // nothing borrows from it.
        self.address = unsafe {
            mremap(
                self.address,
                self.len(),
                pages * PAGE_SIZE,
                MRemapFlags::MREMAP_MAYMOVE,
                None,
            )
        }
        .context("mremap")?;
        // INVARIANT: The kernel moved and resized the mapping.
        self.pages = new_pages;
        Ok(())
    }

    /// `mremap` to an address where the region was not before.
    pub fn relocate(&mut self) -> Result<()> {
        // A fresh mapping of the same size marks a place that is free.
        self.move_to(Self::new(self.pages())?)
    }

    /// As [`Region::relocate`], to where the number of the first page is `remainder`, modulo the
    /// pages of a huge page.
    pub fn relocate_to_remainder(&mut self, remainder: usize) -> Result<()> {
        let mut place = Self::aligned(remainder + self.pages())?;
        if remainder > 0 {
            let rest = place.split_off(remainder)?;
            place = rest;
        }
        self.move_to(place)
    }

    /// `mremap` to where `place` is, of the same size, which it replaces.
    fn move_to(&mut self, place: Self) -> Result<()> {
        assert_eq!(place.pages, self.pages);
        let target = place.address;
        // The old mapping there ends with the call, so `place` must not unmap it later.
        std::mem::forget(place);
        // SAFETY: Both ranges are ours, do not overlap, and nothing borrows from either.
        self.address = unsafe {
            mremap(
                self.address,
                self.len(),
                self.len(),
                MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED,
                Some(target),
            )
        }
        .context("mremap(MREMAP_FIXED)")?;
        Ok(())
    }

    /// Runs `action` while the region is protected with `protection`, then allows all again.
    ///
    /// The region is borrowed meanwhile, so `action` cannot touch it by accident.
    pub fn protected<T>(
        &mut self,
        protection: ProtFlags,
        action: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        self.protect(protection)?;
        let result = action();
        self.protect(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        result
    }

    fn protect(&mut self, protection: ProtFlags) -> Result<()> {
        // SAFETY: The mapping is ours, and `&mut self` says that nothing borrows from it.
        unsafe { mprotect(self.address, self.len(), protection) }.context("mprotect")
    }
}

/// A few bytes of `memory` from `at` on.
fn excerpt(memory: &[u8], at: usize) -> &[u8] {
    let end = memory.len().min(at + 16);
    &memory[at.min(end)..end]
}

/// Pages in a huge page.
pub const HUGE_PAGES: usize = 512;

const PAGE_SIZE_NONZERO: NonZeroUsize = NonZeroUsize::new(PAGE_SIZE).unwrap();

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours by the type invariant and is not used again. Unmapping
        // what is mapped can fail only for want of memory to split a mapping.
        unsafe { munmap(self.address, self.len()) }.expect("munmap of a region");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_regions_are_zero() {
        let region = Region::new(3).unwrap();
        assert_eq!(region.len(), 3 * PAGE_SIZE);
        region.verify(&[0; 3 * PAGE_SIZE]).unwrap();
    }

    #[test]
    fn verify_names_the_place() {
        let content = pattern::pages(1, 2);
        let mut region = Region::with_content(&content).unwrap();
        region.verify(&content).unwrap();
        region.page_mut(1)[5] ^= 1;
        let message = region.verify(&content).unwrap_err().to_string();
        assert!(message.contains("page 1"), "{message}");
        assert!(message.contains("byte 5"), "{message}");
    }

    #[test]
    fn split_regions_are_independent() {
        let content = pattern::pages(1, 4);
        let mut head = Region::with_content(&content).unwrap();
        let tail = head.split_off(1).unwrap();
        assert_eq!((head.pages(), tail.pages()), (1, 3));
        drop(head);
        tail.verify(&content[PAGE_SIZE..]).unwrap();
    }

    #[test]
    fn split_leaves_no_empty_region() {
        let mut region = Region::new(2).unwrap();
        assert!(region.split_off(0).is_err());
        assert!(region.split_off(2).is_err());
        assert!(region.split_off(3).is_err());
    }

    #[test]
    fn contents_move_along() {
        let content = pattern::pages(1, 4);
        let mut region = Region::with_content(&content).unwrap();
        let before = region.address();
        region.relocate().unwrap();
        assert_ne!(region.address(), before);
        region.verify(&content).unwrap();
        region.relocate_to_remainder(5).unwrap();
        assert_eq!(region.address() / PAGE_SIZE % HUGE_PAGES, 5);
        region.verify(&content).unwrap();
        region.resize(2).unwrap();
        region.verify(&content[..2 * PAGE_SIZE]).unwrap();
    }

    #[test]
    fn protection_ends_with_the_action() {
        let mut region = Region::new(1).unwrap();
        region.protected(ProtFlags::PROT_NONE, || Ok(())).unwrap();
        region.page_mut(0)[0] = 1;
    }
}
