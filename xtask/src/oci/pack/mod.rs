//! Packs what engines write into one OCI archive: BuildKit's OCI archives, the archives of
//! `docker save`, and the folders of `podman push … dir:`. Several images become one index.
//!
//! Media types are kept. Podman's images stay in Docker's format, because Podman sees no health
//! check in an OCI manifest (<https://github.com/containers/podman/issues/18904>). BuildKit writes
//! Docker's format with `oci-mediatypes=false`.
//!
//! An index has the images' labels as annotations, because registries show nothing else of an image for
//! several platforms.

mod config;
mod docker_save;
mod input;
mod layer;
mod oci_archive;
mod output;
mod podman_folder;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use self::{input::Input, output::Output};
use super::{
    archive::Archive,
    manifest::{Descriptor, Manifest},
    media_type,
    stop::StopCheck,
};

/// Packs the inputs into one archive. The timestamp, in seconds since 1970, replaces the times of
/// all files, and those in the configuration.
///
/// # Errors
/// When an input cannot be read, or is an OCI archive although a timestamp is given; when two
/// inputs are for the same platform; when the archive cannot be written, or the check stops it.
pub fn pack(
    inputs: &[PathBuf],
    timestamp: Option<u64>,
    output: &Path,
    stop: StopCheck,
) -> Result<Archive> {
    let opened = inputs
        .iter()
        .map(|path| Input::open(path))
        .collect::<Result<Vec<_>>>()?;
    for (input, path) in opened.iter().zip(inputs) {
        if let (Input::OciArchive(_), Some(_)) = (input, timestamp) {
            bail!(
                "`{}` is an OCI archive, and its times were set when it was built: leave out \
                 `--timestamp`, and set `SOURCE_DATE_EPOCH` for the build instead",
                path.display()
            );
        }
    }
    let mut output = Output::create(output, timestamp, stop)?;
    if let [Input::OciArchive(archive)] = &opened[..]
        && archive.root.media_type != media_type::DOCKER_INDEX
    {
        // The index is copied as it is, so that its digest stays the same. Docker's manifest list is not: below, it
        // becomes an OCI index with annotations.
        oci_archive::copy(archive, &mut output)?;
        let content = archive.read(&archive.root.digest)?;
        let root = output.add(&archive.root.media_type, &content)?;
        return output.finish(&root);
    }
    let mut manifests: Vec<Descriptor> = Vec::new();
    for (input, path) in opened.iter().zip(inputs) {
        for manifest in input.copy(&mut output)? {
            reject_second(&manifests, &manifest, path)?;
            manifests.push(manifest);
        }
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

/// Refuses a second image for the same platform.
fn reject_second(manifests: &[Descriptor], manifest: &Descriptor, path: &Path) -> Result<()> {
    let same = |other: &Descriptor| other.platform == manifest.platform;
    if !manifest.is_attestation() && manifests.iter().any(same) {
        let platform = manifest.platform.clone().unwrap_or_default().normalized();
        bail!(
            "`{}` is for {platform}, and another input is too: pack one image for each platform",
            path.display()
        );
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
