//! The kinds of input.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{docker_save, oci_archive, output::Output, podman_folder};
use crate::oci::{archive::Archive, manifest::Descriptor, tar_index::TarIndex};

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

    /// Copies all images, and returns the descriptors of their manifests for an index.
    pub fn copy(&self, output: &mut Output) -> Result<Vec<Descriptor>> {
        match self {
            Self::OciArchive(archive) => oci_archive::copy(archive, output),
            Self::DockerSave(tar) => docker_save::copy(tar, output).map(|image| vec![image]),
            Self::PodmanFolder(folder) => podman_folder::copy(folder, output),
        }
    }
}
