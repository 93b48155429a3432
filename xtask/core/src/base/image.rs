//! Repositories, platforms and sizes of images.

use std::{fmt, str::FromStr};

use serde::Deserialize;

/// The standard label for an image's version.
/// <https://github.com/opencontainers/image-spec/blob/main/annotations.md>
pub const VERSION_LABEL: &str = "org.opencontainers.image.version";

/// A repository without a tag: `ghcr.io/stigmer/agent-runner`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Repository(String);

impl TryFrom<String> for Repository {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl Repository {
    /// # Errors
    /// The reason why the text is not a repository, as a predicate.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, path) = match text.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => {
                (Some(first), rest)
            }
            _ => (None, text),
        };
        if path.contains([':', '@']) {
            return Err(
                "must not have a tag or digest; the version determines the tags".to_owned(),
            );
        }
        let Some(host) = host else {
            // Docker would add `docker.io/`, Podman `localhost/`.
            return Err("must begin with the registry's host, such as `ghcr.io/`".to_owned());
        };
        if !is_host(host) {
            return Err("must begin with a host, such as `ghcr.io` or `127.0.0.1:5000`".to_owned());
        }
        if !path.split('/').all(is_component) {
            return Err(
                "must be lower-case letters and digits, separated by `/`, `.`, `_`, `__` or dashes"
                    .to_owned(),
            );
        }
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The registry's host, with its port if it has one.
    pub fn registry(&self) -> &str {
        self.0.split('/').next().unwrap_or(&self.0)
    }

    /// The repository's name within its registry.
    pub fn path(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, path)| path)
    }

    /// The repository of images that are made from this one's sources and never leave this machine:
    /// `localhost/agent-runner-devserver`.
    pub fn on_this_machine(&self, what: &str) -> String {
        let name = self.path().rsplit('/').next().unwrap_or_default();
        format!("localhost/{name}-{what}")
    }

    /// The reference of the image with this tag.
    pub fn tagged(&self, tag: &str) -> String {
        format!("{}:{tag}", self.0)
    }
}

/// Whether the text is a host: a name or an address (IPv6 in brackets), and an optional port.
/// <https://github.com/distribution/reference/blob/main/regexp.go>
fn is_host(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !text.ends_with(']') => (name, port),
        _ => (text, "443"),
    };
    let is_label = |label: &str| {
        let edge = |c: char| c.is_ascii_alphanumeric();
        label.starts_with(edge)
            && label.ends_with(edge)
            && label.chars().all(|c| edge(c) || c == '-')
    };
    let is_name = match name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(is_label),
    };
    is_name && !port.is_empty() && port.bytes().all(|c| c.is_ascii_digit())
}

/// Whether the text is a component of a repository's name: words with one separator between two of them.
/// <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>
fn is_component(text: &str) -> bool {
    let in_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator =
        |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|c| c == b'-');
    text.starts_with(in_word) && text.ends_with(in_word) && text.split(in_word).all(is_separator)
}

/// The platform of an image: `linux/amd64`, `linux/arm64`, `linux/arm/v7`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub struct Platform {
    pub os: String,
    pub arch: String,
    pub variant: Option<String>,
}

impl Platform {
    /// The platform of a Linux container. Containers are Linux containers on every host.
    pub fn linux(arch: &str) -> Self {
        Self {
            os: "linux".to_owned(),
            arch: arch.to_owned(),
            variant: None,
        }
    }

    /// The architecture's number in the `e_machine` field of an ELF header; none for a platform that the
    /// image cannot be built for.
    pub fn elf_machine(&self) -> Option<u16> {
        let known = SUPPORTED.iter().find(|known| known.name == self.arch)?;
        (self.os == "linux" && self.variant.is_none()).then_some(known.elf_machine)
    }

    /// Checks that the image can be built for the platform.
    ///
    /// # Errors
    /// The reason why it cannot, as a predicate.
    pub fn check_supported(&self) -> Result<(), String> {
        if self.elf_machine().is_some() {
            return Ok(());
        }
        let names: Vec<_> = SUPPORTED
            .iter()
            .map(|known| format!("`linux/{}`", known.name))
            .collect();
        Err(format!(
            "must be {}: the image cannot be built for another platform",
            names.join(" or ")
        ))
    }

    /// Reads a platform that the image can be built for.
    ///
    /// # Errors
    /// The reason why the text is none, as a predicate.
    pub fn parse_supported(text: &str) -> Result<Self, String> {
        let platform: Self = text.parse()?;
        platform.check_supported()?;
        Ok(platform)
    }
}

