# SPDX-License-Identifier: GPL-2.0
"""The Debian package ksm-rs, and the command in it."""

import json
import subprocess

import pytest
from ksmlab import command_package, kernel_package, setup

# The package is built once, by the first test, and with a program that is linked in a way of its own.
pytestmark = [pytest.mark.xdist_group("ksm-rs-package"), pytest.mark.timeout(1200)]

COMMAND = "/mnt/share/usr/bin/ksm"
CONFIGURATION = "/mnt/share/etc/ksm-rs.conf"


@pytest.fixture(scope="module")
def package():
    setup.need({"lintian": "lintian"})
    return command_package.build()


@pytest.fixture(scope="module")
def unpacked(package, tmp_path_factory):
    directory = tmp_path_factory.mktemp("ksm-rs")
    subprocess.run(["dpkg-deb", "-x", package, directory], check=True)
    return directory


def test_lintian_has_nothing_to_say(package):
    command = ["lintian", "--allow-root", "--fail-on", "error,warning", package]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "W:" not in done.stdout and "E:" not in done.stdout


def test_what_is_installed(unpacked):
    files = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()}
    assert {
        "etc/ksm-rs.conf",
        "usr/bin/ksm",
        "usr/bin/ksm-domain",
        "usr/share/doc/ksm-rs/examples/libvirt-hook",
        "usr/share/doc/ksm-rs/examples/tenant@.service",
        "usr/lib/modules-load.d/ksm-rs.conf",
        "usr/share/man/man1/ksm-set.1.gz",
        "usr/share/man/man5/ksm-rs.conf.5.gz",
        "usr/share/man/man8/ksm-rs.service.8.gz",
        "usr/share/bash-completion/completions/ksm",
    } <= files
    assert any(file.endswith("systemd/system/ksm-rs.service") for file in files)


def test_the_program_needs_no_library(unpacked):
    command = ["readelf", "-d", unpacked / "usr/bin/ksm"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "NEEDED" not in told


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_the_service_sets_what_its_file_says(vm, unpacked, ksm):
    """The commands of the unit, as it has them, with either KSM."""
    script = f"""
        echo 'use_zero_pages = 1' > /tmp/more
        cat {CONFIGURATION} >> /tmp/more
        {COMMAND} --json set --file /tmp/more
        cat /sys/kernel/mm/ksm/run /sys/kernel/mm/ksm/use_zero_pages
        {COMMAND} set run=0
        {COMMAND} set run=0
        cat /sys/kernel/mm/ksm/run
    """
    done = vm.run("sh", "-ec", script, ksm=ksm, share=unpacked)
    assert done.status == 0, done.explain()
    told, *values = done.text.splitlines()
    assert {change["name"] for change in json.loads(told)["changed"]} == {"run", "use_zero_pages"}
    assert values == ["1", "1", "run: 1 -> 0", "0"]


@pytest.mark.parametrize("ksm", ["rs", "c"])
def test_no_setting_that_the_command_takes_is_refused_by_the_kernel(vm, unpacked, ksm):
    """Each is set to its least and to its greatest value, and back; an unknown one names all."""
    script = f"""
        limits() {{
            for value in $2 $3; do
                {COMMAND} set "$1=$value" > /tmp/told
                [ "$(cat /sys/kernel/mm/ksm*/$1)" = "$value" ]
            done
        }}
        limits pages_to_scan 0 4294967295
        limits sleep_millisecs 0 4294967295
        limits max_page_sharing 2 2147483647
        limits stable_node_chains_prune_millisecs 0 4294967295
        limits use_zero_pages 0 1
        limits smart_scan 0 1
        limits advisor_target_scan_time 1 1000000
        limits advisor_max_cpu 0 100
        if [ -d /sys/kernel/mm/ksm_rs ]; then
            limits huge_page_min_equal 1 512
            limits only_zero_pages 0 1
        else
            ! {COMMAND} set only_zero_pages=1 2> /tmp/told
            grep -q 'this KSM has no only_zero_pages' /tmp/told
        fi
        {COMMAND} set advisor_mode=scan-time
        ! {COMMAND} set pages_to_scan=7 2> /tmp/told
        grep -q 'the advisor sets pages_to_scan' /tmp/told
        {COMMAND} set pages_to_scan=7 advisor_mode=none
    """
    done = vm.run("sh", "-ec", script, ksm=ksm, share=unpacked)
    assert done.status == 0, done.explain()
    assert done.text.splitlines()[-2:] == [
        "advisor_mode: scan-time -> none",
        "pages_to_scan: 500 -> 7",
    ]


def test_every_setting_of_the_kernel_is_known(vm, unpacked):
    script = f"""
        find /sys/kernel/mm/ksm /sys/kernel/mm/ksm_rs -type f -perm -200 -printf '%f\\n'
        ! {COMMAND} set nonsense=1 2>&1
    """
    done = vm.run("sh", "-ec", script, share=unpacked)
    assert done.status == 0, done.explain()
    text, told = done.text.split("error: ")
    known = set(told.split("there are ")[1].split("\n")[0].split(", "))
    # This lane has no NUMA.
    assert known == {*text.split(), "merge_across_nodes"}


def test_a_kernel_without_ksm_is_told(vm, unpacked):
    script = f"rmmod ksm_rs; ! {COMMAND} set run=1 2> /tmp/told; cat /tmp/told"
    done = vm.run("sh", "-ec", script, share=unpacked)
    assert done.status == 0, done.explain()
    assert "modprobe ksm_rs" in done.text


def test_a_kernel_is_packaged_with_the_module_inside(tmp_path):
    packages = kernel_package.ensure(kernel_package.lean())
    names = [package.name.split("_")[0] for package in packages]
    assert len(names) == 2 and all("-ksm-rs-lean" in name for name in names)
    image = next(package for package in packages if package.name.startswith("linux-image-"))
    told = subprocess.run(["dpkg-deb", "-c", image], capture_output=True, text=True, check=True)
    files = [line.split()[-1] for line in told.stdout.splitlines()]
    assert any("/mm/ksm_rs/ksm_rs.ko" in file for file in files)
    assert any(file.startswith("./boot/vmlinuz-") for file in files)
    assert not any(file.startswith("./usr/include") for file in files)
    version = subprocess.run(
        ["dpkg-deb", "-f", image, "Version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    debian = version.removesuffix("+ksmrs1")
    for relation, other in (("gt", debian), ("lt", f"{debian}.1")):
        assert not subprocess.run(["dpkg", "--compare-versions", version, relation, other]).returncode
