// SPDX-License-Identifier: GPL-2.0

//! A virtual machine with one CPU: what KVM itself gives.

use anyhow::{bail, Context, Result};
use kvm_bindings::{
    kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_LOG_DIRTY_PAGES,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::{
    code::Entry,
    model::{CODE_ADDRESS, PAGE_TABLES},
};

// Bits of control registers, and of the register that extends them.
const CR0_PROTECTED: u64 = 1 << 0;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PHYSICAL_ADDRESS_EXTENSION: u64 = 1 << 5;
const EFER_LONG_MODE_ENABLED: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;

/// The bit of the flags that is always set.
const FLAGS: u64 = 1 << 1;

/// A piece of memory, as the guest sees it.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Its number.
    pub number: u32,
    /// Where the guest finds it.
    pub guest_address: u64,
    /// Whether KVM notes to which pages is written.
    pub log: bool,
}

/// A virtual machine.
pub struct Machine {
    vm: VmFd,
    cpu: Cpu,
}

/// Its CPU.
pub struct Cpu(VcpuFd);

impl Machine {
    /// A machine without memory, whose CPU is in long mode.
    pub fn new() -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let vm = kvm.create_vm().context("KVM_CREATE_VM")?;
        let cpu = vm.create_vcpu(0).context("KVM_CREATE_VCPU")?;
        let features = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .context("KVM_GET_SUPPORTED_CPUID")?;
        cpu.set_cpuid2(&features).context("KVM_SET_CPUID2")?;
        let reset = cpu.get_sregs().context("KVM_GET_SREGS")?;
        cpu.set_sregs(&long_mode(reset)).context("KVM_SET_SREGS")?;
        Ok(Self { vm, cpu: Cpu(cpu) })
    }

    /// The machine itself, and its CPU, which another thread may run.
    pub fn parts(&mut self) -> (&VmFd, &mut Cpu) {
        (&self.vm, &mut self.cpu)
    }
}

/// Gives a machine memory at `address`, or changes how it sees it; takes it if `length` is 0.
///
/// # Safety
///
/// The guest reads and writes `length` bytes at `address` when it runs, until the slot is given
/// anew. Nobody may rely on these keeping their values meanwhile.
pub unsafe fn set_slot(vm: &VmFd, slot: Slot, address: usize, length: usize) -> Result<()> {
    let region = kvm_userspace_memory_region {
        slot: slot.number,
        flags: if slot.log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
        guest_phys_addr: slot.guest_address,
        memory_size: length as u64,
        userspace_addr: address as u64,
    };
    // SAFETY: By this function's own requirements.
    unsafe { vm.set_user_memory_region(region) }
        .with_context(|| format!("KVM_SET_USER_MEMORY_REGION {slot:?}"))
}

impl Cpu {
    /// Calls a function of the guest with the registers that `code` says it takes; gives
    /// what it leaves in `rax` and `rbx`.
    pub fn call(&mut self, entry: Entry, arguments: kvm_regs) -> Result<(u64, u64)> {
        let registers = kvm_regs {
            rip: CODE_ADDRESS + entry.offset() as u64,
            rflags: FLAGS,
            ..arguments
        };
        self.0.set_regs(&registers).context("KVM_SET_REGS")?;
        self.run_to_halt()?;
        let registers = self.0.get_regs().context("KVM_GET_REGS")?;
        Ok((registers.rax, registers.rbx))
    }

    fn run_to_halt(&mut self) -> Result<()> {
        let exit = loop {
            match self.0.run() {
                Err(error) if error.errno() == libc::EINTR => {}
                other => break other.context("KVM_RUN")?,
            }
        };
        if matches!(exit, VcpuExit::Hlt) {
            return Ok(());
        }
        let exit = format!("{exit:?}");
        let at = self.0.get_regs().context("KVM_GET_REGS")?.rip;
        bail!("the guest left its code at {at:#x}: {exit}")
    }
}

/// What a CPU needs to begin in long mode.
fn long_mode(reset: kvm_sregs) -> kvm_sregs {
    let data = segment(2, false);
    kvm_sregs {
        cs: segment(1, true),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        cr0: CR0_PROTECTED | CR0_PAGING,
        cr3: PAGE_TABLES,
        cr4: CR4_PHYSICAL_ADDRESS_EXTENSION,
        efer: EFER_LONG_MODE_ENABLED | EFER_LONG_MODE_ACTIVE,
        ..reset
    }
}

/// A segment that is all of memory.
fn segment(index: u16, code: bool) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: index << 3,
        // Code to execute and read, or data to read and write; accessed.
        type_: if code { 0b1011 } else { 0b0011 },
        present: 1,
        db: u8::from(!code),
        s: 1,
        l: u8::from(code),
        g: 1,
        ..Default::default()
    }
}
