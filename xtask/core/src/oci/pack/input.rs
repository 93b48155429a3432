//! The kinds of input.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{docker_save, image::Image, oci_archive, podman_folder};
use crate::oci::{archive::Archive, stop::StopCheck, tar_index::TarIndex};

/// An image, or several, as an engine wrote it.
pub enum Input {
    OciArchive(Archive),
    /// Of `docker save`.
    DockerSave(TarIndex),
    /// Of `podman push … dir:`.
    PodmanFolder(PathBuf),
}

impl Input {
    pub fn open(path: &Path) -> Result<Self> {
        if path.join("manifest.json").is_file() {
            return Ok(Self::PodmanFolder(path.to_owned()));
        }
        let tar = TarIndex::open(path).with_context(|| {
            format!(
                "`{}` is neither an archive nor a folder of `podman push`",
                path.display()
            )
        })?;
        // Since Docker 25, `docker save` writes both formats into one file. Its OCI manifest may
        // have uncompressed layers, so the older format is read, and a new manifest written.
        if tar.has("manifest.json") {
            Ok(Self::DockerSave(tar))
        } else {
            Archive::from_tar(tar).map(Self::OciArchive)
        }
    }

    /// The images and attestations in it. The timestamp replaces the times in them.
    pub fn images(&self, timestamp: Option<u64>, stop: StopCheck) -> Result<Vec<Image>> {
        match self {
            Self::OciArchive(archive) => oci_archive::images(archive, timestamp),
            Self::DockerSave(tar) => Ok(vec![docker_save::image(tar, timestamp, stop)?]),
            Self::PodmanFolder(folder) => podman_folder::images(folder, timestamp),
        }
    }
}
