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
    digest, media, timestamps,
};
use crate::exec::{Exec, Piped};

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
    fn copy(
        &self,
        exec: &Exec,
        timestamp: Option<u64>,
        writer: &mut Writer,
    ) -> Result<Vec<Descriptor>> {
        match self {
            Self::Oci(archive) => copy_oci(archive, writer),
            Self::Docker(tar) => copy_docker(exec, tar, timestamp, writer).map(|one| vec![one]),
            Self::Folder(folder) => copy_folder(exec, folder, timestamp, writer),
        }
    }
}

/// Packs the inputs into one archive. With a timestamp, in seconds since 1970, it is every file's
/// and every step's time.
///
/// # Errors
/// When an input cannot be read, or is an OCI archive and a timestamp is given; two of them are for
/// the same platform, or the archive cannot be written.
pub fn pack(
    exec: &Exec,
    inputs: &[PathBuf],
    timestamp: Option<u64>,
    output: &Path,
) -> Result<Archive> {
    let opened = inputs
        .iter()
        .map(|path| Input::open(path))
        .collect::<Result<Vec<_>>>()?;
    for (input, path) in opened.iter().zip(inputs) {
        if let (Input::Oci(_), Some(_)) = (input, timestamp) {
            bail!(
                "`{}` is an OCI archive, which keeps the times that it was built with: set them \
                 there, and leave `--timestamp` away",
                path.display()
            );
        }
    }
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
        for manifest in input.copy(exec, timestamp, &mut writer)? {
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

fn copy_docker(
    exec: &Exec,
    tar: &TarIndex,
    timestamp: Option<u64>,
    writer: &mut Writer,
) -> Result<Descriptor> {
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
    let (manifest, config) =
        write_image(exec, &tar.read(&saved.config)?, layers, timestamp, writer)?;
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
    timestamp: Option<u64>,
    writer: &mut Writer,
) -> Result<(Descriptor, Vec<u8>)> {
    let mut config = without_chance(config)?;
    // Side by side: compressing takes longest of all.
    let running: Vec<_> = layers
        .into_iter()
        .map(|layer| Ok((layer.descriptor.clone(), layer.pack(exec, timestamp)?)))
        .collect::<Result<_>>()?;
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (descriptor, packed) in running {
        descriptors.push(match packed {
            Packed::Already(content) => {
                writer.blob(&descriptor.digest, descriptor.size, content)?;
                descriptor
            }
            Packed::Now(thread) => {
                let (content, diff_id) = thread
                    .join()
                    .map_err(|_| anyhow!("the thread that compresses a layer died"))?
                    .context("a layer cannot be packed")?;
                diff_ids.extend(diff_id);
                writer.content(media::DOCKER_LAYER, &content)?
            }
        });
    }
    if let Some(timestamp) = timestamp {
        timestamps::in_config(&mut config, timestamp, &diff_ids)?;
    }
    let config = serde_json::to_vec(&config)?;
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
    Now(Compressing),
}

/// A compressed layer, and the digest of what it was before, where that is asked for.
type Compressing = thread::JoinHandle<io::Result<(Vec<u8>, Option<String>)>>;

impl<R: Read + Send + 'static> Layer<R> {
    fn pack(self, exec: &Exec, timestamp: Option<u64>) -> io::Result<Packed<R>> {
        let gzip = ["-n", "-6"];
        Ok(match (timestamp, self.packed) {
            (None, true) => Packed::Already(self.content),
            (None, false) => {
                let compressed = exec.gzip(&gzip, self.content)?;
                Packed::Now(compressing(compressed, |_| None))
            }
            (Some(timestamp), packed) => {
                let content: Box<dyn Read + Send> = if packed {
                    Box::new(exec.gzip(&["-dc"], self.content)?)
                } else {
                    Box::new(self.content)
                };
                let content = Hashing::new(timestamps::Layer::new(content, timestamp));
                let compressed = exec.gzip(&gzip, content)?;
                Packed::Now(compressing(compressed, |content| Some(content.digest())))
            }
        })
    }
}

fn compressing<R: Read + Send + 'static>(
    mut gzip: Piped<R>,
    diff_id: impl FnOnce(R) -> Option<String> + Send + 'static,
) -> Compressing {
    thread::spawn(move || {
        let mut content = Vec::new();
        gzip.read_to_end(&mut content)?;
        Ok((content, diff_id(gzip.finish()?)))
    })
}

/// Docker's configuration names the container in which the last step ran, and Buildah's history
/// the image that each step began with: others each time. No engine reads them.
fn without_chance(config: &[u8]) -> Result<serde_json::Value> {
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
    Ok(config)
}

