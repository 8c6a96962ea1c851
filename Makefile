# SPDX-License-Identifier: GPL-2.0
#
# With KDIR, a patched and built kernel tree: builds the module for it, with
# kbuild's usual targets.  Without: demonstration, tests, benchmark and set-up,
# which bring their own kernel.  `make help` lists both.

.DEFAULT_GOAL := $(if $(KDIR),modules,help)

MODULE_TARGETS := modules modules_install clean rust-analyzer nsdeps
PROJECT_TARGETS := demo test test-kvm-full test-debian bench bench-kvm bench-neighbour scale soak setup kernels programs shell
PROJECT_TARGETS += check-patches intree deb help

.PHONY: $(MODULE_TARGETS) $(PROJECT_TARGETS)

ifdef KDIR

$(MODULE_TARGETS):
	$(MAKE) -C $(KDIR) M=$(CURDIR) $@

else

$(MODULE_TARGETS):
	$(error `make $@` needs a patched and built kernel tree: make KDIR=/path/to/linux LLVM=1 $@)

endif

# tools/programs prints where the programs are, for scripts.
demo:
	@tools/programs > /dev/null
	@tools/vm run --lane um --ksm rs --mem 768M --timeout 900 -- ksm-demo

# DEBUG=1: kernels that look for every mistake that they can see.
test kernels shell: export KSM_RS_FLAVOUR := $(or $(if $(DEBUG),debug),$(KSM_RS_FLAVOUR))

# SEED=N: the random numbers of an earlier run, which has printed it.
test: export KSM_RS_SEED := $(or $(SEED),$(KSM_RS_SEED))

test:
	@tools/test $(TESTS)

# What `make test` leaves out, because it takes many minutes.
test-kvm-full:
	@tools/test -m kvm_full test_kvm.py $(TESTS)

# What Debian's kernel and system do: its kernel takes an hour or two to build.
test-debian:
	@tools/test -m debian test_debian.py $(TESTS)

bench:
	@tools/bench $(if $(BASE),--base '$(BASE)') $(BENCH)

bench-kvm:
	@tools/bench-kvm $(BENCH)

bench-neighbour:
	@tools/bench-neighbour $(BENCH)

scale:
	@tools/scale $(SCALE)

soak:
	@tools/soak $(SOAK)

setup:
	@tools/setup

kernels:
	@tools/setup --kernels

programs:
	@tools/programs

shell:
	@tools/programs > /dev/null
	@tools/vm shell

intree:
	@tools/intree '$(or $(TREE),$(error `make intree` needs TREE=/path/to/linux))'

deb:
	@tools/deb $(if $(FLAVOUR),--flavour '$(FLAVOUR)') $(DEB)

check-patches:
	@tools/check-patches $(or $(TREE),$(KDIR))

help:
	@cat tools/help.txt
