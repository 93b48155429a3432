//! The command that builds an image.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    base::{engine_kind::EngineKind, image::Platform},
    engine::{EngineFacts, Place, capabilities::Capability},
    plan::{Cmd, EnvValue},
    settings::{BuildSecret, Progress, SecretSource},
};

/// What to build, in no engine's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Absolute paths, so that the command means the same from any folder.
    pub dockerfile: String,
    pub context: String,
    pub target: String,
    pub platforms: Vec<Platform>,
    pub args: BTreeMap<String, String>,
    pub secrets: Vec<BuildSecret>,
    pub labels: BTreeMap<String, String>,
    pub references: Vec<String>,
    pub network: String,
    pub pull: bool,
    pub no_cache: bool,
    pub progress: Progress,
    /// A folder of our own for the builder's caches, where the usual one is somebody else's.
    pub tmpdir: Option<String>,
}

impl Build {
    /// The platforms as both engines take them: `linux/amd64,linux/arm64`.
    pub fn platform_list(&self) -> String {
        let words: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
        words.join(",")
    }
}

impl EngineFacts {
    /// An image in the engine's store, under its references.
    pub fn build(&self, build: &Build) -> Cmd {
        let mut cmd = self.engine.cmd().arg("build");
        match self.engine.kind {
            // With attestations the image gets OCI media types, in which Podman does not
            // see the health check. https://github.com/containers/podman/issues/18904
            EngineKind::Docker => {
                cmd = cmd.env(
                    "BUILDX_NO_DEFAULT_ATTESTATIONS",
                    EnvValue::Plain("1".to_owned()),
                );
            }
            EngineKind::Podman => {}
        }
        cmd = self.add_build(cmd, &self.with_build_platform(build));
        for reference in &build.references {
            cmd = cmd.args(["--tag", reference]);
        }
        cmd.arg(build.context.as_str())
    }

    /// The build as this machine's own builder takes it. Buildah 1.28 does not know by itself what
    /// it runs on, and stages that are to run here would run emulated.
    /// <https://github.com/containers/buildah/issues/4742>
    pub(super) fn with_build_platform(&self, build: &Build) -> Build {
        let mut build = build.clone();
        match self.engine.kind {
            EngineKind::Docker => {}
            EngineKind::Podman => {
                let args = build.args.entry("BUILDPLATFORM".to_owned());
                args.or_insert_with(|| self.platform.to_string());
            }
        }
        build
    }

    /// What every build takes, whatever becomes of its result.
    pub(super) fn add_build(&self, mut cmd: Cmd, build: &Build) -> Cmd {
        match self.engine.kind {
            EngineKind::Docker => {
                // Without buildx, or with a broken one, `docker build` quietly takes the legacy
                // builder, which knows no mounts and no TARGETARCH; with this it says so.
                cmd.env.insert(
                    0,
                    (
                        "DOCKER_BUILDKIT".to_owned(),
                        EnvValue::Plain("1".to_owned()),
                    ),
                );
                if build.progress != Progress::Quiet {
                    cmd = cmd.args(["--progress", progress_word(build.progress)]);
                }
            }
            EngineKind::Podman => {
                // The OCI format has no place for HEALTHCHECK: Buildah drops it with a warning,
                // and without one when the step is cached. https://github.com/containers/buildah/issues/2388
                cmd = cmd.args(["--format", "docker"]);
                if let Some(tmpdir) = &build.tmpdir {
                    cmd = cmd.env("TMPDIR", EnvValue::Plain(tmpdir.clone()));
                }
            }
        }
        if build.progress == Progress::Quiet {
            cmd = cmd.arg("--quiet");
        }
        cmd = cmd.args([
            "--file",
            &build.dockerfile,
            "--platform",
            &build.platform_list(),
        ]);
        if !build.target.is_empty() {
            cmd = cmd.args(["--target", &build.target]);
        }
        if build.network != "default" {
            cmd = cmd.args(["--network", &build.network]);
        }
        if build.pull {
            cmd = cmd.arg("--pull");
        }
        if build.no_cache {
            cmd = cmd.arg("--no-cache");
        }
        for (name, value) in &build.args {
            cmd = cmd.args(["--build-arg", &format!("{name}={value}")]);
        }
        for secret in &build.secrets {
            cmd = cmd.args(["--secret", &secret_arg(secret)]);
        }
        for (name, value) in &build.labels {
            cmd = cmd.args(["--label", &format!("{name}={value}")]);
        }
        cmd
    }

    /// The folder in which the builder keeps cache mounts, where it is one on this host.
    pub fn cache_folder(&self, tmpdir: Option<&str>, euid: u32) -> Option<PathBuf> {
        let name = match self.engine.kind {
            EngineKind::Docker => return None,
            EngineKind::Podman if self.place != Place::Here => return None,
            EngineKind::Podman if self.can(Capability::OwnCacheFolder) => {
                format!("buildah-cache-{euid}")
            }
            EngineKind::Podman => "buildah-cache".to_owned(),
        };
        Some(Path::new(tmpdir.unwrap_or("/var/tmp")).join(name))
    }

    /// A build that is done for its steps, such as checks: no image is kept of it where the
    /// engine can do without.
    pub fn build_and_forget(&self, build: &Build) -> Cmd {
        let mut cmd = self.build(build);
        if self.can(Capability::BuildWithoutImage) {
            cmd.args.insert(1, "--output=type=cacheonly".to_owned());
        }
        cmd
    }
}

fn progress_word(progress: Progress) -> &'static str {
    match progress {
        Progress::Auto | Progress::Quiet => "auto",
        Progress::Plain => "plain",
        Progress::Tty => "tty",
    }
}

/// The same on both engines. Only the name of a variable is told, never its value.
fn secret_arg(secret: &BuildSecret) -> String {
    match &secret.source {
        SecretSource::File(file) => format!("id={},src={file}", secret.id),
        SecretSource::Env(name) => format!("id={},env={name}", secret.id),
    }
}
