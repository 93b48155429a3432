//! The command that builds an image.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    image::CHANGED_MEANWHILE,
    labelled::{Labelled, labelled},
};
use crate::{
    base::{engine_kind::EngineKind, image::Platform},
    engine::{EngineFacts, Location, capabilities::Capability},
    plan::{Cmd, EnvValue, Output, Step},
    settings::{BuildSecret, Progress, SecretSource},
};

/// Buildx's name for the builder of the current context's engine. No other builder can have it.
pub const DEFAULT_BUILDER: &str = "default";

/// What to build, independent of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// An absolute path, as `context`: the command then means the same in any working directory.
    pub dockerfile: String,
    /// The Dockerfile's text; none if it cannot be read.
    pub dockerfile_text: Option<String>,
    /// The ignore file, where Podman would choose another one than BuildKit.
    pub ignore_file_for_podman: Option<String>,
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
    /// A stage that is not built, and the image in the store that replaces it.
    pub replaced_stage: Option<(&'static str, String)>,
    pub progress: Progress,
    /// A folder for the builder's caches, if the default one belongs to another user.
    pub tmpdir: Option<String>,
}

impl Build {
    /// The Dockerfile with the labels in one step; none if that is not possible.
    fn labelled(&self) -> Option<Labelled> {
        let text = self.dockerfile_text.as_ref()?;
        labelled(&self.dockerfile, text, &self.target, &self.labels)
    }

    /// Whether it builds for this platform and for no other.
    pub fn is_only_for(&self, platform: &Platform) -> bool {
        matches!(&self.platforms[..], [only] if only == platform)
    }

    /// The value of `--platform`: `linux/amd64,linux/arm64`.
    pub fn platform_list(&self) -> String {
        let platforms: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
        platforms.join(",")
    }
}

impl EngineFacts {
    /// Builds an image into the engine's store, under the build's references.
    pub fn build(&self, build: &Build) -> Cmd {
        let mut cmd = self.engine.cmd().arg("build");
        cmd = self.add_build_options(cmd, &self.with_build_platform(build));
        match self.engine.kind {
            // Another builder may be selected (`BUILDX_BUILDER`, `docker buildx use`), and would leave no image
            // in the engine's store.
            EngineKind::Docker => {
                let builder = EnvValue::Plain(DEFAULT_BUILDER.to_owned());
                cmd = cmd.env("BUILDX_BUILDER", builder);
            }
            EngineKind::Podman => {}
        }
        for reference in &build.references {
            cmd = cmd.args(["--tag", reference]);
        }
        cmd.arg(build.context.as_str())
    }

    /// Removes a name of an image. The image stays.
    pub fn untag(&self, reference: &str) -> Cmd {
        self.engine.cmd().args(["untag", reference, reference])
    }

    /// The step that runs the command of a build.
    pub fn build_step(&self, cmd: Cmd) -> Step {
        let mut step = Step::new(cmd, Output::Progress);
        step.passing_failures = match self.engine.kind {
            EngineKind::Docker => Vec::new(),
            // Buildah looks at all images of the store, and takes those of earlier steps from it. It fails if
            // another process removes one meanwhile.
            EngineKind::Podman => [CHANGED_MEANWHILE, &["image not known"]].concat(),
        };
        step
    }

    /// Adds the build argument `BUILDPLATFORM`. Buildah 1.28 does not set it, and stages for the build
    /// platform would be emulated. <https://github.com/containers/buildah/issues/4742>
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

