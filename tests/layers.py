# SPDX-License-Identifier: GPL-2.0
"""Which of the module's source files import which, by their `use` lines."""

import re
from pathlib import Path

from ksmlab.paths import REPO
from ksmlab.sources import module_sources

# A KUnit module is the last thing in its file; it may use whatever it likes.
KUNIT = re.compile(r"^#\[kernel::macros::kunit_tests", re.M)
COMMENT = re.compile(r"//[^\n]*")
USE = re.compile(r"\buse ([\w:]+::[^;]+);")
INLINE = re.compile(r"(?<!use )\bcrate::(?:\w+::)+\w+")


ROOT = "ksm_rs"


def name_of(file: Path) -> str:
    """The path of a file's module: `mm::folio`; that of `mm/mod.rs` is `mm`."""
    parts = file.relative_to(REPO).with_suffix("").parts
    return "::".join(parts[:-1] if parts[-1] == "mod" else parts)


def leaves(tree: str) -> list[str]:
    """`a::{b, c::d}` as `a::b` and `a::c::d`."""
    prefix, brace, rest = tree.partition("{")
    if not brace:
        return [tree] if tree else []
    found, depth, word = [], 0, ""
    for char in rest.rpartition("}")[0] + ",":
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            found += [prefix + leaf for leaf in leaves(word)]
            word = ""
        else:
            word += char
    return found


def absolute(leaf: str, module: str) -> str:
    """A leaf seen from the crate's root; what it cannot be is no module of ours."""
    first, _, rest = leaf.partition("::")
    if first == "crate":
        return rest
    if first != "super":
        return f"{module}::{leaf}" if module != ROOT else leaf
    parent = module.rpartition("::")[0]
    return f"{parent}::{rest}" if parent else rest


def imports(file: Path, modules: set[str]) -> set[str]:
    """The modules that a file imports from, without itself."""
    text = COMMENT.sub("", KUNIT.split(file.read_text())[0])
    module = name_of(file)
    trees = [re.sub(r"\s", "", tree) for tree in USE.findall(text)]
    paths = [absolute(leaf, module) for tree in trees for leaf in leaves(tree)]
    paths += [path.removeprefix("crate::") for path in INLINE.findall(text)]
    return {module_in(path, modules) for path in paths} - {"", module}


def module_in(path: str, modules: set[str]) -> str:
    """The module that an item belongs to."""
    while path and path not in modules:
        path = path.rpartition("::")[0]
    return path


def graph() -> dict[str, set[str]]:
    """For each module the modules that it imports from."""
    files = {name_of(file): file for file in module_sources()}
    return {module: imports(file, set(files)) for module, file in files.items()}
