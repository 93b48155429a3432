//! The packages that are installed in an image: those of Python, from the `METADATA` of each, and those of
//! Debian, from dpkg's list. Both are read out of the layers, without running anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read},
};

use anyhow::{Context as _, Result};

use super::{layer, manifest::Descriptor, source::Source, stop::StopCheck};

/// A larger file is damaged, or is not what its name says.
const MAX_FILE: u64 = 64 << 20;

/// The packages of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages {
    pub python: BTreeSet<PythonPackage>,
    pub debian: BTreeSet<DebianPackage>,
    /// `ID` and `VERSION_ID` of `os-release`, such as `debian` and `13`.
    pub distribution: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PythonPackage {
    pub name: String,
    pub version: String,
    /// An SPDX expression.
    pub license: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DebianPackage {
    pub name: String,
    pub version: String,
    pub architecture: String,
    /// The source package, and its version if it has another one.
    pub source: Option<String>,
}

/// Reads the packages of an image from its layers, the lowest first.
///
/// # Errors
/// When a layer cannot be read, or differs from its digest.
pub fn read(source: &dyn Source, layers: &[Descriptor], stop: StopCheck) -> Result<Packages> {
    let mut files = Files::default();
    for one in layers {
        layer::read(source, one, stop, |tar| files.add_layer(tar))
            .with_context(|| format!("cannot read the packages of layer {}", one.digest))?;
    }
    Ok(files.packages())
}

/// The files that describe packages, by their paths without a leading `/`.
#[derive(Debug, Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds a layer, and removes what it hides of the layers below.
    /// <https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts>
    fn add_layer(&mut self, tar: impl Read) -> io::Result<()> {
        let mut added = BTreeMap::new();
        let mut tar = tar::Archive::new(tar);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = clean(&entry.path()?.to_string_lossy());
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                self.remove_below(folder);
                continue;
            }
            if let Some(hidden) = name.strip_prefix(".wh.") {
                let hidden = clean(&format!("{folder}/{hidden}"));
                self.0.remove(&hidden);
                self.remove_below(&hidden);
                continue;
            }
            let kind = entry.header().entry_type();
            self.0.remove(&path);
            if !kind.is_dir() {
                self.remove_below(&path);
            }
            if !describes_packages(&path) {
                continue;
            }
            if kind.is_file() {
                let mut content = Vec::new();
                entry.by_ref().take(MAX_FILE).read_to_end(&mut content)?;
                added.insert(path, content);
            } else if kind.is_hard_link() {
                let target = entry.link_name()?.unwrap_or_default();
                let target = clean(&target.to_string_lossy());
                let content = added.get(&target).ok_or_else(|| {
                    let why = format!("`{path}` is a hard link to `{target}`, which is not read");
                    io::Error::other(why)
                })?;
                added.insert(path, content.clone());
            }
        }
        self.0.append(&mut added);
        Ok(())
    }

    fn remove_below(&mut self, folder: &str) {
        if folder.is_empty() {
            self.0.clear();
        } else {
            let begin = format!("{folder}/");
            self.0.retain(|path, _| !path.starts_with(&begin));
        }
    }

    fn text(&self, path: &str) -> Option<String> {
        let content = self.0.get(path)?;
        Some(String::from_utf8_lossy(content).into_owned())
    }

    fn packages(&self) -> Packages {
        let mut packages = Packages::default();
        for path in self.0.keys() {
            let text = self.text(path).unwrap_or_default();
            if is_metadata(path) {
                packages.python.extend(python_package(&text));
            } else if is_dpkg_list(path) {
                packages
                    .debian
                    .extend(text.split("\n\n").filter_map(debian_package));
            }
        }
        let os_release = OS_RELEASE.iter().find_map(|path| self.text(path));
        packages.distribution = os_release.as_deref().and_then(distribution);
        packages
    }
}

/// In the order in which programs look for it.
const OS_RELEASE: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];

fn describes_packages(path: &str) -> bool {
    is_metadata(path) || is_dpkg_list(path) || OS_RELEASE.contains(&path)
}

fn is_metadata(path: &str) -> bool {
    path.ends_with(".dist-info/METADATA")
}

/// Debian has one file for all packages; an image without dpkg, such as a distroless one, a file for each.
fn is_dpkg_list(path: &str) -> bool {
    match path.strip_prefix("var/lib/dpkg/status") {
        Some("") => true,
        Some(rest) => rest.starts_with(".d/") && !rest.ends_with(".md5sums"),
        None => false,
    }
}

/// A path of a tar file without `./`, `//` and a leading or trailing `/`.
fn clean(path: &str) -> String {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts.collect::<Vec<_>>().join("/")
}

/// The value of a field of a header, such as `Name: x`.
fn field<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    let value = header.lines().find_map(value)?.trim();
    (!value.is_empty()).then_some(value)
}

/// <https://packaging.python.org/en/latest/specifications/core-metadata/>
fn python_package(metadata: &str) -> Option<PythonPackage> {
    let metadata = metadata.replace("\r\n", "\n");
    let header = metadata.split("\n\n").next()?;
    Some(PythonPackage {
        name: field(header, "Name")?.to_owned(),
        version: field(header, "Version")?.to_owned(),
        license: field(header, "License-Expression").map(str::to_owned),
    })
}

/// <https://www.debian.org/doc/debian-policy/ch-controlfields.html>
fn debian_package(stanza: &str) -> Option<DebianPackage> {
    let status = field(stanza, "Status");
    if status.is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    Some(DebianPackage {
        name: field(stanza, "Package")?.to_owned(),
        version: field(stanza, "Version")?.to_owned(),
        architecture: field(stanza, "Architecture").unwrap_or("all").to_owned(),
        source: field(stanza, "Source").map(str::to_owned),
    })
}

