//! The media types of manifests, configurations and layers.

use super::compression::Compression;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// All media types of manifests and indexes, for the `Accept` header.
pub const MANIFESTS: &[&str] = &[OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST];

/// That of a layer in an archive of `docker save`. The one for zstd is in no standard.
pub fn docker_layer(compression: Compression) -> String {
    let tar = "application/vnd.docker.image.rootfs.diff.tar";
    match compression {
        Compression::None => tar.to_owned(),
        Compression::Gzip => format!("{tar}.gzip"),
        Compression::Zstd => format!("{tar}.zstd"),
    }
}

/// That of a layer compressed with gzip, in an image with a manifest of this media type.
pub fn gzip_layer(manifest: &str) -> &'static str {
    if manifest == OCI_MANIFEST {
        OCI_LAYER
    } else {
        DOCKER_LAYER
    }
}