/// An architecture that the image can be built for.
struct Architecture {
    name: &'static str,
    /// The names that kernels and compilers use.
    aliases: &'static [&'static str],
    /// The variant that every processor of the architecture has, so it is left out.
    /// <https://github.com/containerd/platforms/blob/main/database.go>
    base_variant: &'static str,
    /// <https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html>
    elf_machine: u16,
}

/// The architectures of the Dockerfile's stage `packages`.
const SUPPORTED: &[Architecture] = &[
    Architecture {
        name: "amd64",
        aliases: &["x86_64", "x86-64"],
        base_variant: "v1",
        elf_machine: 62,
    },
    Architecture {
        name: "arm64",
        aliases: &["aarch64"],
        base_variant: "v8",
        elf_machine: 183,
    },
];

impl TryFrom<String> for Platform {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Reads a platform in its shortest form: `linux/arm64/v8` and `linux/aarch64` are `linux/arm64`.
impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let (Some(os), Some(arch), variant, None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("must have the form `linux/amd64`".to_owned());
        };
        let is_known = |known: &&Architecture| known.name == arch || known.aliases.contains(&arch);
        let known = SUPPORTED.iter().find(is_known);
        let arch = known.map_or(arch, |known| known.name);
        let variant = variant.filter(|it| known.is_none_or(|known| known.base_variant != *it));
        let is_valid = |part: &str| {
            !part.is_empty()
                && part
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        };
        if !is_valid(os) || !is_valid(arch) || !variant.is_none_or(is_valid) {
            return Err("must have the form `linux/amd64`".to_owned());
        }
        Ok(Self {
            os: os.to_owned(),
            arch: arch.to_owned(),
            variant: variant.map(str::to_owned),
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)?;
        self.variant
            .iter()
            .try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// The largest size that an image may have, in bytes; none for no limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    pub compressed: Option<u64>,
    pub unpacked: Option<u64>,
}

/// A size for people, in decimal units, as registries print it: `44.1 MB`.
pub fn human_bytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // only one decimal is printed
    let size = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", size / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", size / 1e6),
        _ => format!("{:.2} GB", size / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in [
            "ghcr.io/stigmer/agent-runner",
            "localhost/x",
            "127.0.0.1:5000/a/b_c",
            "[::1]:5000/a/b__c--d.e",
        ] {
            assert_eq!(Repository::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "agent-runner",
            "ghcr.io/Stigmer/x",
            "ghcr.io/x:1",
            "ghcr.io/",
            "ghcr.io/a//b",
            "ghcr.io/a..b",
            "ghcr.io/a___b",
            "--output.x/a",
            "ghcr.io:http/a",
            "me:pw@ghcr.io/a",
            "ghcr.io\n/a",
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms_are_parsed_and_printed() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for bad in [
            "linux",
            "linux/",
            "/amd64",
            "linux/amd64/v1/x",
            "Linux/amd64",
            "",
        ] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_platform_has_one_name() {
        let name = |text: &str| text.parse::<Platform>().unwrap().to_string();
        for same in [
            "linux/arm64",
            "linux/arm64/v8",
            "linux/aarch64",
            "linux/aarch64/v8",
        ] {
            assert_eq!(name(same), "linux/arm64");
        }
        for same in [
            "linux/amd64",
            "linux/amd64/v1",
            "linux/x86_64",
            "linux/x86-64",
        ] {
            assert_eq!(name(same), "linux/amd64");
        }
        // These need a newer processor, or are other architectures.
        for other in ["linux/amd64/v3", "linux/arm64/v9", "linux/arm/v8"] {
            assert_eq!(name(other), other);
        }
    }

    #[test]
    fn a_platform_without_packages_is_refused() {
        for good in ["linux/amd64", "linux/x86_64", "linux/arm64/v8"] {
            assert!(Platform::parse_supported(good).is_ok(), "{good}");
        }
        for bad in [
            "linux/arm/v7",
            "linux/amd64/v3",
            "linux/s390x",
            "windows/amd64",
        ] {
            assert_eq!(
                Platform::parse_supported(bad).unwrap_err(),
                "must be `linux/amd64` or `linux/arm64`: the image cannot be built for another platform"
            );
        }
    }

    #[test]
    fn sizes_are_printed_in_decimal_units() {
        assert_eq!(human_bytes(999), "999 B");
        assert_eq!(human_bytes(1_500), "1.5 kB");
        assert_eq!(human_bytes(44_100_000), "44.1 MB");
        assert_eq!(human_bytes(2_040_000_000), "2.04 GB");
    }
}
