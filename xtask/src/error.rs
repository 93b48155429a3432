//! Failures: what failed, why, the exact next command, and the exit code.

use std::fmt;

/// An error made for the person who reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    message: String,
    hints: Vec<String>,
    code: u8,
    /// What the engine said; it was shown, and is looked at for what it means.
    said: String,
}

/// The exit code of a wrong call or a wrong configuration, as clap's.
pub const USAGE: u8 = 2;

impl Failure {
    /// Something went wrong: exit code 1.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hints: Vec::new(),
            code: 1,
            said: String::new(),
        }
    }

    /// The call or the configuration was wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).code(USAGE)
    }

    /// A signal ended it: exit code 128 + signal, as shells do.
    pub fn signal(number: i32) -> Self {
        Self::new("interrupted").code(u8::try_from(128 + number).unwrap_or(u8::MAX))
    }

    /// Adds a line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds several such lines.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = String>) -> Self {
        self.hints.extend(hints);
        self
    }

    #[must_use]
    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    #[must_use]
    pub fn with_said(mut self, said: String) -> Self {
        self.said = said;
        self
    }

    pub fn said(&self) -> &str {
        &self.said
    }

    pub fn exit_code(&self) -> u8 {
        self.code
    }

    pub fn hint_lines(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A failure of an engine that we know: its own words, and what to do.
pub struct Known {
    /// Texts that must all be in what the engine printed, in lower case.
    pub signature: &'static [&'static str],
    pub hints: &'static [&'static str],
}

/// Known failures, the most telling first. The texts are the engines' own.
pub const KNOWN: &[Known] = &[
    Known {
        signature: &["no space left on device"],
        hints: &[
            "the engine's disk is full: `cargo xtask clean --all` removes our images, `docker system df` or `podman system df` shows the rest",
        ],
    },
    Known {
        signature: &["buildx component is missing or broken"],
        hints: &[
            "install the buildx plugin: `apt-get install docker-buildx` (Debian), `docker-buildx-plugin` (Docker's own packages), `brew install docker-buildx` (macOS)",
        ],
    },
    Known {
        signature: &["exec format error"],
        hints: &[
            "the program is for another processor than this machine's, and no emulator is registered: build for this machine, or install one (`apt-get install qemu-user-static`)",
        ],
    },
    Known {
        signature: &["bind: address already in use"],
        hints: &[
            "another program has the port; `ss -ltnp` (Linux) or `lsof -iTCP -sTCP:LISTEN` (macOS) says which",
        ],
    },
    Known {
        signature: &["failed to resolve source metadata"],
        hints: &[
            "the base image cannot be had from its registry: check the name and the network, or set a mirror: `build.base-image` in `xtask.local.toml`, or `XTASK_BUILD_BASE_IMAGE`",
        ],
    },
    Known {
        signature: &["initializing source docker://"],
        hints: &[
            "the image cannot be had from its registry: check the name and the network, or set a mirror: `build.base-image` in `xtask.local.toml`, or `XTASK_BUILD_BASE_IMAGE`",
        ],
    },
    Known {
        signature: &["certificate signed by unknown authority"],
        hints: &[
            "a proxy with a certificate of its own is in the way: give its CA bundle to the build, in `xtask.local.toml`: `[build]` `secrets = [\"id=ca,src=/path/to/ca.pem\"]`",
        ],
    },
    Known {
        signature: &["certificate_verify_failed"],
        hints: &[
            "a proxy with a certificate of its own is in the way: give its CA bundle to the build, in `xtask.local.toml`: `[build]` `secrets = [\"id=ca,src=/path/to/ca.pem\"]`",
        ],
    },
    Known {
        signature: &["invalid peer certificate"],
        hints: &[
            "a proxy with a certificate of its own is in the way: give its CA bundle to the build, in `xtask.local.toml`: `[build]` `secrets = [\"id=ca,src=/path/to/ca.pem\"]`",
        ],
    },
    Known {
        signature: &["toomanyrequests"],
        hints: &[
            "the registry's pull limit is reached: sign in to it, or set a mirror: `build.base-image` in `xtask.local.toml`",
        ],
    },
    Known {
        signature: &["did not resolve to an alias"],
        hints: &[
            "Podman wants the registry's host in an image's name: `build.base-image = \"docker.io/library/…\"`",
        ],
    },
    Known {
        signature: &["executable file not found in $path", "docker-credential"],
        hints: &[
            "the credential helper that `~/.docker/config.json` names is not installed: remove its `credsStore` line, or install the helper",
        ],
    },
    Known {
        signature: &["lsetxattr", "operation not permitted"],
        hints: &[
            "this file system cannot carry SELinux labels: set `run.hardening.selinux-relabel = \"no\"` in `xtask.local.toml`",
        ],
    },
    Known {
        signature: &["catatonit"],
        hints: &[
            "Podman needs its init: install `catatonit`, or set `run.hardening.init = false` in `xtask.local.toml`",
        ],
    },
    Known {
        signature: &["permission denied", "/var/tmp/buildah-cache"],
        hints: &[
            "another user of this machine built first and owns Buildah's cache folder: `TMPDIR=$HOME/.cache cargo xtask build-image`",
        ],
    },
    Known {
        signature: &["cannot connect to the docker daemon"],
        hints: &["start Docker, or use Podman: `--engine podman`"],
    },
    Known {
        signature: &["is already in use", "container name"],
        hints: &["another run took the container's name in this moment: try again"],
    },
];

/// What we know to do about what an engine printed.
pub fn hints_for(output: &str) -> Vec<String> {
    let output = output.to_lowercase();
    KNOWN
        .iter()
        .find(|known| known.signature.iter().all(|part| output.contains(part)))
        .map(|known| known.hints.iter().map(|&hint| hint.to_owned()).collect())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_lower_case_and_found_in_the_engines_words() {
        for known in KNOWN {
            for part in known.signature {
                assert_eq!(*part, part.to_lowercase(), "compared in lower case");
            }
        }
        let hints = hints_for(
            "ERROR: BuildKit is enabled but the buildx component is missing or broken.\n       Install the buildx component",
        );
        assert!(
            hints[0].starts_with("install the buildx plugin"),
            "{hints:?}"
        );
        assert!(hints_for("all is well").is_empty());
    }
}