/// <https://www.freedesktop.org/software/systemd/man/latest/os-release.html>
fn distribution(os_release: &str) -> Option<(String, String)> {
    let value = |name: &str| {
        let line = os_release.lines().find_map(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
        })?;
        let value = line.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    Some((value("ID")?, value("VERSION_ID")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of a tar file: a file with its content, or another kind with its target.
    enum Entry<'a> {
        File(&'a str, &'a str),
        HardLink(&'a str, &'a str),
        SymbolicLink(&'a str),
    }
    use Entry::{File, HardLink, SymbolicLink};

    fn tar(entries: &[Entry]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for entry in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match entry {
                File(path, content) => {
                    header.set_size(content.len() as u64);
                    let content = content.as_bytes();
                    builder.append_data(&mut header, path, content).unwrap();
                }
                HardLink(path, target) => {
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Link);
                    builder.append_link(&mut header, path, target).unwrap();
                }
                SymbolicLink(path) => {
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, "x").unwrap();
                }
            }
        }
        builder.into_inner().unwrap()
    }

    fn packages(layers: &[&[Entry]]) -> Packages {
        let mut files = Files::default();
        for layer in layers {
            files.add_layer(&tar(layer)[..]).unwrap();
        }
        files.packages()
    }

    /// The names and versions of the Python packages.
    fn python(layers: &[&[Entry]]) -> Vec<String> {
        let packages = packages(layers).python.into_iter();
        packages
            .map(|one| format!("{} {}", one.name, one.version))
            .collect()
    }

    const A1: Entry = File(
        "site/a-1.dist-info/METADATA",
        "Name: a\nVersion: 1\n\nName: b\n",
    );
    const A2: Entry = File("site/a-2.dist-info/METADATA", "Name: a\r\nVersion: 2\r\n");

    #[test]
    fn packages_are_read_out_of_their_descriptions() {
        let found = packages(&[&[
            File(
                "./site/a.dist-info/METADATA",
                "Metadata-Version: 2.4\nName: a\nVersion: 1\nLicense-Expression: MIT OR Apache-2.0\n\nVersion: 7\n",
            ),
            File("site/a/METADATA", "Name: no\nVersion: 1\n"),
            File("site/broken.dist-info/METADATA", "Name: broken\n"),
            File(
                "var/lib/dpkg/status",
                "Package: libc6\nStatus: install ok installed\nSource: glibc (2.41-12)\nArchitecture: amd64\nVersion: 2.41-12+b1\nDescription: x\n Version: 3\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
            ),
            File(
                "var/lib/dpkg/status.d/tzdata",
                "Package: tzdata\nVersion: 2026a\nArchitecture: all\n",
            ),
            File(
                "var/lib/dpkg/status.d/tzdata.md5sums",
                "Package: no\nVersion: 1\n",
            ),
            File("var/lib/dpkg/status-old", "Package: no\nVersion: 1\n"),
            File(
                "usr/lib/os-release",
                "PRETTY_NAME=\"x\"\nID=debian\nVERSION_ID=\"13\"\n",
            ),
            SymbolicLink("etc/os-release"),
        ]]);
        let debian =
            |name: &str, version: &str, architecture: &str, source: Option<&str>| DebianPackage {
                name: name.to_owned(),
                version: version.to_owned(),
                architecture: architecture.to_owned(),
                source: source.map(str::to_owned),
            };
        let expected = Packages {
            python: [PythonPackage {
                name: "a".to_owned(),
                version: "1".to_owned(),
                license: Some("MIT OR Apache-2.0".to_owned()),
            }]
            .into(),
            debian: [
                debian("libc6", "2.41-12+b1", "amd64", Some("glibc (2.41-12)")),
                debian("tzdata", "2026a", "all", None),
            ]
            .into(),
            distribution: Some(("debian".to_owned(), "13".to_owned())),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_layer_hides_files_of_the_layers_below() {
        assert_eq!(python(&[&[A1], &[A2]]), ["a 1", "a 2"]);
        for hides in [
            ".wh.site",
            "site/.wh.a-1.dist-info",
            "./site/a-1.dist-info/.wh.METADATA",
            "site/a-1.dist-info/.wh..wh..opq",
            ".wh..wh..opq",
            // A file in place of the folder.
            "site/a-1.dist-info",
        ] {
            // A layer hides nothing of its own, wherever the whiteout is in it.
            for layer in [[A2, File(hides, "")], [File(hides, ""), A2]] {
                assert_eq!(python(&[&[A1], &layer]), ["a 2"], "{hides}");
            }
        }
        assert_eq!(
            python(&[&[A1], &[SymbolicLink("site/a-1.dist-info")]]),
            [""; 0]
        );
        assert_eq!(python(&[&[A1], &[File(".wh.sit", "")]]), ["a 1"]);
    }

    #[test]
    fn a_hard_link_has_the_content_of_its_target() {
        let link = HardLink("venv/a-1.dist-info/METADATA", "site/a-1.dist-info/METADATA");
        let below = File("venv/a-1.dist-info/METADATA", "Name: old\nVersion: 1\n");
        assert_eq!(python(&[&[below], &[A1, link]]), ["a 1"]);
        let lost = HardLink("venv/a-1.dist-info/METADATA", "elsewhere");
        let error = Files::default().add_layer(&tar(&[lost])[..]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`venv/a-1.dist-info/METADATA` is a hard link to `elsewhere`, which is not read"
        );
    }
}
