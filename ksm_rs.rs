// SPDX-License-Identifier: GPL-2.0

//! Kernel Samepage Merging.
//!
//! A thread, `ksmd`, scans memory that was advised to be mergeable, and replaces pages of equal
//! content by one page that is copied on write.
//!
//! # The way of a page
//!
//! [`madvise_hook`] registers address spaces in [`records::registry`]. [`scan`] goes through them and
//! gathers candidates by [`mm::ksm_page::walk`]; [`scan::skip_filter`] leaves out pages that need no
//! attention. [`scan::batch`] has [`records`] keep an [`rmap_item`] for each; [`merging`] searches the
//! [`stable_tree`] and the [`unstable_tree`] for its equal, and lets [`mm::ksm_page::share`] change
//! page tables. [`merging::unmerge`] undoes it. [`mm::ksm_page::rmap_walk`] finds the mappings of a
//! merged page for the rest of mm.
//!
//! # Lock order
//!
//! ```text
//! scan mutex (ksmd::Ksm) -> mmap_lock -> folio lock -> anon_vma lock -> page-table lock
//! ```
//!
//! The spinlock of [`records::registry`] nests inside all of these that sleep, and nothing inside it. A
//! stable node's list of mappings belongs to the lock of its folio, all else of [`records::Records`] to
//! the scan mutex.

use kernel::{
    bindings,
    prelude::*,
    sync::Arc, //
};

mod containers;
mod following;
mod inspection;
mod kernel_api;
mod ksmd;
mod madvise_hook;
mod merging;
mod mm;
mod page;
mod policy;
mod records;
mod rmap_item;
mod scan;
mod stable_tree;
mod sysfs;
mod testing;
mod unstable_tree;

#[cfg(CONFIG_MMU_NOTIFIER)]
use following::in_sync::InSync;
use following::{
    out_of_sync::OutOfSync,
    Following, //
};
use kernel_api::kthread::KThread;
use ksmd::Ksm;
use madvise_hook::Registration;
#[cfg(CONFIG_MEMORY_HOTREMOVE)]
use mm::hotplug::MemoryNotifier;

module! {
    type: KsmModule,
    name: "ksm_rs",
    authors: ["ksm_rs maintainers"],
    description: "Kernel Samepage Merging",
    license: "GPL",
    params: {
        in_sync: u8 {
            default: 0,
            description: "1: have the kernel tell of changes of mappings, by MMU notifiers",
        },
    },
}

/// The parts of the module, in the order in which they are stopped.
struct Parts<F: Following> {
    _inspection: inspection::Directory<F>,
    #[cfg(CONFIG_MEMORY_HOTREMOVE)]
    _memory: Pin<KBox<MemoryNotifier<Ksm<F>>>>,
    _directories: sysfs::Directories<F>,
    _thread: KThread<Ksm<F>>,
    _hooks: Registration<F>,
    _retirement: Retirement<F>,
}

/// Gives back, when dropped, what is known of address spaces.
struct Retirement<F: Following>(Arc<Ksm<F>>);

impl<F: Following> Drop for Retirement<F> {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl<F: Following> Parts<F> {
    fn start(module: &'static ThisModule, following: F) -> Result<Self> {
        // SAFETY: The function has no preconditions.
        let seed = unsafe { bindings::get_random_u64() };
        let ksm = Ksm::new(module, seed, following)?;
        let retirement = Retirement(ksm.clone());
        let hooks = Registration::new(ksm.clone())?;
        let thread = KThread::start(c"ksmd", 5, ksm.clone())?;
        Ok(Self {
            _inspection: inspection::directory(ksm.clone())?,
            #[cfg(CONFIG_MEMORY_HOTREMOVE)]
            _memory: MemoryNotifier::new(ksm.clone())?,
            _directories: sysfs::register(ksm)?,
            _thread: thread,
            _hooks: hooks,
            _retirement: retirement,
        })
    }
}

/// All parts, by the way in which they follow address spaces.
enum KsmModule {
    OutOfSync(#[expect(dead_code)] Parts<OutOfSync>),
    #[cfg(CONFIG_MMU_NOTIFIER)]
    InSync(#[expect(dead_code)] Parts<InSync>),
}

impl kernel::Module for KsmModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        match module_parameters::in_sync.value() {
            0 => Ok(Self::OutOfSync(Parts::start(module, OutOfSync)?)),
            #[cfg(CONFIG_MMU_NOTIFIER)]
            1 => Ok(Self::InSync(Parts::start(module, InSync::new()?)?)),
            _ => Err(EINVAL),
        }
    }
}
