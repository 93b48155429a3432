//! Packs what engines write into one OCI archive: BuildKit's OCI archives, the archives of
//! `docker save`, and the folders of `podman push … dir:`. Several images become one index.
//!
//! The format of the manifests stays. BuildKit and Podman are asked for Docker's, because Podman sees no health check in
//! an OCI manifest (<https://github.com/containers/podman/issues/18904>).
//!
//! An index has the images' labels as annotations, because registries show nothing else of an image for
//! several platforms.

mod cache;
mod config;
mod docker_save;
mod image;
mod input;
mod layer;
mod oci_archive;
mod output;
mod podman_folder;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

pub use self::cache::LayerCache;
use self::{image::Image, input::Input, output::Output};
use super::{
    archive::Archive,
    manifest::{Descriptor, Manifest},
    media_type,
    stop::StopCheck,
};

/// Packs the inputs into one archive. The timestamp, in seconds since 1970, replaces the times of files (see
/// [`super::layer_times`]) and those in the configuration. OCI archives stay as they are without it; with it, the layers
/// of the base image do.
///
/// # Errors
/// When an input cannot be read, or has an attestation although a timestamp is given; when two
/// inputs are for the same platform; when the archive cannot be written, or the check stops it.
pub fn pack(
    inputs: &[PathBuf],
    timestamp: Option<u64>,
    output: &Path,
    cache: &LayerCache,
    stop: StopCheck,
) -> Result<Archive> {
    let opened = inputs
        .iter()
        .map(|path| Input::open(path))
        .collect::<Result<Vec<_>>>()?;
    let mut images = Vec::new();
    for (input, path) in opened.iter().zip(inputs) {
        let read = input.images(timestamp, stop)?;
        images.extend(read.into_iter().map(|image| (image, path.as_path())));
    }
    let unchanged = unchanged_index(&opened, &images);
    if unchanged.is_none() {
        refuse_two_for_a_platform(&images)?;
    }
    let mut output = Output::create(output, cache, stop)?;
    let images = images.into_iter().map(|(image, _)| image);
    let mut manifests = output.write(images.collect())?;
    if let Some(archive) = unchanged {
        let content = archive.read(&archive.root.digest)?;
        let root = output.add(&archive.root.media_type, &content)?;
        return output.finish(&root);
    }
    sort(&mut manifests);
    let root = match <[_; 1]>::try_from(manifests) {
        Ok([mut single]) => {
            single.platform = None;
            single
        }
        Err(manifests) => {
            let index = Manifest::index(manifests, output.annotations());
            output.add(&index.media_type, &serde_json::to_vec(&index)?)?
        }
    };
    output.finish(&root)
}

/// The only input, if the archive gets its index or manifest as it is, so that its digest stays the same. Docker's
/// manifest list always becomes an OCI index with annotations.
fn unchanged_index<'a>(inputs: &'a [Input], images: &[(Image, &Path)]) -> Option<&'a Archive> {
    match inputs {
        [Input::OciArchive(archive)] => {
            let is_list = archive.root.media_type == media_type::DOCKER_INDEX;
            let is_kept = images.iter().all(|(image, _)| image.is_kept());
            (!is_list && is_kept).then_some(archive)
        }
        _ => None,
    }
}

/// # Errors
/// When two images, with the paths of their inputs, are for the same platform.
fn refuse_two_for_a_platform(images: &[(Image, &Path)]) -> Result<()> {
    let mut platforms = Vec::new();
    for (image, path) in images
        .iter()
        .filter(|(image, _)| image.attestation().is_none())
    {
        if platforms.contains(&&image.platform) {
            let platform = image.platform.clone().unwrap_or_default();
            bail!(
                "there is a second image for {} in `{}`: pack one image for each platform",
                platform.normalized(),
                path.display()
            );
        }
        platforms.push(&image.platform);
    }
    Ok(())
}

/// The order of manifests in an index depends on the manifests alone, not on the order of the
/// inputs, so that the digest does not either.
fn sort(manifests: &mut [Descriptor]) {
    manifests.sort_by_key(|one| {
        let platform = one.platform.clone().unwrap_or_default();
        (
            one.is_attestation(),
            platform.architecture,
            platform.os,
            one.digest.clone(),
        )
    });
}

#[cfg(test)]
mod tests;
