//! A small project, for tests of publishing: what they test does not depend on what is in the image, and a small image
//! is built and pushed in a moment.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::engines::{Checkout, var};

/// Both layers are files of the checkout, so that no base image is unpacked.
pub const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nCOPY tree /\nCOPY programs/$TARGETARCH /\nUSER 1000:1000\n\
    HEALTHCHECK CMD [\"/program\"]\nCMD [\"/program\"]\n";

/// The repository and the tags are those of this repository's `xtask.toml`. `formula` needs the description, the licence
/// and the source.
pub const CONFIG: &str = "schema = 1\n[image]\nrepository = 'ghcr.io/stigmer/agent-runner'\n\
    description = 'A small image'\nlicenses = 'Apache-2.0'\n\
    source = 'https://github.com/stigmer/agent-runner'\n[require]\nuser = '1000'\n\
    [[channel]]\nname = 'release'\ntags = ['{version}', 'v{version}', '{major}.{minor}', '{major}', 'latest']\n";

/// The platforms, each with its machine number in ELF headers.
pub const PLATFORMS: [(&str, u8); 2] = [("linux/amd64", 62), ("linux/arm64", 183)];

/// Instructions for Linux: exit with the platform's machine number.
const EXIT_AMD64: &[u8] = b"\xb8\x3c\0\0\0\xbf\x3e\0\0\0\x0f\x05";
const EXIT_ARM64: &[u8] = b"\xe0\x16\x80\xd2\xa8\x0b\x80\xd2\x01\0\0\xd4";

/// Turns the checkout into the small project. The files come in addition to its own, or replace them.
pub fn project_with(checkout: &Checkout, files: &[(&str, &[u8])]) {
    let packages = installed("small");
    let own: [(&str, &[u8]); 6] = [
        ("Dockerfile", DOCKERFILE.as_bytes()),
        (".dockerignore", b"*\n!tree\n!programs\n"),
        ("xtask.toml", CONFIG.as_bytes()),
        // The list of packages in the SBOM.
        ("tree/var/lib/dpkg/status", packages.as_bytes()),
        ("programs/amd64/program", &program(62, EXIT_AMD64)),
        ("programs/arm64/program", &program(183, EXIT_ARM64)),
    ];
    replace_all(checkout, &[&own, files].concat());
}

pub fn project(checkout: &Checkout) {
    project_with(checkout, &[]);
}

/// Removes the worker, writes these files, and commits both.
pub fn replace_all(checkout: &Checkout, files: &[(&str, &[u8])]) {
    let src = checkout.src();
    let folder = src.join("agent-runner");
    fs::remove_dir_all(&folder).unwrap();
    // The commands of the tests run in it.
    fs::create_dir(&folder).unwrap();
    for (path, content) in files {
        let path = src.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if content.starts_with(b"\x7fELF") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
    checkout.engine.hand_over(&src);
    for args in [&["add", "-A"][..], &["commit", "-q", "-m", "small"]] {
        let done = checkout.git(args);
        assert_eq!(done.code, 0, "{done:?}");
    }
}

/// The base image, for a step that runs in the build, and for containers that do not end at once.
pub fn base_image() -> String {
    var("XTASK_BUILD_BASE_IMAGE").unwrap_or_else(|| "docker.io/library/python:3.11-slim".to_owned())
}

/// The entry of a package in dpkg's list.
pub fn installed(package: &str) -> String {
    format!("Package: {package}\nStatus: install ok installed\nArchitecture: all\nVersion: 1.0\n\n")
}

/// A program that has only these instructions.
fn program(machine: u8, instructions: &[u8]) -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + instructions.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut add = |value: u64, bytes: usize| file.extend(&value.to_le_bytes()[..bytes]);
    // The ELF header: a program, its machine, its entry, one program header, and no sections.
    for (value, bytes) in [
        (2, 2),
        (machine.into(), 2),
        (1, 4),
        (ADDRESS + HEADERS, 8),
        (64, 8),
        (0, 8),
        (0, 4),
        (64, 2),
        (56, 2),
        (1, 2),
        (64, 2),
        (0, 2),
        (0, 2),
    ] {
        add(value, bytes);
    }
    // The program header: the whole file is loaded, readable and executable.
    for (value, bytes) in [
        (1, 4),
        (5, 4),
        (0, 8),
        (ADDRESS, 8),
        (ADDRESS, 8),
        (size, 8),
        (size, 8),
        (0x1000, 8),
    ] {
        add(value, bytes);
    }
    file.extend(instructions);
    file
}
