// SPDX-License-Identifier: GPL-2.0

//! A guest: its machine, its memory, and what that must hold.

use std::{
    ops::Range,
    slice,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use anyhow::{anyhow, ensure, Context, Result};
use kvm_bindings::kvm_regs;
use kvm_ioctls::VmFd;

use super::{
    code::Entry,
    machine::{set_slot, Cpu, Machine, Slot},
    model::{
        checksum_of_bank, checksum_of_head, Model, Writes, CONSTANT_PAGES, FACTORS_ADDRESS, WORDS,
    },
};
use crate::{region::Region, PAGE_SIZE};

/// What a guest's bank can be made of.
#[expect(clippy::len_without_is_empty, reason = "a bank is never empty")]
pub trait Bank: Sync {
    /// The address of its first byte, a whole number of pages, mapped as long as this exists.
    fn address(&self) -> usize;

    /// All of it.
    fn bytes(&self) -> &[u8];

    /// Number of bytes.
    fn len(&self) -> usize;

    /// Makes it a guest's memory.
    ///
    /// # Safety
    ///
    /// As for `set_slot`.
    unsafe fn give_to(&self, vm: &VmFd, slot: Slot) -> Result<()> {
        // SAFETY: By this function's own requirements.
        unsafe { set_slot(vm, slot, self.address(), self.len()) }
    }
}

impl Bank for Region {
    fn address(&self) -> usize {
        Region::address(self)
    }

    fn bytes(&self) -> &[u8] {
        Region::bytes(self)
    }

    fn len(&self) -> usize {
        Region::len(self)
    }
}

const HEAD: Slot = Slot {
    number: 0,
    guest_address: 0,
    log: false,
};

/// The bank, where a guest sees it at first.
const BANK: Slot = Slot {
    number: 1,
    guest_address: 256 << 20,
    log: false,
};

/// What a guest can be told to do.
#[derive(Clone, Debug)]
pub enum Job {
    /// Verify some pages of the bank.
    Verify(Range<usize>),
    /// Verify the pages of the head that never change, again and again until what is done
    /// meanwhile has been done.
    VerifyHead,
    /// Write to the bank.
    Write(Writes),
}

/// A guest that does only what it is told to.
///
/// # Invariants
///
/// Its CPU runs only within methods that have it by `&mut`.
pub struct Guest<B = Region> {
    // The machine ends before its memory does.
    machine: Machine,
    slot: Slot,
    head: Region,
    bank: B,
    model: Model,
}

impl<B: Bank> Guest<B> {
    /// A guest whose bank holds `content`, or will when its pages are looked at. Its head is
    /// advised to be mergeable; its bank is what the caller has made of it.
    pub fn new(bank: B, content: &[u8]) -> Result<Self> {
        Self::with_bank_of(content, |_| Ok(bank))
    }

    /// As [`Guest::new`], with a bank that can be made only for its machine.
    pub fn with_bank_of(content: &[u8], bank: impl FnOnce(&VmFd) -> Result<B>) -> Result<Self> {
        let model = Model::new(content);
        let head = Region::mergeable(model.head())?;
        let mut machine = Machine::new()?;
        let (vm, _) = machine.parts();
        let bank = bank(vm)?;
        ensure!(bank.len() == content.len(), "the bank has another size");
        // SAFETY: The regions are ours, and by the invariants nobody borrows from them when the
        // guest runs.
        unsafe {
            set_slot(vm, HEAD, head.address(), head.len())?;
            bank.give_to(vm, BANK)?;
        }
        Ok(Self {
            machine,
            slot: BANK,
            head,
            bank,
            model,
        })
    }

    /// Pages of the bank.
    pub fn pages(&self) -> usize {
        self.model.pages()
    }

    /// The bank.
    pub fn bank(&self) -> &B {
        &self.bank
    }

    /// What the memory must hold.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What the memory holds: the head, and the bank.
    pub fn memory(&self) -> [&[u8]; 2] {
        [self.head.bytes(), self.bank.bytes()]
    }

    /// Lets the guest do something.
    pub fn run(&mut self, job: Job) -> Result<()> {
        self.run_beside(job, |_| Ok(()))
    }

    /// Lets the guest do something in a thread of its own, and does something else meanwhile.
    pub fn run_beside<T>(
        &mut self,
        job: Job,
        meanwhile: impl FnOnce(&mut Beside) -> Result<T>,
    ) -> Result<T> {
        let (vm, cpu) = self.machine.parts();
        let is_busy = AtomicBool::new(true);
        let is_over = AtomicBool::new(false);
        let bank_address = self.slot.guest_address;
        let mut beside = Beside {
            vm,
            slot: &mut self.slot,
            bank: &self.bank,
            is_busy: &is_busy,
        };
        let result = thread::scope(|scope| {
            let guest = scope.spawn(|| {
                let result = job.run(cpu, bank_address, &is_over);
                is_busy.store(false, Ordering::Release);
                result
            });
            let result = meanwhile(&mut beside);
            is_over.store(true, Ordering::Release);
            let guest = guest.join().map_err(|_| anyhow!("a thread panicked"))?;
            // What went wrong outside may be why the guest did not get on.
            let result = result?;
            guest.map(|()| result)
        })?;
        if let Job::Write(writes) = &job {
            self.model.write(writes);
        }
        Ok(result)
    }

    /// Lets the guest write.
    pub fn write(&mut self, writes: Writes) -> Result<()> {
        self.run(Job::Write(writes))
    }

    /// Lets the guest verify all of its pages, but for those that hold the checksums.
    pub fn verify(&mut self) -> Result<()> {
        self.run(Job::VerifyHead)?;
        let result = self.run(Job::Verify(0..self.pages()));
        result.with_context(|| format!("the host finds {} bytes wrong", self.wrong_bytes()))
    }

    /// How many bytes are not what they must be, as seen from the host.
    pub fn wrong_bytes(&self) -> usize {
        differences(self.head.bytes(), self.model.head())
            + differences(self.bank.bytes(), self.model.bank())
    }

    /// Lets the guest verify its memory, and does so from the host, checksums included.
    pub fn verify_from_both_sides(&mut self) -> Result<()> {
        self.verify()?;
        let wrong = self.wrong_bytes();
        ensure!(wrong == 0, "DATA LOST: {wrong} bytes, unseen by the guest");
        Ok(())
    }

    /// Begins or ends to note to which pages of the bank the guest writes.
    pub fn log_writes(&mut self, on: bool) -> Result<()> {
        let (vm, _) = self.machine.parts();
        self.slot.log = on;
        // SAFETY: As in `new`.
        unsafe { self.bank.give_to(vm, self.slot) }
    }
}

/// What there is to be done while a guest runs.
pub struct Beside<'a> {
    vm: &'a VmFd,
    slot: &'a mut Slot,
    bank: &'a dyn Bank,
    is_busy: &'a AtomicBool,
}

