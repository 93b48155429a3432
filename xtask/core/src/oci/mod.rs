//! Images as files: the manifests, configurations and layers of the OCI's image format and of
//! Docker's older one, which differ in names only.
//! <https://github.com/opencontainers/image-spec>
//!
//! Nothing here knows engines, settings, processes or registries. The caller opens the streams.

pub mod archive;
pub mod archive_writer;
mod compression;
pub mod digest;
pub mod filesystem;
pub mod gzip;
pub mod image_config;
pub mod layer;
pub mod layer_times;
pub mod manifest;
pub mod media_type;
pub mod pack;
pub mod packages;
pub mod source;
pub mod stop;
pub mod tar_index;
pub mod verify;
