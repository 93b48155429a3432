//! Makes one OCI archive of what engines write: BuildKit's OCI archives, `docker save`'s
//! archives, and the folders of `podman push … dir:`. Several become one index.
//!
//! Media types stay what they are: in an OCI manifest Podman sees no health check, so Podman's
//! are Docker's (<https://github.com/containers/podman/issues/18904>), as BuildKit's are with
//! `oci-mediatypes=false`.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;

use super::{
    Config, Descriptor, Hashing, Manifest,
    archive::{Archive, TarIndex, Writer},
    digest, media,
};
use crate::exec::Exec;

/// What can be packed.
enum Input {
    /// An OCI archive.
    Oci(Archive),
    /// `docker save`'s: a `manifest.json` names a configuration and layers.
    Docker(TarIndex),
    /// `dir:`: blobs by their bare digests, `manifest.json`, and for a list each manifest
    /// as `<digest>.manifest.json`.
    /// <https://github.com/containers/image/blob/main/docs/containers-transports.5.md>
    Folder(PathBuf),
}

impl Input {
    fn open(path: &Path) -> Result<Self> {
        if path.join("manifest.json").is_file() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let tar = TarIndex::open(path).with_context(|| {
            format!(
                "`{}` is neither an archive nor a folder of `podman push`",
                path.display()
            )
        })?;
        // An image of `docker save` is in both forms since Docker 25, with layers that are not
        // compressed in the classic store: the older form says where they are, the rest is ours.
        if tar.has("manifest.json") {
            Ok(Self::Docker(tar))
        } else {
            Archive::from_tar(tar).map(Self::Oci)
        }
    }

    /// Copies all blobs; the manifests that an index would list.
    fn copy(&self, exec: &Exec, writer: &mut Writer) -> Result<Vec<Descriptor>> {
        match self {
            Self::Oci(archive) => copy_oci(archive, writer),
            Self::Docker(tar) => copy_docker(exec, tar, writer).map(|one| vec![one]),
            Self::Folder(folder) => copy_folder(exec, folder, writer),
        }
    }
}

/// Packs the inputs into one archive.
///
/// # Errors
/// When an input cannot be read, two of them are for the same platform, or the archive cannot
/// be written.
pub fn pack(exec: &Exec, inputs: &[PathBuf], output: &Path) -> Result<Archive> {
    let opened = inputs
        .iter()
        .map(|path| Input::open(path))
        .collect::<Result<Vec<_>>>()?;
    let mut writer = Writer::create(output)?;
    if let [Input::Oci(archive)] = &opened[..] {
        // Its own index stays as it is, and so its digest.
        copy_oci(archive, &mut writer)?;
        let content = archive.read(&archive.root.digest)?;
        let root = writer.content(&archive.root.media_type, &content)?;
        return writer.finish(&root);
    }
    let mut manifests: Vec<Descriptor> = Vec::new();
    for (input, path) in opened.iter().zip(inputs) {
        for manifest in input.copy(exec, &mut writer)? {
            let twice = manifests
                .iter()
                .any(|other| !manifest.is_attestation() && other.platform == manifest.platform);
            if twice {
                bail!(
                    "`{}` holds a platform that another input holds too",
                    path.display()
                );
            }
            manifests.push(manifest);
        }
    }
    // The same set makes the same index, in whatever order it was handed in.
    manifests.sort_by_key(|one| {
        let platform = one.platform.clone().unwrap_or_default();
        (
            one.is_attestation(),
            platform.architecture,
            platform.os,
            one.digest.clone(),
        )
    });
    let root = match <[_; 1]>::try_from(manifests) {
        Ok([mut one]) => {
            one.platform = None;
            one
        }
        Err(manifests) => {
            let index = Manifest::index(manifests);
            writer.content(&index.media_type, &serde_json::to_vec(&index)?)?
        }
    };
    writer.finish(&root)
}

