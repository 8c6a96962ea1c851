// SPDX-License-Identifier: GPL-2.0

//! The record that the merged pages of one vma have in common.
//!
//! Of each merged page a reverse-mapping walk must know the address space, the address, the
//! anon_vma and the index in it. All but one number are the same for a whole vma, so they are kept
//! once, and each page has that number.

#![deny(unsafe_code)]

use crate::{
    kernel_api::gfp,
    mm::{
        anon_vma::AnonVma,
        ksm_page::ids::SpaceId,
        vma::MergeableVma, //
    }, //
};
use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::Arc, //
};

/// See the [module's description](self).
pub(crate) struct MergedVma {
    anon_vma: AnonVma,
    mm: usize,
    owner: SpaceId,
    /// The page number of the first address.
    first_page: usize,
    /// The index of that page in the anon_vma.
    first_index: usize,
}

impl MergedVma {
    /// As much of `vma` as there are numbers for; `address` is part of it.
    fn new(vma: &MergeableVma<'_>, address: usize, owner: SpaceId) -> Self {
        let farthest = address.saturating_sub(u32::MAX as usize * PAGE_SIZE);
        let start = vma.range().start.max(farthest);
        Self {
            anon_vma: vma.anon_vma(),
            mm: vma.mm_raw() as usize,
            owner,
            first_page: start >> PAGE_SHIFT,
            first_index: vma.linear_index(start),
        }
    }

    pub(crate) fn anon_vma(&self) -> &AnonVma {
        &self.anon_vma
    }

    /// The address space, to be compared only.
    pub(crate) fn mm(&self) -> usize {
        self.mm
    }

    /// The name by which `ksmd`, and nobody else, knows the address space: for as long as there is an item of a
    /// merged page of the vma.
    pub(crate) fn owner(&self) -> SpaceId {
        self.owner
    }

    /// The index under which a page of the vma stands in the anon_vma's tree of vmas.
    pub(crate) fn index(&self, page: u32) -> usize {
        self.first_index + page as usize
    }

    /// The number of the page at `address` of `vma`, if this record is that of `vma`.
    fn page_at(&self, vma: &MergeableVma<'_>, address: usize, owner: SpaceId) -> Option<u32> {
        let same = self.owner == owner
            && self.mm == vma.mm_raw() as usize
            && vma.has_anon_vma(&self.anon_vma);
        let distance = (address >> PAGE_SHIFT).checked_sub(self.first_page)?;
        let page = u32::try_from(distance).ok()?;
        (same && self.index(page) == vma.linear_index(address)).then_some(page)
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl MergedVma {
    /// Stands for a vma of `owner`.
    pub(crate) fn fake(owner: SpaceId) -> Result<Arc<Self>> {
        let vma = Self {
            anon_vma: crate::mm::anon_vma::unlinked(),
            mm: 0,
            owner,
            first_page: 0,
            first_index: 0,
        };
        Ok(Arc::new(vma, GFP_KERNEL)?)
    }
}

/// The vmas that were used last, one for each of a few sets of vmas.
pub(crate) struct RecentVmas([Option<Arc<MergedVma>>; RecentVmas::COUNT]);

impl RecentVmas {
    const COUNT: usize = 16;

    pub(crate) fn new() -> Self {
        Self([const { None }; Self::COUNT])
    }

    /// The record for the page at `address` of `vma`, and the page's number there; `owner` is the
    /// address space of `vma`.
    pub(crate) fn find(
        &mut self,
        vma: &MergeableVma<'_>,
        address: usize,
        owner: SpaceId,
    ) -> Result<(Arc<MergedVma>, u32)> {
        let place = &mut self.0[vma.anon_vma_number() % Self::COUNT];
        if let Some(known) = place {
            if let Some(page) = known.page_at(vma, address, owner) {
                return Ok((known.clone(), page));
            }
        }
        let known = Arc::new(MergedVma::new(vma, address, owner), gfp::for_merge())?;
        let page = known.page_at(vma, address, owner).ok_or(ERANGE)?;
        Ok((place.insert(known).clone(), page))
    }

    /// Forgets them, and with them what they keep alive.
    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }
}
