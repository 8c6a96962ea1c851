// SPDX-License-Identifier: GPL-2.0

//! Being told that memory goes offline.
//!
//! C header: [`include/linux/memory.h`](srctree/include/linux/memory.h)

use core::ops::Range;
use kernel::{
    bindings,
    container_of,
    error::to_result,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Page frame numbers of memory that is gone.
///
/// # Invariants
///
/// Made by the notifier only, while the memory is going.
pub(crate) struct OfflineRange(Range<usize>);

impl OfflineRange {
    pub(crate) fn contains(&self, pfn: usize) -> bool {
        self.0.contains(&pfn)
    }
}

/// A change of memory.
pub(crate) enum MemoryEvent {
    /// Some is about to go; one of the others follows.
    GoingOffline,
    /// It has gone.
    Offline(OfflineRange),
    /// It has stayed.
    CancelOffline,
}

/// A subsystem that is told of memory that comes and goes.
pub(crate) trait MemoryListener: Send + Sync + 'static {
    /// May sleep.
    fn notify(&self, event: MemoryEvent);
}

/// As long as this lives, `listener` is told; that nothing goes offline any more, when it is dropped.
///
/// # Invariants
///
/// `block` is registered until this is dropped.
#[pin_data(PinnedDrop)]
pub(crate) struct MemoryNotifier<T: MemoryListener> {
    #[pin]
    block: Opaque<bindings::notifier_block>,
    listener: Arc<T>,
}

// SAFETY: Notifiers are called from any thread, and the listener allows it.
unsafe impl<T: MemoryListener> Send for MemoryNotifier<T> {}
// SAFETY: There are no methods that take `&self`.
unsafe impl<T: MemoryListener> Sync for MemoryNotifier<T> {}

impl<T: MemoryListener> MemoryNotifier<T> {
    pub(crate) fn new(listener: Arc<T>) -> Result<Pin<KBox<Self>>> {
        KBox::try_pin_init(
            try_pin_init!(Self {
                listener,
                // INVARIANT: The block is registered here; it is pinned.
                block <- Opaque::try_ffi_init(|slot: *mut bindings::notifier_block| {
                    // SAFETY: The slot is valid for writes and pinned.
                    to_result(unsafe {
                        slot.write(bindings::notifier_block {
                            notifier_call: Some(notify::<T>),
                            priority: bindings::KSM_CALLBACK_PRI as c_int,
                            ..pin_init::zeroed()
                        });
                        bindings::register_memory_notifier(slot)
                    })
                }),
            }),
            GFP_KERNEL,
        )
    }
}

#[pinned_drop]
impl<T: MemoryListener> PinnedDrop for MemoryNotifier<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the block is registered.
        unsafe { bindings::unregister_memory_notifier(self.block.get()) };
        // Memory may be going offline right now: its end will not be heard of.
        self.listener.notify(MemoryEvent::CancelOffline);
    }
}

/// # Safety
///
/// To be called by the memory notifier chain for the block of a [`MemoryNotifier<T>`].
unsafe extern "C" fn notify<T: MemoryListener>(
    block: *mut bindings::notifier_block,
    action: c_ulong,
    data: *mut c_void,
) -> c_int {
    // SAFETY: The block is part of a notifier, which is registered.
    let this = unsafe { &*container_of!(Opaque::cast_from(block), MemoryNotifier<T>, block) };
    let event = match action as u32 {
        bindings::memory_block_state_MEM_GOING_OFFLINE => Some(MemoryEvent::GoingOffline),
        bindings::memory_block_state_MEM_CANCEL_OFFLINE => Some(MemoryEvent::CancelOffline),
        bindings::memory_block_state_MEM_OFFLINE => {
            // SAFETY: The chain's data is about memory blocks.
            let memory = unsafe { &*data.cast::<bindings::memory_notify>() };
            let range = memory.start_pfn..memory.start_pfn + memory.nr_pages;
            Some(MemoryEvent::Offline(OfflineRange(range)))
        }
        _ => None,
    };
    if let Some(event) = event {
        this.listener.notify(event);
    }
    bindings::NOTIFY_OK as c_int
}
