# SPDX-License-Identifier: GPL-2.0
"""Debian packages: installing them, and fetching one from another suite."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from .paths import in_cache
from .say import Failure, say, step
from .shell import as_root, logged, output


def candidate(package: str) -> str | None:
    """The version that apt would install."""
    untranslated = {**os.environ, "LC_ALL": "C"}
    policy = output("apt-cache", "policy", package, env=untranslated)
    found = re.search(r"Candidate: (\S+)", policy)
    return found[1] if found and found[1] != "(none)" else None


def numbers(version: str) -> tuple[int, ...]:
    """The upstream part of a package's version, to compare."""
    upstream = version.split(":")[-1]
    return tuple(map(int, re.findall(r"\d+", upstream)[:3]))


def refresh() -> None:
    """Update the package lists; a foreign source that fails does not matter."""
    with step("updating the package lists"):
        try:
            logged("apt", *as_root("apt-get", "update"))
        except Failure:
            say("apt-get update had errors; going on with the lists that there are")


def install(packages: list[str]) -> None:
    """Install what set-up found missing."""
    if not all(map(candidate, packages)):
        refresh()
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    options = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
    command = as_root("apt-get", "install", *options, *packages)
    with step(f"installing {' '.join(packages)}"):
        try:
            logged("apt", *command, env=environment)
        except Failure:
            # Lists grow stale: versions vanish from a mirror as new ones come.
            refresh()
            logged("apt", *command, env=environment)


@dataclass
class Mirror:
    """Where this machine gets Debian from, and the keyring that it trusts."""

    uri: str
    keyring: Path


def keyring() -> Path:
    """Debian's keys, as its package debian-archive-keyring installs them."""
    found = sorted(Path("/usr/share/keyrings").glob("debian-archive-keyring.*"))
    if not found:
        raise Failure("debian-archive-keyring is not installed")
    return found[0]


def mirror() -> Mirror:
    """The machine's own Debian mirror, from its apt configuration."""
    listing = output(
        "apt-get",
        "indextargets",
        "--format",
        "$(CREATED_BY)|$(COMPONENT)|$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(RELEASE)",
    )
    for line in listing.splitlines():
        created, component, uri, origin, label, release = line.split("|")
        if (
            created != "Packages"
            or component != "main"
            or "security" in f"{label}{release}".lower()
        ):
            continue
        # The origin is known once the lists have been updated.
        if origin == "Debian" or (not origin and "debian" in uri.lower()):
            return Mirror(uri, keyring())
    raise Failure(
        "this machine's apt knows no Debian mirror; give a kernel source in KSM_RS_KERNEL_SOURCE"
    )


class OtherSuite:
    """A suite that the machine does not list, in an apt state of its own."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.state = in_cache("apt", suite, "apt.conf").parent
        self.environment = {**os.environ, "APT_CONFIG": str(self.state / "apt.conf")}

    def update(self) -> None:
        source = mirror()
        (self.state / "sources.list").write_text(
            f"deb [signed-by={source.keyring}] {source.uri} {self.suite} main\n"
        )
        for name in ("lists", "cache"):
            (self.state / name / "partial").mkdir(parents=True, exist_ok=True)
        (self.state / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
        (self.state / "apt.conf").write_text(self.configuration())
        with step(f"updating the package list of {self.suite}"):
            logged("apt", "apt-get", "update", env=self.environment)

    def configuration(self) -> str:
        settings = {
            "Dir::Etc::sourcelist": self.state / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": self.state / "lists",
            "Dir::Cache": self.state / "cache",
            "APT::Sandbox::User": "root",
        }
        hooks = "#clear APT::Update::Post-Invoke;\n#clear APT::Update::Post-Invoke-Success;\n"
        return hooks + "".join(f'{key} "{value}";\n' for key, value in settings.items())

    def newest(self, package: str) -> str | None:
        """The newest version of `package` there is."""
        listing = output("apt-cache", "madison", package, env=self.environment)
        versions = [line.split("|")[1].strip() for line in listing.splitlines()]
        return versions[0] if versions else None

    def with_needs(self, package: str, prefix: str) -> list[str]:
        """The package, and all that it depends on whose names begin with `prefix`."""
        options = ("--recurse", "--important", "--no-breaks", "--no-conflicts", "--no-replaces")
        listing = output("apt-cache", "depends", *options, package, env=self.environment)
        return [line for line in listing.splitlines() if line.startswith(prefix)]

    def download(self, package: str, into: Path) -> Path:
        """Fetch the newest version of `package`; returns the file."""
        into.mkdir(parents=True, exist_ok=True)
        logged("apt", "apt-get", "download", package, env=self.environment, cwd=into)
        return next(into.glob(f"{package}_*.deb"))


def unpack(package: Path, into: Path) -> None:
    logged("unpack", "dpkg", "-x", package, into)
