//! What an engine reports about an image, and the commands that act on images.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    base::{engine_kind::EngineKind, image::Repository},
    engine::{
        Engine,
        container::{Container, Healthcheck},
        detect::require_answer,
        label,
    },
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// An image, as both engines describe it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    pub id: String,
    pub architecture: String,
    pub os: String,
    pub repo_tags: Option<Vec<String>>,
    pub config: ImageConfig,
    /// Podman's field; Docker uses `Config.Healthcheck`.
    healthcheck: Option<Healthcheck>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    pub user: String,
    pub env: Option<Vec<String>>,
    pub entrypoint: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    on_build: Option<Vec<String>>,
    healthcheck: Option<Healthcheck>,
}

impl ImageConfig {
    /// Whether builds that start from the image run its `ONBUILD` instructions.
    pub fn has_triggers(&self) -> bool {
        self.on_build.as_ref().is_some_and(|all| !all.is_empty())
    }
}

impl Image {
    /// The command of the image's health check.
    pub fn health_command(&self) -> Option<Vec<String>> {
        self.config
            .healthcheck
            .as_ref()
            .or(self.healthcheck.as_ref())?
            .command()
    }

    /// Whether the engine has it under this reference, which is complete: `docker.io/library/python:3.11-slim`.
    pub fn has_tag(&self, reference: &str) -> bool {
        self.repo_tags.iter().flatten().any(|tag| tag == reference)
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether a container was made from this image.
    pub fn is_image_of(&self, container: &Container) -> bool {
        !self.id.is_empty() && container.image_id() == self.id.trim_start_matches("sha256:")
    }

    pub fn is_built_by_xtask(&self) -> bool {
        self.label(label::IMAGE).is_some()
    }

    pub fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    /// The id's first 12 characters, as engines print it.
    pub fn short_id(&self) -> &str {
        let id = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        id.get(..12).unwrap_or(id)
    }
}

/// How long `image inspect` may take.
pub const INSPECT_LIMIT: Duration = Duration::from_secs(10);

/// What an engine prints if another process adds or removes an image while it reads its store. It answers the
/// same question a moment later.
pub const CHANGED_MEANWHILE: &[&str] = &[
    // Podman, which reads its store in several steps.
    "locating image with ID",
    "locating item named",
    "layer not known",
    "identifier is not a layer",
    "identifier is not an image",
    "identifier is not a container",
    "size is not known",
    // Docker with containerd's store.
    "content digest sha256:",
    "data changed during operation",
];

/// Whether the engine should be asked again, because its store changed while it read it. If one of several images was
/// removed, Podman prints none of them, and names only that one.
pub fn is_changed_meanwhile(answer: &Result<Finished, NoAnswer>) -> bool {
    let Ok(finished) = answer else {
        return false;
    };
    let has = |text: &&str| finished.stderr.contains(*text);
    !finished.ok() && CHANGED_MEANWHILE.iter().any(has)
}

/// Inspects images by reference or id. The command has no template: Podman's `{{json .}}` prints an array
/// for images and an object for containers. Without a template, every answer is an array.
pub fn inspect_cmd<S: AsRef<str>>(program: &str, references: &[S]) -> Cmd {
    Cmd::new(program)
        .args(["image", "inspect"])
        .args(references.iter().map(AsRef::as_ref))
}

/// Reads the answer to [`inspect_cmd`]: the images that exist. An engine also prints these if others are
/// missing.
///
/// # Errors
/// The reason why the engine did not answer, as a predicate whose subject is the program.
pub fn read_inspect(answer: &Result<Finished, NoAnswer>) -> Result<Vec<Image>, String> {
    let finished = require_answer(answer)?;
    if finished.ok() {
        return read_images(&finished.stdout);
    }
    if is_changed_meanwhile(answer) {
        return Err(format!(
            "gives no answer while other programs change its images: {}",
            finished.first_error_line()
        ));
    }
    let stderr = finished.stderr.to_lowercase();
    // Docker: `No such image: x`; Podman: `x: image not known`, older: `failed to find image x`.
    let missing = [
        "no such image",
        "image not known",
        "failed to find image",
        "unable to find",
    ];
    if missing.iter().any(|text| stderr.contains(text)) {
        // Podman prints an empty list or nothing.
        match finished.stdout.trim() {
            "" => Ok(Vec::new()),
            found => read_images(found),
        }
    } else {
        Err(format!("does not answer: {}", finished.first_error_line()))
    }
}

impl Engine {
    /// Lists the ids of the images that xtask built for a repository. An image with several tags is
    /// listed once for each.
    pub fn list_images(&self, repository: &Repository) -> Cmd {
        let ours = format!("label={}={}", label::IMAGE, repository.as_str());
        self.cmd()
            .args(["image", "ls", "--no-trunc", "--filter", &ours])
            .args(["--format", "{{.ID}}"])
    }

