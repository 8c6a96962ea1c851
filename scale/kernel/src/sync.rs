// SPDX-License-Identifier: GPL-2.0

//! State that threads share.

pub use std::sync::Arc;

/// Single words.
pub mod atomic {
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A word that threads may read and write at the same time.
    pub struct Atomic<T>(AtomicU32, core::marker::PhantomData<T>);

    /// The weakest order.
    pub struct Relaxed;

    impl Atomic<u32> {
        /// One with this value.
        pub fn new(value: u32) -> Self {
            Self(AtomicU32::new(value), core::marker::PhantomData)
        }

        /// The value.
        pub fn load(&self, _: Relaxed) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        /// Changes the value.
        pub fn store(&self, value: u32, _: Relaxed) {
            self.0.store(value, Ordering::Relaxed);
        }
    }
}