fn copy_oci(archive: &Archive, writer: &mut Writer) -> Result<Vec<Descriptor>> {
    let content = archive.read(&archive.root.digest)?;
    let root: Manifest = serde_json::from_slice(&content)?;
    let manifests = if root.is_index() {
        root.manifests
    } else {
        vec![archive.root.clone()]
    };
    let mut copied = Vec::new();
    for descriptor in manifests {
        let content = archive.read(&descriptor.digest)?;
        let manifest: Manifest = serde_json::from_slice(&content)?;
        for blob in manifest.children() {
            let (reader, size) = archive.reader(&blob.digest)?;
            writer.blob(&blob.digest, size, reader)?;
        }
        writer.blob(&descriptor.digest, content.len() as u64, &content[..])?;
        let config = match &manifest.config {
            Some(config) if descriptor.platform.is_none() => archive.read(&config.digest)?,
            _ => Vec::new(),
        };
        copied.push(listed(descriptor, &config));
    }
    Ok(copied)
}

/// A manifest as an index lists it: with the platform that its configuration tells.
fn listed(mut descriptor: Descriptor, config: &[u8]) -> Descriptor {
    if descriptor.platform.is_none()
        && let Ok(config) = serde_json::from_slice::<Config>(config)
    {
        descriptor.platform = Some(config.platform());
    }
    // Names within the archive it came from.
    if !descriptor.is_attestation() {
        descriptor.annotations = None;
    }
    descriptor
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

fn copy_docker(exec: &Exec, tar: &TarIndex, writer: &mut Writer) -> Result<Descriptor> {
    let saved: Vec<Saved> = serde_json::from_slice(&tar.read("manifest.json")?)
        .with_context(|| format!("`{}`: `manifest.json` cannot be read", tar.path.display()))?;
    let [saved] = &saved[..] else {
        bail!(
            "`{}` holds {} images, not one",
            tar.path.display(),
            saved.len()
        );
    };
    let mut layers = Vec::new();
    for name in &saved.layers {
        let mut magic = [0; 2];
        tar.reader(name)?.0.read_exact(&mut magic)?;
        let (reader, size) = tar.reader(name)?;
        let packed = magic == [0x1f, 0x8b];
        // Only the store that keeps layers compressed names them by their digest.
        let digest = if packed {
            let mut hashing = Hashing::new(tar.reader(name)?.0);
            io::copy(&mut hashing, &mut io::sink())?;
            hashing.digest()
        } else {
            String::new()
        };
        layers.push(Layer {
            descriptor: layer(digest, size),
            content: reader,
            packed,
        });
    }
    let (manifest, config) = write_image(exec, &tar.read(&saved.config)?, layers, writer)?;
    Ok(listed(manifest, &config))
}

/// A layer on its way into the archive.
struct Layer<R> {
    descriptor: Descriptor,
    content: R,
    packed: bool,
}

fn layer(digest: String, size: u64) -> Descriptor {
    Descriptor {
        media_type: media::DOCKER_LAYER.to_owned(),
        digest,
        size,
        ..Descriptor::default()
    }
}

/// Writes an image with a manifest of our own: layers compressed, as registries want them, and
/// nothing in the configuration that differs from build to build.
fn write_image<R: Read + Send + 'static>(
    exec: &Exec,
    config: &[u8],
    layers: Vec<Layer<R>>,
    writer: &mut Writer,
) -> Result<(Descriptor, Vec<u8>)> {
    let config = without_chance(config)?;
    // Side by side: compressing takes longest of all.
    let running: Vec<_> = layers
        .into_iter()
        .map(|layer| {
            if layer.packed {
                Ok((layer.descriptor, Packed::Already(layer.content)))
            } else {
                let mut gzip = exec.gzip(&["-n", "-6"], layer.content)?;
                let thread = thread::spawn(move || {
                    let mut content = Vec::new();
                    gzip.read_to_end(&mut content).map(|_| content)
                });
                Ok((layer.descriptor, Packed::Now(thread)))
            }
        })
        .collect::<Result<_>>()?;
    let mut descriptors = Vec::new();
    for (descriptor, packed) in running {
        descriptors.push(match packed {
            Packed::Already(content) => {
                writer.blob(&descriptor.digest, descriptor.size, content)?;
                descriptor
            }
            Packed::Now(thread) => {
                let content = thread
                    .join()
                    .map_err(|_| anyhow!("the thread that compresses a layer died"))??;
                writer.content(media::DOCKER_LAYER, &content)?
            }
        });
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: media::DOCKER_MANIFEST.to_owned(),
        config: Some(writer.content(media::DOCKER_CONFIG, &config)?),
        layers: descriptors,
        ..Manifest::default()
    };
    let manifest = writer.content(media::DOCKER_MANIFEST, &serde_json::to_vec(&manifest)?)?;
    Ok((manifest, config))
}