impl Beside<'_> {
    /// True if the guest is still at it.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// The words of a page of the bank, to which the guest may be writing.
    pub fn page(&self, index: usize) -> [u64; WORDS] {
        assert!(index < self.bank.len() / PAGE_SIZE);
        let address = (self.bank.address() + index * PAGE_SIZE) as *const AtomicU64;
        // SAFETY: By the assertion, the page is one of the bank, which is there as long as it is
        // borrowed. The guest alone writes to it, whole words as we read them.
        let words = unsafe { slice::from_raw_parts(address, WORDS) };
        std::array::from_fn(|index| words[index].load(Ordering::Relaxed))
    }

    /// Pages written to since this was asked last, or since the writes are logged.
    pub fn written_pages(&self) -> Result<Vec<usize>> {
        let log = self.vm.get_dirty_log(self.slot.number, self.bank.len());
        let log = log.context("KVM_GET_DIRTY_LOG")?;
        let is_written = |page: &usize| log[page / 64] >> (page % 64) & 1 == 1;
        Ok((0..self.bank.len() / PAGE_SIZE)
            .filter(is_written)
            .collect())
    }

    /// The bank's address in this process.
    pub fn bank_address(&self) -> usize {
        self.bank.address()
    }

    /// Takes the bank from the guest, which must not be using it.
    pub fn take_bank(&mut self) -> Result<()> {
        // SAFETY: The guest gets nothing.
        unsafe { set_slot(self.vm, *self.slot, self.bank.address(), 0) }
    }

    /// Gives the bank to the guest, or moves it, so that the guest sees it in another place.
    pub fn place_bank(&mut self, guest_address: u64) -> Result<()> {
        self.slot.guest_address = guest_address;
        // SAFETY: The bank is the guest's by the invariants of `Guest`.
        unsafe { self.bank.give_to(self.vm, *self.slot) }
    }
}

impl Job {
    fn run(&self, cpu: &mut Cpu, bank_address: u64, is_over: &AtomicBool) -> Result<()> {
        match self {
            Self::Verify(pages) => verify(
                cpu,
                bank_address + (pages.start * PAGE_SIZE) as u64,
                pages.len(),
                checksum_of_bank(pages.start),
            ),
            Self::VerifyHead => loop {
                verify(cpu, 0, CONSTANT_PAGES, checksum_of_head(0))?;
                if is_over.load(Ordering::Acquire) {
                    return Ok(());
                }
            },
            Self::Write(writes) => write(cpu, bank_address, writes),
        }
    }
}

fn verify(cpu: &mut Cpu, first: u64, pages: usize, checksum: u64) -> Result<()> {
    let (wrong, at) = cpu.call(
        Entry::Verify,
        kvm_regs {
            rdi: first,
            rsi: pages as u64,
            rdx: checksum,
            ..Default::default()
        },
    )?;
    ensure!(
        wrong == 0,
        "DATA LOST: the guest finds {wrong} of {pages} pages wrong, first that at {at:#x}"
    );
    Ok(())
}

fn write(cpu: &mut Cpu, bank_address: u64, writes: &Writes) -> Result<()> {
    let first = writes.pages.start;
    let arguments = kvm_regs {
        rdi: bank_address + (first * PAGE_SIZE) as u64,
        rsi: writes.pages.len() as u64,
        rdx: checksum_of_bank(first),
        rcx: writes.count,
        r8: writes.seed,
        r9: FACTORS_ADDRESS,
        ..Default::default()
    };
    cpu.call(Entry::Write, arguments).map(drop)
}

fn differences(left: &[u8], right: &[u8]) -> usize {
    left.iter().zip(right).filter(|(l, r)| l != r).count()
}