    /// Adds the options that do not depend on the build's output.
    pub(super) fn add_build_options(&self, mut cmd: Cmd, build: &Build) -> Cmd {
        match self.engine.kind {
            EngineKind::Docker => {
                // If buildx is missing or broken, `docker build` silently uses the legacy builder, which
                // has no cache mounts and no TARGETARCH. With this variable it fails instead.
                cmd.env.insert(
                    0,
                    (
                        "DOCKER_BUILDKIT".to_owned(),
                        EnvValue::Plain("1".to_owned()),
                    ),
                );
                // BuildKit would add a provenance attestation to the index. It differs from build to build, and an
                // image with it has the OCI's media types, in which Podman cannot read the health check.
                // https://github.com/containers/podman/issues/18904
                cmd = cmd.env(
                    "BUILDX_NO_DEFAULT_ATTESTATIONS",
                    EnvValue::Plain("1".to_owned()),
                );
                if build.progress != Progress::Quiet {
                    cmd = cmd.args(["--progress", progress_word(build.progress)]);
                }
            }
            EngineKind::Podman => {
                // The OCI image format has no HEALTHCHECK. Buildah drops it, with a warning only if the
                // step is not cached. https://github.com/containers/buildah/issues/2388
                cmd = cmd.args(["--format", "docker"]);
                // Stages that do not depend on each other are built side by side, as BuildKit does, but only for the
                // engine's platform. For another one, stages pull the base image of two platforms under one name, and
                // a stage may then get the image that another stage has pulled (seen in 3 of 100 builds).
                if build.is_only_for(&self.platform) {
                    cmd = cmd.args(["--jobs", "0"]);
                }
                if let Some(file) = &build.ignore_file_for_podman {
                    cmd = cmd.args(["--ignorefile", file]);
                }
                if let Some(tmpdir) = &build.tmpdir {
                    cmd = cmd.env("TMPDIR", EnvValue::Plain(tmpdir.clone()));
                }
            }
        }
        if build.progress == Progress::Quiet {
            cmd = cmd.arg("--quiet");
        }
        let labelled = match self.engine.kind {
            EngineKind::Docker => None,
            EngineKind::Podman => build.labelled(),
        };
        let (dockerfile, target) = match &labelled {
            None => (build.dockerfile.as_str(), build.target.as_str()),
            Some(labelled) => ("-", labelled.target.as_str()),
        };
        cmd = cmd.args(["--file", dockerfile, "--platform", &build.platform_list()]);
        if !target.is_empty() {
            cmd = cmd.args(["--target", target]);
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
        if let Some((stage, image)) = &build.replaced_stage {
            let context = format!("{stage}=container-image://{image}");
            cmd = cmd.args(["--build-context", &context]);
        }
        for (name, value) in &build.args {
            cmd = cmd.args(["--build-arg", &format!("{name}={value}")]);
        }
        for secret in &build.secrets {
            cmd = cmd.args(["--secret", &secret_arg(secret)]);
        }
        match labelled {
            None => {
                for (name, value) in &build.labels {
                    cmd = cmd.args(["--label", &format!("{name}={value}")]);
                }
            }
            Some(labelled) => cmd.stdin = Some(labelled.dockerfile),
        }
        cmd
    }

    /// The host folder with the builder's cache mounts; none if the builder keeps them elsewhere.
    pub fn cache_folder(&self, tmpdir: Option<&str>, euid: u32) -> Option<PathBuf> {
        let name = match self.engine.kind {
            EngineKind::Docker => return None,
            EngineKind::Podman if self.location != Location::Host => return None,
            EngineKind::Podman if self.can(Capability::PerUserCacheFolder) => {
                format!("buildah-cache-{euid}")
            }
            EngineKind::Podman => "buildah-cache".to_owned(),
        };
        Some(Path::new(tmpdir.unwrap_or("/var/tmp")).join(name))
    }

    /// Runs a build only for its steps, such as checks. No image is left if the engine supports that.
    pub fn build_and_discard(&self, build: &Build) -> Cmd {
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

/// The value of `--secret`, which both engines accept. It has the variable's name, never its value.
fn secret_arg(secret: &BuildSecret) -> String {
    match &secret.source {
        SecretSource::File(file) => format!("id={},src={file}", secret.id),
        SecretSource::Env(name) => format!("id={},env={name}", secret.id),
    }
}
