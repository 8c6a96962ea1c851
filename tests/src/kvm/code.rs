// SPDX-License-Identifier: GPL-2.0

//! What guests execute: two functions that end with `hlt`, and what the host must know of them.

use std::{arch::global_asm, slice};

/// A checksum is that of the words before, times this, plus the next word, modulo 2^64. It is
/// odd, so a change of one word always changes the checksum, and by an amount that is known.
pub const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// The series of pseudo-random numbers by which a guest writes.
pub const SERIES_MULTIPLIER: u64 = 0x5851_f42d_4c95_7f2d;
/// As above.
pub const SERIES_INCREMENT: u64 = 0x1405_7b7e_f767_814f;

global_asm!(
    ".pushsection .rodata.ksm_guest, \"a\"",
    ".balign 16",
    ".globl ksm_guest_begin, ksm_guest_verify, ksm_guest_write, ksm_guest_end",
    ".hidden ksm_guest_begin, ksm_guest_verify, ksm_guest_write, ksm_guest_end",
    "ksm_guest_begin:",
    // Compares the checksums of pages with what they must be.
    //
    // rdi: the first page; rsi: how many; rdx: the first page's checksum, others follow.
    // Leaves in rax how many are wrong, and in rbx the first of these, if any.
    "ksm_guest_verify:",
    "    xor eax, eax",
    "    xor ebx, ebx",
    "    movabs r10, {multiplier}",
    "2:  test rsi, rsi",
    "    jz 9f",
    "    xor r8d, r8d",
    "    mov ecx, 512",
    "3:  imul r8, r10",
    "    add r8, [rdi]",
    "    add rdi, 8",
    "    dec ecx",
    "    jnz 3b",
    "    cmp r8, [rdx]",
    "    je 4f",
    "    inc rax",
    "    test rbx, rbx",
    "    jnz 4f",
    "    lea rbx, [rdi - 4096]",
    "4:  add rdx, 8",
    "    dec rsi",
    "    jmp 2b",
    "9:  hlt",
    "    jmp 9b",
    // Writes a word to pages chosen by a series of pseudo-random numbers, each of which gives
    // the page, the word in it and the value; and keeps account of the checksums.
    //
    // rdi: the first page; rsi: of how many; rdx: the first page's checksum; rcx: how often;
    // r8: where the series begins; r9: what a word's change is multiplied by.
    "ksm_guest_write:",
    "    movabs r10, {series_multiplier}",
    "    movabs r11, {series_increment}",
    "2:  test rcx, rcx",
    "    jz 9f",
    "    imul r8, r10",
    "    add r8, r11",
    "    mov rax, r8",
    "    shr rax, 32",
    "    imul rax, rsi",
    "    shr rax, 32",
    "    lea r12, [rdx + rax * 8]",
    "    shl rax, 12",
    "    add rax, rdi",
    "    mov rbx, r8",
    "    shr rbx, 20",
    "    and ebx, 511",
    "    mov r13, r8",
    "    sub r13, [rax + rbx * 8]",
    "    mov [rax + rbx * 8], r8",
    "    imul r13, [r9 + rbx * 8]",
    "    add [r12], r13",
    "    dec rcx",
    "    jmp 2b",
    "9:  hlt",
    "    jmp 9b",
    "ksm_guest_end:",
    ".popsection",
    multiplier = const MULTIPLIER,
    series_multiplier = const SERIES_MULTIPLIER,
    series_increment = const SERIES_INCREMENT,
);

extern "C" {
    static ksm_guest_begin: u8;
    static ksm_guest_verify: u8;
    static ksm_guest_write: u8;
    static ksm_guest_end: u8;
}

/// A function of the guest.
#[derive(Clone, Copy)]
pub enum Entry {
    /// Compares checksums.
    Verify,
    /// Writes.
    Write,
}

impl Entry {
    /// Where it is in [`all`].
    pub fn offset(self) -> usize {
        let entry = match self {
            Self::Verify => &raw const ksm_guest_verify,
            Self::Write => &raw const ksm_guest_write,
        };
        entry as usize - &raw const ksm_guest_begin as usize
    }
}

/// The code of all functions, which runs at any address.
pub fn all() -> &'static [u8] {
    let begin = &raw const ksm_guest_begin;
    let length = &raw const ksm_guest_end as usize - begin as usize;
    // SAFETY: Between these two labels are the constant bytes that are assembled above.
    unsafe { slice::from_raw_parts(begin, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `hlt`, and the jump back to it.
    const END: [u8; 3] = [0xf4, 0xeb, 0xfd];

    #[test]
    fn each_function_ends_with_a_halt() {
        let write = Entry::Write.offset();
        assert_eq!(Entry::Verify.offset(), 0);
        assert_eq!(all()[write - END.len()..write], END);
        assert!(all().ends_with(&END));
    }
}
