// SPDX-License-Identifier: GPL-2.0

//! Names of guests, units and containers.

/// The name of the guest that a command line of QEMU runs: `-name web`, or `-name guest=web,debug-threads=on`.
pub fn guest(words: &[String]) -> Option<&str> {
    let program = words.first()?.rsplit('/').next()?;
    if !program.starts_with("qemu-system-") && program != "kvm" {
        return None;
    }
    let flag = words
        .iter()
        .position(|word| word == "-name" || word == "--name")?;
    let options = words.get(flag + 1)?;
    let named = options
        .split(',')
        .find_map(|option| option.strip_prefix("guest="));
    named
        .or_else(|| options.split(',').next())
        .filter(|name| !name.is_empty())
}

/// The unit or container of a cgroup: the last part of its path that is one.
pub fn unit(path: &str) -> Option<&str> {
    let is_unit = |part: &&str| {
        [".service", ".scope", ".slice"]
            .iter()
            .any(|end| part.ends_with(end))
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let container = parts
        .iter()
        .position(|part| ["lxc", "docker", "machine.slice", "lxc.payload"].contains(part));
    let after = container.and_then(|at| parts.get(at + 1));
    after
        .copied()
        .or_else(|| parts.iter().rev().copied().find(is_unit))
        .or(parts.last().copied())
}

/// The text with every character that a terminal could take for a command written out.
pub fn printable(text: impl AsRef<str>) -> String {
    let mut printable = String::new();
    for character in text.as_ref().chars() {
        match character.is_control() || character == '\u{fffd}' {
            true => printable.extend(character.escape_default()),
            false => printable.push(character),
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn guests_have_names() {
        for (line, name) in [
            ("/usr/bin/qemu-system-x86_64 -name web -m 1G", Some("web")),
            (
                "qemu-system-x86_64 -m 1G -name guest=db,debug-threads=on",
                Some("db"),
            ),
            ("kvm -name debug-threads=on,guest=mail", Some("mail")),
            ("qemu-system-x86_64 -m 1G", None),
            ("qemu-system-x86_64 -name", None),
            ("bash -name web", None),
        ] {
            assert_eq!(guest(&words(line)), name, "{line}");
        }
        assert_eq!(guest(&[]), None);
    }

    #[test]
    fn units_and_containers_are_found() {
        for (path, name) in [
            ("/system.slice/ssh.service", Some("ssh.service")),
            (
                "/system.slice/docker-0123.scope/init",
                Some("docker-0123.scope"),
            ),
            (
                "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope/libvirt/emulator",
                Some("machine-qemu\\x2d1\\x2dweb.scope"),
            ),
            ("/lxc/100/ns/system.slice", Some("100")),
            ("/", None),
        ] {
            assert_eq!(unit(path), name, "{path}");
        }
    }

    #[test]
    fn no_name_can_write_to_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("größer"), "größer");
    }
}
