//! An image's facts, and the commands on images.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::{
    base::image::Repository,
    engine::{Engine, container::Healthcheck, detect::answered, is_name, label},
    exec::{Finished, NoAnswer},
    plan::Cmd,
};

/// What both engines say of an image.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct Image {
    pub id: String,
    pub architecture: String,
    pub os: String,
    pub repo_tags: Option<Vec<String>>,
    pub size: u64,
    pub config: ImageConfig,
    /// Podman's own place for it; Docker has it in `Config`.
    healthcheck: Option<Healthcheck>,
    graph_driver: Option<GraphDriver>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    pub user: String,
    pub env: Option<Vec<String>>,
    pub labels: Option<BTreeMap<String, String>>,
    pub volumes: Option<BTreeMap<String, serde_json::Value>>,
    healthcheck: Option<Healthcheck>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase", default)]
struct GraphDriver {
    name: String,
    data: Option<serde_json::Value>,
}

/// What the size that an engine tells counts: they mean different things by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeMeans {
    /// What would be downloaded (Docker's containerd image store).
    Compressed,
    /// What the files take (Docker's classic store, Podman).
    Unpacked,
}

impl Image {
    /// The image's own health check.
    pub fn health_command(&self) -> Option<Vec<String>> {
        self.config
            .healthcheck
            .as_ref()
            .or(self.healthcheck.as_ref())?
            .command()
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// Whether xtask built it.
    pub fn is_ours(&self) -> bool {
        self.label(label::IMAGE).is_some()
    }

    pub fn platform(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }

    /// The first characters of the id, as engines show it.
    pub fn short_id(&self) -> &str {
        let id = self.id.strip_prefix("sha256:").unwrap_or(&self.id);
        id.get(..12).unwrap_or(id)
    }

    pub fn size_means(&self) -> SizeMeans {
        // With the containerd store there is no graph driver to tell data of.
        match &self.graph_driver {
            Some(GraphDriver { data: Some(_), .. }) => SizeMeans::Unpacked,
            Some(GraphDriver { data: None, .. }) | None => SizeMeans::Compressed,
        }
    }
}

/// How long an engine may take to describe images.
pub const INSPECT_LIMIT: Duration = Duration::from_secs(10);

/// Asks for images by reference or id. It uses no template: Podman's `{{json .}}` is an array
/// for images and an object for containers, while the plain answer is an array everywhere.
pub fn inspect_cmd<S: AsRef<str>>(program: &str, references: &[S]) -> Cmd {
    Cmd::new(program)
        .args(["image", "inspect"])
        .args(references.iter().map(AsRef::as_ref))
}

/// Reads the answer to [`inspect_cmd`]: the images that the engine has. Where one is missing,
/// the others are told all the same.
///
/// # Errors
/// Why there is no answer.
pub fn read_inspect(answer: &Result<Finished, NoAnswer>) -> Result<Vec<Image>, String> {
    let finished = answered(answer)?;
    if finished.ok() {
        return read_images(&finished.stdout);
    }
    let complaint = finished.stderr.to_lowercase();
    // Docker: `No such image: x`; Podman: `x: image not known`, older: `failed to find image x`.
    let missing = [
        "no such image",
        "image not known",
        "failed to find image",
        "unable to find",
    ];
    if missing.iter().any(|text| complaint.contains(text)) {
        // Podman prints an empty list or nothing at all.
        match finished.stdout.trim() {
            "" => Ok(Vec::new()),
            found => read_images(found),
        }
    } else {
        Err(format!("does not answer: {}", finished.complaint()))
    }
}

/// A local image of ours, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// `repository:tag`; none for an image that lost its tag to a newer build.
    pub reference: Option<String>,
    pub id: String,
}

impl Engine {
    /// Lists the images that were built here for a repository, one `repository:tag id` a line.
    pub fn list_images(&self, repository: &Repository) -> Cmd {
        let ours = format!("label={}={}", label::IMAGE, repository.as_str());
        self.cmd()
            .args(["image", "ls", "--no-trunc", "--filter", &ours])
            .args(["--format", "{{.Repository}}:{{.Tag}} {{.ID}}"])
    }

    /// Removes one tag, and the image with its last one. Never `--force`: with it Podman
    /// removes the containers that use the image, running ones too.
    pub fn remove_image(&self, reference: &str) -> Cmd {
        self.cmd().args(["image", "rm", reference])
    }

    /// Downloads an image, with progress.
    pub fn pull(&self, reference: &str) -> Cmd {
        self.cmd().args(["pull", reference])
    }

    /// How each layer was made, one command a line.
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

/// What an `image inspect` prints.
///
/// # Errors
/// When it cannot be read.
fn read_images(text: &str) -> Result<Vec<Image>, String> {
    serde_json::from_str(text.trim())
        .map_err(|error| format!("answers what cannot be read: {error}"))
}

/// Reads [`Engine::list_images`]. A line that is something else, such as a warning, names no image.
pub fn read_list(text: &str) -> Vec<Listed> {
    text.lines()
        .filter_map(|line| line.trim().split_once(' '))
        .filter(|(reference, id)| is_name(reference) && is_name(id))
        .map(|(reference, id)| Listed {
            reference: (!reference.contains("<none>")).then(|| reference.to_owned()),
            id: id.to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::finished::answer;

    #[test]
    fn the_health_check_is_found_in_both_engines_places() {
        let docker: Image = serde_json::from_str(
            r#"{"Id":"sha256:0123456789abcdef","Config":{"Healthcheck":{"Test":["CMD","check"]}},"GraphDriver":{"Name":"overlay2","Data":{"MergedDir":"x"}},"Size":5}"#,
        )
        .unwrap();
        assert_eq!(docker.health_command().unwrap(), ["check"]);
        assert_eq!(docker.size_means(), SizeMeans::Unpacked);
        assert_eq!(docker.short_id(), "0123456789ab");
        let podman: Image = serde_json::from_str(
            r#"{"Id":"0123456789abcdef","Config":{},"Healthcheck":{"Test":["CMD","check"]},"GraphDriver":{"Name":"overlay","Data":{}}}"#,
        )
        .unwrap();
        assert_eq!(podman.health_command().unwrap(), ["check"]);
        let containerd: Image =
            serde_json::from_str(r#"{"Id":"x","GraphDriver":{"Name":"overlayfs","Data":null}}"#)
                .unwrap();
        assert_eq!(containerd.size_means(), SizeMeans::Compressed);
    }

    #[test]
    fn a_missing_image_is_an_answer() {
        for stderr in [
            "Error response from daemon: No such image: x:1\n",
            "Error: inspecting object: x:1: image not known\n",
            "Error: x:1: image not known\n",
        ] {
            let said = answer(1, "[]\n", stderr);
            assert_eq!(read_inspect(&said), Ok(Vec::new()), "{stderr}");
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
    fn lists_are_read() {
        let list = read_list("ghcr.io/a/b:1 sha256:1\n<none>:<none> sha256:2\n\n");
        assert_eq!(list[0].reference.as_deref(), Some("ghcr.io/a/b:1"));
        assert_eq!(
            (list[1].reference.as_ref(), list[1].id.as_str()),
            (None, "sha256:2")
        );
    }
}