    /// Lists the references of a repository, including those of manifest lists; none if the engine
    /// has no manifest lists. It does not filter by label, because Podman then fails if it cannot
    /// read a list.
    pub fn list_references(&self, repository: &str) -> Option<Cmd> {
        match self.kind {
            EngineKind::Docker => None,
            EngineKind::Podman => Some(self.cmd().args([
                "image",
                "ls",
                "--filter",
                &format!("reference={repository}"),
                "--format",
                "{{.Repository}}:{{.Tag}}",
            ])),
        }
    }

    /// Succeeds if the reference names a manifest list.
    pub fn is_manifest_list(&self, reference: &str) -> Cmd {
        self.cmd().args(["manifest", "exists", reference])
    }

    /// Removes a tag of a manifest list, and the list if this was its last tag. `image rm` would take the list's
    /// image for this machine instead.
    pub fn remove_manifest_list(&self, reference: &str) -> Cmd {
        self.cmd().args(["manifest", "rm", reference])
    }

    /// Removes a tag, and the image if this was its last tag. It never uses `--force`: Podman would also
    /// remove the containers that use the image, even running ones.
    pub fn remove_image(&self, reference: &str) -> Cmd {
        self.cmd().args(["image", "rm", reference])
    }

    pub fn pull(&self, reference: &str) -> Cmd {
        self.cmd().args(["pull", reference])
    }

    /// Lists the commands that created the image's layers, one a line.
    pub fn history(&self, reference: &str) -> Cmd {
        self.cmd().args([
            "history",
            "--no-trunc",
            "--format",
            "{{.CreatedBy}}",
            reference,
        ])
    }
}

/// Reads the output of `image inspect`.
///
/// # Errors
/// When the output is not a list of images.
fn read_images(text: &str) -> Result<Vec<Image>, String> {
    serde_json::from_str(text.trim())
        .map_err(|error| format!("answers in an unknown format: {error}"))
}

/// Reads the answer to [`Engine::list_images`], without duplicates. It skips other lines, such as warnings.
pub fn read_image_ids(text: &str) -> BTreeSet<String> {
    let is_id = |id: &&str| {
        let digits = id.strip_prefix("sha256:").unwrap_or(id);
        !digits.is_empty() && digits.chars().all(|c| c.is_ascii_hexdigit())
    };
    text.lines()
        .map(str::trim)
        .filter(is_id)
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::finished::answer;

    #[test]
    fn each_engines_health_check_is_read() {
        let docker: Image = serde_json::from_str(
            r#"{"Id":"sha256:0123456789abcdef","Config":{"Healthcheck":{"Test":["CMD","check"]}}}"#,
        )
        .unwrap();
        assert_eq!(docker.health_command().unwrap(), ["check"]);
        assert_eq!(docker.short_id(), "0123456789ab");
        let podman: Image = serde_json::from_str(
            r#"{"Id":"0123456789abcdef","Config":{},"Healthcheck":{"Test":["CMD","check"]}}"#,
        )
        .unwrap();
        assert_eq!(podman.health_command().unwrap(), ["check"]);
    }

    #[test]
    fn a_missing_image_is_not_an_error() {
        for stderr in [
            "Error response from daemon: No such image: x:1\n",
            "Error: inspecting object: x:1: image not known\n",
            "Error: x:1: image not known\n",
        ] {
            let missing = answer(1, "[]\n", stderr);
            assert_eq!(read_inspect(&missing), Ok(Vec::new()), "{stderr}");
        }
        let one_of_two = answer(
            1,
            r#"[{"Id":"x"}]"#,
            "Error response from daemon: No such image: x:2\n",
        );
        assert_eq!(read_inspect(&one_of_two).unwrap()[0].id, "x");
        let down = answer(1, "", "Cannot connect");
        assert!(read_inspect(&down).is_err());
    }

    #[test]
    fn ids_are_read() {
        let ids = read_image_ids("sha256:2\nsha256:1\nsha256:2\n\na warning\n");
        assert_eq!(Vec::from_iter(ids), ["sha256:1", "sha256:2"]);
    }
}
