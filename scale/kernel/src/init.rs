// SPDX-License-Identifier: GPL-2.0

//! Values that are made where they will stand.

/// Makes a `T` in memory that is given.
///
/// # Safety
///
/// [`Init::init`] must initialise all of the memory.
pub unsafe trait Init<T> {
    /// Writes a value to `slot`.
    ///
    /// # Safety
    ///
    /// `slot` must be valid for writes and aligned.
    unsafe fn init(self, slot: *mut T);
}

struct ArrayFrom<F>(F);

// SAFETY: Each element of the array is written.
unsafe impl<T, F: FnMut(usize) -> T, const N: usize> Init<[T; N]> for ArrayFrom<F> {
    unsafe fn init(mut self, slot: *mut [T; N]) {
        for index in 0..N {
            // SAFETY: The array is valid for writes, and has an element of that index.
            unsafe { slot.cast::<T>().add(index).write((self.0)(index)) };
        }
    }
}

/// An array whose elements `make` makes.
pub fn init_array_from_fn<const N: usize, T>(make: impl FnMut(usize) -> T) -> impl Init<[T; N]> {
    ArrayFrom(make)
}
