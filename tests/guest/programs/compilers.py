# SPDX-License-Identifier: GPL-2.0
"""gcc and rustc, all of their memory mergeable, make the same of their sources as without KSM."""

import hashlib
import shutil
from pathlib import Path

from lab import answered, at_full_speed, expect, get, output, put, under_merge_any, version_of

DIRECTORY = Path("/var/tmp/compilers")
C_HEADERS = Path("/usr/include/stb")
CRATE = next(Path("/usr/share/cargo/registry").glob("memchr-*"))

MAKEFILE = """\
objects := $(patsubst %.c,%.o,$(wildcard *.c))
all: $(objects)
CFLAGS := -O1 -w
"""
# Libraries that consist of one header, and what makes each define its functions.
LIBRARIES = ("image_write", "rect_pack", "dxt", "sprintf")


def write_sources() -> None:
    for name in LIBRARIES:
        text = f'#define STB_{name.upper()}_IMPLEMENTATION\n#include "stb/stb_{name}.h"\n'
        (DIRECTORY / f"{name}.c").write_text(text)
    (DIRECTORY / "Makefile").write_text(MAKEFILE)


def build() -> dict[str, str]:
    """Builds both anew, and returns digests of what came of it."""
    for old in (*DIRECTORY.glob("*.o"), *DIRECTORY.glob("*.rlib")):
        old.unlink()
    output(*under_merge_any("make", "--jobs=2", "--silent", "--directory", DIRECTORY))
    rust = ("rustc", "--edition=2021", "--crate-type=lib", "-O", "--cap-lints=allow")
    options = ("--cfg", 'feature="std"', "--cfg", 'feature="alloc"', "--crate-name=memchr")
    library = DIRECTORY / "libmemchr.rlib"
    output(*under_merge_any(*rust, *options, "-o", library, CRATE / "src/lib.rs"))
    made = (*DIRECTORY.glob("*.o"), library)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in made}


def main() -> None:
    shutil.rmtree(DIRECTORY, ignore_errors=True)
    DIRECTORY.mkdir()
    write_sources()
    put(run=0)
    without = build()
    at_full_speed()
    scanned = get("pages_scanned")
    merged = build()
    scanned = get("pages_scanned") - scanned
    put(run=0)
    expect("the same came of it", merged == without, (without, merged))
    expect("all files are there", len(merged) == len(LIBRARIES) + 1, merged)
    expect("KSM was at work", scanned > 10000, scanned)
    answered(
        "gcc, rustc",
        f"{version_of('gcc')}, {version_of('rustc')}",
        "make of stb's libraries, rustc of memchr, with KSM off and at full speed",
        f"{len(merged)} files, each the same; {scanned} pages scanned meanwhile",
    )


main()
