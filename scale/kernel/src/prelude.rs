// SPDX-License-Identifier: GPL-2.0

//! Names that every source uses.

pub use crate::{
    alloc::{flags::*, KBox, KVVec, KVec},
    error::{code::*, Error, Result},
    init::Init,
    pr_err, pr_warn,
};
