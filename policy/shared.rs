// SPDX-License-Identifier: GPL-2.0

//! The state that the scan, the hooks and sysfs share without the scan mutex.

#![deny(unsafe_code)]

use super::{
    stats::Stats,
    tunables::Tunables, //
};
use crate::records::{
    counters::Counters,
    registry::Registry, //
};
use kernel::{
    prelude::*,
    sync::Arc, //
};

/// See the [module's description](self).
#[pin_data]
pub(crate) struct Shared {
    #[pin]
    pub(crate) registry: Registry,
    pub(crate) tunables: Tunables,
    pub(crate) stats: Stats,
    /// Those of the records.
    pub(crate) counters: Arc<Counters>,
}

impl Shared {
    pub(crate) fn new(counters: Arc<Counters>) -> impl PinInit<Self> {
        pin_init!(Self {
            registry <- Registry::new(),
            tunables: Tunables::new(),
            stats: Stats::new(),
            counters,
        })
    }
}