enum Packed<R> {
    Already(R),
    Now(thread::JoinHandle<io::Result<Vec<u8>>>),
}

/// Docker's configuration names the container in which the last step ran, and Buildah's history
/// the image that each step began with: others each time. No engine reads them.
fn without_chance(config: &[u8]) -> Result<Vec<u8>> {
    let mut config: serde_json::Value =
        serde_json::from_slice(config).context("the configuration cannot be read")?;
    if let Some(config) = config.as_object_mut() {
        for name in ["container", "container_config", "parent", "id"] {
            config.remove(name);
        }
        if let Some(run) = config.get_mut("config").and_then(|run| run.as_object_mut()) {
            for name in ["Hostname", "Image"] {
                run.remove(name);
            }
        }
        let history = config.get_mut("history").and_then(|all| all.as_array_mut());
        for step in history
            .into_iter()
            .flatten()
            .filter_map(|step| step.as_object_mut())
        {
            let comment = step.get("comment").and_then(|comment| comment.as_str());
            if comment.is_some_and(|comment| comment.starts_with("FROM ")) {
                step.remove("comment");
            }
        }
    }
    Ok(serde_json::to_vec(&config)?)
}

fn copy_folder(exec: &Exec, folder: &Path, writer: &mut Writer) -> Result<Vec<Descriptor>> {
    let read = |name: &str| {
        fs::read(folder.join(name))
            .with_context(|| format!("cannot read `{}`", folder.join(name).display()))
    };
    let content = read("manifest.json")?;
    let root: Manifest = serde_json::from_slice(&content)?;
    let manifests = if root.is_index() {
        let each = root.manifests.iter().map(|one| {
            let content = read(&format!("{}.manifest.json", bare(&one.digest)))?;
            if digest(&content) != one.digest {
                bail!(
                    "`{}`: the content of {} is another",
                    folder.display(),
                    one.digest
                );
            }
            Ok(serde_json::from_slice(&content)?)
        });
        each.collect::<Result<Vec<Manifest>>>()?
    } else {
        vec![root]
    };
    let mut copied = Vec::new();
    for manifest in manifests {
        let config = manifest.config.context("a manifest has no configuration")?;
        let mut layers = Vec::new();
        for descriptor in manifest.layers {
            let path = folder.join(bare(&descriptor.digest));
            let content =
                File::open(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            layers.push(Layer {
                packed: descriptor.media_type.ends_with("gzip"),
                descriptor,
                content,
            });
        }
        let (manifest, config) = write_image(exec, &read(bare(&config.digest))?, layers, writer)?;
        copied.push(listed(manifest, &config));
    }
    Ok(copied)
}

fn bare(digest: &str) -> &str {
    digest.split_once(':').map_or(digest, |(_, hex)| hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive with one image of a platform.
    fn image(path: &Path, arch: &str) {
        let mut writer = Writer::create(path).unwrap();
        let config = format!(r#"{{"architecture":"{arch}","os":"linux"}}"#);
        let config = writer
            .content(media::DOCKER_CONFIG, config.as_bytes())
            .unwrap();
        let layer = writer
            .content(media::DOCKER_LAYER, arch.as_bytes())
            .unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.to_owned(),
            config: Some(config),
            layers: vec![layer],
            ..Manifest::default()
        };
        let content = serde_json::to_vec(&manifest).unwrap();
        let root = writer.content(media::DOCKER_MANIFEST, &content).unwrap();
        writer.finish(&root).unwrap();
    }

    fn platforms(archive: &Archive) -> Vec<String> {
        let content = archive.read(&archive.root.digest).unwrap();
        let index: Manifest = serde_json::from_slice(&content).unwrap();
        let platform = |one: Descriptor| one.platform.unwrap().normal().to_string();
        index.manifests.into_iter().map(platform).collect()
    }

    #[test]
    fn shards_become_one_index_in_whatever_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        image(&at("amd64"), "amd64");
        image(&at("arm64"), "arm64");
        let one = pack(&Exec::silent(), &[at("amd64"), at("arm64")], &at("one")).unwrap();
        let other = pack(&Exec::silent(), &[at("arm64"), at("amd64")], &at("other")).unwrap();
        assert_eq!(platforms(&one), ["linux/amd64", "linux/arm64"]);
        assert_eq!(one.root, other.root);
        assert_eq!(one.root.media_type, media::DOCKER_INDEX);

        // Packed once more, it is the same.
        let again = pack(&Exec::silent(), &[at("one")], &at("again")).unwrap();
        assert_eq!(again.root, one.root);
        assert_eq!(platforms(&again), platforms(&one));

        let error = pack(&Exec::silent(), &[at("amd64"), at("one")], &at("x")).unwrap_err();
        assert!(
            error.to_string().contains("another input holds too"),
            "{error}"
        );
    }

    #[test]
    fn two_images_for_one_platform_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        image(&at("a"), "amd64");
        let mut writer = Writer::create(&at("b")).unwrap();
        let config = br#"{"architecture":"amd64","os":"linux","x":1}"#;
        let config = writer.content(media::DOCKER_CONFIG, config).unwrap();
        let manifest = Manifest {
            schema_version: 2,
            config: Some(config),
            ..Manifest::default()
        };
        let content = serde_json::to_vec(&manifest).unwrap();
        let root = writer.content(media::DOCKER_MANIFEST, &content).unwrap();
        writer.finish(&root).unwrap();
        let error = pack(&Exec::silent(), &[at("a"), at("b")], &at("c")).unwrap_err();
        assert!(
            error.to_string().contains("another input holds too"),
            "{error}"
        );
        assert!(!at("c").exists());
    }

    #[test]
    fn a_saved_images_layers_are_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut tar = tar::Builder::new(File::create(at("saved.tar")).unwrap());
        let mut add = |name: &str, content: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, content).unwrap();
        };
        add("c.json", br#"{"architecture":"amd64","os":"linux"}"#);
        add("l/layer.tar", &vec![7; 100_000]);
        add(
            "manifest.json",
            br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]"#,
        );
        tar.into_inner().unwrap();
        let archive = pack(&Exec::silent(), &[at("saved.tar")], &at("a")).unwrap();
        let content = archive.read(&archive.root.digest).unwrap();
        let manifest: Manifest = serde_json::from_slice(&content).unwrap();
        let layer = &manifest.layers[0];
        assert!(layer.size < 1000, "{}", layer.size);
        let (reader, _) = archive.reader(&layer.digest).unwrap();
        let mut text = Vec::new();
        Exec::silent()
            .gzip(&["-dc"], reader)
            .unwrap()
            .read_to_end(&mut text)
            .unwrap();
        assert_eq!(text, vec![7; 100_000]);
    }

    #[test]
    fn podmans_folders_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
        let config = br#"{"architecture":"arm64","container":"5eb3","history":[{"comment":"FROM 5eb3","created_by":"x"}],"os":"linux","variant":"v8"}"#;
        let config_is = Descriptor::of(media::DOCKER_CONFIG, config);
        write(bare(&config_is.digest), config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.to_owned(),
            config: Some(config_is),
            ..Manifest::default()
        };
        let content = serde_json::to_vec(&manifest).unwrap();
        let one = Descriptor::of(media::DOCKER_MANIFEST, &content);
        write(&format!("{}.manifest.json", bare(&one.digest)), &content);
        let list = Manifest::index(vec![one.clone()]);
        write("manifest.json", &serde_json::to_vec(&list).unwrap());
        let output = folder.path().join("out/a.tar");
        let archive = pack(&Exec::silent(), &[folder.path().to_owned()], &output).unwrap();
        let content = archive.read(&archive.root.digest).unwrap();
        let manifest: Manifest = serde_json::from_slice(&content).unwrap();
        assert_eq!(manifest.layers.len(), 0);
        let config = archive.read(&manifest.config.unwrap().digest).unwrap();
        assert_eq!(
            String::from_utf8(config).unwrap(),
            r#"{"architecture":"arm64","history":[{"created_by":"x"}],"os":"linux","variant":"v8"}"#,
            "what differs from build to build is gone"
        );

        write(&format!("{}.manifest.json", bare(&one.digest)), b"{}");
        let error = pack(&Exec::silent(), &[folder.path().to_owned()], &output).unwrap_err();
        assert!(error.to_string().contains("is another"), "{error}");
    }
}