fn copy_folder(
    exec: &Exec,
    folder: &Path,
    timestamp: Option<u64>,
    writer: &mut Writer,
) -> Result<Vec<Descriptor>> {
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
        let config = read(bare(&config.digest))?;
        let (manifest, config) = write_image(exec, &config, layers, timestamp, writer)?;
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
        let one = pack(
            &Exec::silent(),
            &[at("amd64"), at("arm64")],
            None,
            &at("one"),
        )
        .unwrap();
        let other = pack(
            &Exec::silent(),
            &[at("arm64"), at("amd64")],
            None,
            &at("other"),
        )
        .unwrap();
        assert_eq!(platforms(&one), ["linux/amd64", "linux/arm64"]);
        assert_eq!(one.root, other.root);
        assert_eq!(one.root.media_type, media::DOCKER_INDEX);

        // Packed once more, it is the same.
        let again = pack(&Exec::silent(), &[at("one")], None, &at("again")).unwrap();
        assert_eq!(again.root, one.root);
        assert_eq!(platforms(&again), platforms(&one));

        let error = pack(&Exec::silent(), &[at("amd64"), at("one")], None, &at("x")).unwrap_err();
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
        let error = pack(&Exec::silent(), &[at("a"), at("b")], None, &at("c")).unwrap_err();
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
        let archive = pack(&Exec::silent(), &[at("saved.tar")], None, &at("a")).unwrap();
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

    /// A folder of `podman push … dir:` with a layer of one file, all made at some time.
    fn podmans_folder(path: &Path, time: u64, packed: bool) {
        fs::create_dir_all(path).unwrap();
        let write = |name: &str, content: &[u8]| fs::write(path.join(name), content).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        header.set_mtime(time);
        tar.append_data(&mut header, "app/x", &b"abc"[..]).unwrap();
        let mut layer = tar.into_inner().unwrap();
        let diff_id = digest(&layer);
        let mut media_type = media::DOCKER_LAYER;
        if packed {
            let mut gzip = Exec::silent()
                .gzip(&["-1"], io::Cursor::new(layer))
                .unwrap();
            layer = Vec::new();
            gzip.read_to_end(&mut layer).unwrap();
        } else {
            media_type = media_type.trim_end_matches(".gzip");
        }
        let layer_is = Descriptor::of(media_type, &layer);
        write(bare(&layer_is.digest), &layer);
        let created = crate::time::rfc3339(time);
        let config = serde_json::json!({
            "architecture": "amd64", "created": created, "os": "linux",
            "history": [{"created": created, "created_by": "COPY"}],
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        });
        let config = config.to_string().into_bytes();
        let config_is = Descriptor::of(media::DOCKER_CONFIG, &config);
        write(bare(&config_is.digest), &config);
        let manifest = Manifest {
            schema_version: 2,
            media_type: media::DOCKER_MANIFEST.to_owned(),
            config: Some(config_is),
            layers: vec![layer_is],
            ..Manifest::default()
        };
        write("manifest.json", &serde_json::to_vec(&manifest).unwrap());
    }

    #[test]
    fn an_image_has_the_time_that_it_is_packed_with() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (name, time, packed) in [("old", 5, false), ("new", 99, false), ("gzip", 99, true)] {
            podmans_folder(&at(name), time, packed);
        }
        let pack_at = |name: &str, timestamp| {
            let output = at(&format!("{name}-{timestamp:?}.tar"));
            pack(&Exec::silent(), &[at(name)], timestamp, &output).unwrap()
        };
        let old = pack_at("old", Some(7));
        assert_eq!(pack_at("new", Some(7)).root, old.root);
        assert_eq!(pack_at("gzip", Some(7)).root, old.root);
        assert_ne!(pack_at("new", Some(8)).root, old.root);
        assert_ne!(pack_at("new", None).root, pack_at("old", None).root);

        let manifest: Manifest =
            serde_json::from_slice(&old.read(&old.root.digest).unwrap()).unwrap();
        let config = old.read(&manifest.config.unwrap().digest).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        let (layer, _) = old.reader(&manifest.layers[0].digest).unwrap();
        let mut text = Vec::new();
        let mut layer = Exec::silent().gzip(&["-dc"], layer).unwrap();
        layer.read_to_end(&mut text).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&text));
        let mut layer = tar::Archive::new(&text[..]);
        let file = layer.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(file.header().mtime().unwrap(), 7);
        for created in [&config["created"], &config["history"][0]["created"]] {
            assert_eq!(created, "1970-01-01T00:00:07Z");
        }
    }

    #[test]
    fn a_layer_that_cannot_be_read_makes_no_archive() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        podmans_folder(&at("in"), 5, false);
        let manifest: Manifest =
            serde_json::from_slice(&fs::read(at("in/manifest.json")).unwrap()).unwrap();
        let layer = at("in").join(bare(&manifest.layers[0].digest));
        fs::write(layer, [7; 1024]).unwrap();
        let error = pack(&Exec::silent(), &[at("in")], Some(7), &at("out")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "a layer cannot be packed: it is no tar file, or a damaged one"
        );
        assert!(!at("out").exists());
    }

    #[test]
    fn an_oci_archive_keeps_its_times() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        image(&at("a"), "amd64");
        let error = pack(&Exec::silent(), &[at("a")], Some(7), &at("b")).unwrap_err();
        let why = "is an OCI archive, which keeps the times that it was built with";
        assert!(error.to_string().contains(why), "{error}");
        assert!(!at("b.partial").exists());
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
        let archive = pack(&Exec::silent(), &[folder.path().to_owned()], None, &output).unwrap();
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
        let error = pack(&Exec::silent(), &[folder.path().to_owned()], None, &output).unwrap_err();
        assert!(error.to_string().contains("is another"), "{error}");
    }
}
