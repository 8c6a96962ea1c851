// SPDX-License-Identifier: GPL-2.0

//! A directory of sysfs files beside those of mm.
//!
//! C header: [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h),
//! [`include/linux/kobject.h`](srctree/include/linux/kobject.h)

use core::{
    fmt::Write,
    ptr, //
};
use kernel::{
    bindings,
    container_of,
    error::{
        from_result,
        to_result, //
    },
    fmt,
    page::PAGE_SIZE,
    prelude::*,
    str::{
        CStr,
        Formatter, //
    },
    sync::Arc, //
};

/// One file: what to do when it is read, and when it is written.
pub(crate) struct File<T: 'static> {
    pub(crate) name: &'static CStr,
    /// Shows the file's value.
    pub(crate) show: fn(&T, &mut Output<'_>) -> fmt::Result,
    /// Takes a new value; without this the file cannot be written.
    pub(crate) store: Option<fn(&T, &[u8]) -> Result>,
}

/// The text that a reader of a file gets: up to a page.
pub(crate) struct Output<'a>(Formatter<'a>);

impl Write for Output<'_> {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        self.0.write_str(s)
    }
}

/// A file that belongs to a directory.
///
/// # Invariants
///
/// `data` is valid as long as the file can be reached.
#[repr(C)]
struct Attribute<T: 'static> {
    attribute: bindings::kobj_attribute,
    file: &'static File<T>,
    data: *const T,
}

/// A directory in `/sys/kernel/mm`; dropping it removes it.
///
/// # Invariants
///
/// `group` is registered, and it and what it points to stay where they are until it is not.
pub(crate) struct Directory<T: Send + Sync + 'static> {
    group: KBox<bindings::attribute_group>,
    _pointers: KVec<*mut bindings::attribute>,
    _attributes: KVec<Attribute<T>>,
    _data: Arc<T>,
}

// SAFETY: sysfs calls from any thread, and the data allows it.
unsafe impl<T: Send + Sync> Send for Directory<T> {}
// SAFETY: There are no methods that take `&self`.
unsafe impl<T: Send + Sync> Sync for Directory<T> {}

impl<T: Send + Sync> Directory<T> {
    /// Makes the directory `name` with these `files`.
    pub(crate) fn new(
        name: &'static CStr,
        files: &'static [File<T>],
        data: Arc<T>,
    ) -> Result<Self> {
        let mut attributes = KVec::with_capacity(files.len(), GFP_KERNEL)?;
        for file in files {
            // INVARIANT: The data is kept by the directory, which is removed before it.
            attributes.push(Attribute::new(file, ptr::from_ref::<T>(&data)), GFP_KERNEL)?;
        }
        let mut pointers = KVec::with_capacity(files.len() + 1, GFP_KERNEL)?;
        for attribute in &mut attributes {
            pointers.push(&raw mut attribute.attribute.attr, GFP_KERNEL)?;
        }
        pointers.push(ptr::null_mut(), GFP_KERNEL)?;
        let mut group = KBox::new(
            bindings::attribute_group {
                name: name.as_char_ptr(),
                ..pin_init::zeroed()
            },
            GFP_KERNEL,
        )?;
        group.__bindgen_anon_2.attrs = pointers.as_mut_ptr();
        // SAFETY: The group is complete, and does not move: it and all that it points to have
        // allocations of their own.
        to_result(unsafe {
            bindings::sysfs_create_group(bindings::ksm_mm_kobj(), &raw const *group)
        })?;
        // INVARIANT: The group was just registered.
        Ok(Self {
            group,
            _pointers: pointers,
            _attributes: attributes,
            _data: data,
        })
    }
}

impl<T: Send + Sync> Drop for Directory<T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the group is registered. No callback runs after this.
        unsafe { bindings::sysfs_remove_group(bindings::ksm_mm_kobj(), &raw const *self.group) };
    }
}

impl<T> Attribute<T> {
    fn new(file: &'static File<T>, data: *const T) -> Self {
        let mut attribute: bindings::kobj_attribute = pin_init::zeroed();
        attribute.__bindgen_anon_1.show = Some(show::<T>);
        if file.store.is_some() {
            attribute.__bindgen_anon_2.store = Some(store::<T>);
        }
        attribute.attr.name = file.name.as_char_ptr();
        attribute.attr.mode = if file.store.is_some() { 0o644 } else { 0o444 };
        #[cfg(CONFIG_DEBUG_LOCK_ALLOC)]
        {
            attribute.attr.key = kernel::static_lock_class!().as_ptr();
        }
        Self {
            attribute,
            file,
            data,
        }
    }

    /// The file and the data behind a `struct kobj_attribute`.
    ///
    /// # Safety
    ///
    /// `attribute` must be that of an [`Attribute<T>`] of a directory that is registered for the
    /// duration of 'a.
    unsafe fn behind<'a>(attribute: *mut bindings::kobj_attribute) -> (&'static File<T>, &'a T) {
        // SAFETY: The caller vouches for the type.
        let this = unsafe { &*container_of!(attribute, Self, attribute) };
        // SAFETY: By the type invariant the data is valid as long as the directory is registered.
        (this.file, unsafe { &*this.data })
    }
}

/// # Safety
///
/// To be called by sysfs for an [`Attribute<T>`].
unsafe extern "C" fn show<T: 'static>(
    _: *mut bindings::kobject,
    attribute: *mut bindings::kobj_attribute,
    buffer: *mut c_char,
) -> isize {
    // SAFETY: sysfs calls for files of a registered directory only.
    let (file, data) = unsafe { Attribute::<T>::behind(attribute) };
    // SAFETY: sysfs gives a page of its own to show in.
    let page = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE) };
    let mut output = Output(Formatter::new(page));
    match (file.show)(data, &mut output) {
        Ok(()) => output.0.bytes_written() as isize,
        Err(_) => EIO.to_errno() as isize,
    }
}

/// # Safety
///
/// To be called by sysfs for an [`Attribute<T>`] whose file can be written.
unsafe extern "C" fn store<T: 'static>(
    _: *mut bindings::kobject,
    attribute: *mut bindings::kobj_attribute,
    buffer: *const c_char,
    count: usize,
) -> isize {
    // SAFETY: sysfs calls for files of a registered directory only.
    let (file, data) = unsafe { Attribute::<T>::behind(attribute) };
    // SAFETY: sysfs gives `count` bytes that were written.
    let written = unsafe { core::slice::from_raw_parts(buffer.cast::<u8>(), count) };
    from_result(|| {
        file.store.ok_or(EIO)?(data, written)?;
        Ok(count as isize)
    })
}
