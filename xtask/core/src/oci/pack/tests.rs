use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
};

use super::{podman_folder::file_name, *};
use crate::{
    base::time::rfc3339,
    oci::{
        archive_writer::ArchiveWriter, digest::sha256, gzip, manifest::DescriptorPlatform,
        media_type,
    },
};

fn no_cache() -> LayerCache {
    LayerCache::open(None, 0)
}

/// A cache in this folder, for the user who owns the folder above it.
fn cache_in(folder: &Path) -> LayerCache {
    let owner = folder.parent().unwrap().metadata().unwrap().uid();
    LayerCache::open(Some(folder.to_owned()), owner)
}

fn pack(inputs: &[PathBuf], timestamp: Option<u64>, output: &Path) -> Result<Archive> {
    pack_with(&no_cache(), inputs, timestamp, output)
}

fn pack_with(
    cache: &LayerCache,
    inputs: &[PathBuf],
    timestamp: Option<u64>,
    output: &Path,
) -> Result<Archive> {
    super::pack(inputs, timestamp, output, cache, &|| Ok(()))
}

fn manifest_of(archive: &Archive) -> Manifest {
    serde_json::from_slice(&archive.read(&archive.root.digest).unwrap()).unwrap()
}

/// The uncompressed content of a layer.
fn unpacked(archive: &Archive, layer: &Descriptor) -> Vec<u8> {
    let (reader, _) = archive.reader(&layer.digest).unwrap();
    let mut content = Vec::new();
    gzip::decompress(reader).read_to_end(&mut content).unwrap();
    content
}

/// An archive with one image of a platform.
fn write_image(path: &Path, arch: &str) {
    write_labelled(path, arch, "{}");
}

/// An archive with one image of a platform, with labels in JSON.
fn write_labelled(path: &Path, arch: &str, labels: &str) {
    let mut writer = ArchiveWriter::create(path).unwrap();
    let config =
        format!(r#"{{"architecture":"{arch}","os":"linux","config":{{"Labels":{labels}}}}}"#);
    let config = writer
        .content(media_type::DOCKER_CONFIG, config.as_bytes())
        .unwrap();
    let layer = writer
        .content(media_type::DOCKER_LAYER, arch.as_bytes())
        .unwrap();
    let root = write_manifest(&mut writer, config, vec![layer]);
    writer.finish(&root).unwrap();
}

fn write_manifest(
    writer: &mut ArchiveWriter,
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Descriptor {
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        config: Some(config),
        layers,
        ..Manifest::default()
    };
    let manifest = serde_json::to_vec(&manifest).unwrap();
    writer
        .content(media_type::DOCKER_MANIFEST, &manifest)
        .unwrap()
}

fn platforms(archive: &Archive) -> Vec<String> {
    let platform = |one: Descriptor| one.platform.unwrap().normalized().to_string();
    manifest_of(archive)
        .manifests
        .into_iter()
        .map(platform)
        .collect()
}

#[test]
fn the_order_of_inputs_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(&at("amd64"), "amd64");
    write_image(&at("arm64"), "arm64");
    let one = pack(&[at("amd64"), at("arm64")], None, &at("one")).unwrap();
    let reverse = pack(&[at("arm64"), at("amd64")], None, &at("reverse")).unwrap();
    assert_eq!(platforms(&one), ["linux/amd64", "linux/arm64"]);
    assert_eq!(one.root, reverse.root);
    assert_eq!(one.root.media_type, media_type::DOCKER_INDEX);

    // Packing the result changes nothing.
    let repacked = pack(&[at("one")], None, &at("repacked")).unwrap();
    assert_eq!(repacked.root, one.root);
    assert_eq!(platforms(&repacked), platforms(&one));

    let error = pack(&[at("amd64"), at("one")], None, &at("x")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is a second image for linux/amd64 in"),
        "{error}"
    );
}

#[test]
fn an_index_has_the_labels_of_all_its_images_as_annotations() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let labels = |title: &str| {
        format!(
            r#"{{"org.opencontainers.image.description":"A runner","org.opencontainers.image.source":"https://x",
                "org.opencontainers.image.licenses":"","org.opencontainers.image.title":"{title}","other":"1"}}"#
        )
    };
    write_labelled(&at("amd64"), "amd64", &labels("a"));
    write_labelled(&at("arm64"), "arm64", &labels("b"));
    let packed = pack(&[at("amd64"), at("arm64")], None, &at("one")).unwrap();
    let index = manifest_of(&packed);
    let expected = [
        ("org.opencontainers.image.description", "A runner"),
        ("org.opencontainers.image.source", "https://x"),
    ];
    let expected: BTreeMap<_, _> = expected
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    assert_eq!(index.annotations, expected);
    assert_eq!(packed.root.media_type, media_type::OCI_INDEX);
    assert_eq!(index.media_type, media_type::OCI_INDEX);
    // Podman reads the health check of Docker's manifests only.
    let is_docker = |one: &Descriptor| one.media_type == media_type::DOCKER_MANIFEST;
    assert!(index.manifests.iter().all(is_docker));
    assert_eq!(platforms(&packed), ["linux/amd64", "linux/arm64"]);

    // Packing the result changes nothing.
    let repacked = pack(&[at("one")], None, &at("repacked")).unwrap();
    assert_eq!(repacked.root, packed.root);

    // What BuildKit writes for both platforms gets the same index as two archives of one platform.
    let mut writer = ArchiveWriter::create(&at("buildkit")).unwrap();
    for one in &index.manifests {
        let manifest = packed.read(&one.digest).unwrap();
        let blobs: Manifest = serde_json::from_slice(&manifest).unwrap();
        for blob in blobs.config.iter().chain(&blobs.layers) {
            let content = packed.read(&blob.digest).unwrap();
            writer.content(&blob.media_type, &content).unwrap();
        }
        writer.content(&one.media_type, &manifest).unwrap();
    }
    let list = Manifest::index(index.manifests.clone(), BTreeMap::new());
    let list = serde_json::to_vec(&list).unwrap();
    let list = writer.content(media_type::DOCKER_INDEX, &list).unwrap();
    writer.finish(&list).unwrap();
    let annotated = pack(&[at("buildkit")], None, &at("annotated")).unwrap();
    assert_eq!(annotated.root, packed.root);
}

#[test]
fn two_images_for_one_platform_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_image(&at("a"), "amd64");
    let mut writer = ArchiveWriter::create(&at("b")).unwrap();
    let config = br#"{"architecture":"amd64","os":"linux","x":1}"#;
    let config = writer.content(media_type::DOCKER_CONFIG, config).unwrap();
    let root = write_manifest(&mut writer, config, Vec::new());
    writer.finish(&root).unwrap();
    let error = pack(&[at("a"), at("b")], None, &at("c")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("there is a second image for linux/amd64 in"),
        "{error}"
    );
    assert!(!at("c").exists());
}

#[test]
fn layers_of_docker_save_are_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let layer = vec![7; 100_000];
    write_saved(&at("saved.tar"), &layer, &sha256(&layer));
    let archive = pack(&[at("saved.tar")], None, &at("a")).unwrap();
    let manifest = manifest_of(&archive);
    let layer = &manifest.layers[0];
    assert!(layer.size < 1000, "{}", layer.size);
    assert_eq!(unpacked(&archive, layer), vec![7; 100_000]);
}

/// An archive of `docker save` with this layer, and a configuration that lists a tar file with this digest.
fn write_saved(path: &Path, layer: &[u8], diff_id: &str) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content).unwrap();
    };
    let config =
        format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{diff_id}"]}}}}"#);
    add("c.json", config.as_bytes());
    add("l/layer.tar", layer);
    add(
        "manifest.json",
        br#"[{"Config":"c.json","RepoTags":["x:1"],"Layers":["l/layer.tar"]}]"#,
    );
    tar.into_inner().unwrap();
}

#[test]
fn a_layer_of_docker_save_must_be_the_one_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let plain = tar_of(1_300_000_000);
    let compressed = gzip::compress(&plain[..], Vec::new()).unwrap();
    let other = sha256(b"other");
    for layer in [&plain, &compressed] {
        for timestamp in [None, Some(7)] {
            write_saved(&at("good"), layer, &sha256(&plain));
            pack(&[at("good")], timestamp, &at("packed")).unwrap();
            write_saved(&at("bad"), layer, &other);
            let error = pack(&[at("bad")], timestamp, &at("x")).unwrap_err();
            assert!(
                format!("{error:#}").starts_with("cannot pack the layer "),
                "{error:#}"
            );
            assert!(!at("x").exists());
        }
    }
}

#[test]
fn a_damaged_layer_that_is_kept_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut writer = ArchiveWriter::create(&at("a")).unwrap();
    let config = writer.content(media_type::DOCKER_CONFIG, b"{}").unwrap();
    let layer = Descriptor::of(media_type::DOCKER_LAYER, b"real");
    writer.blob(&layer.digest, 4, &b"fake"[..]).unwrap();
    let root = write_manifest(&mut writer, config, vec![layer.clone()]);
    writer.finish(&root).unwrap();
    let error = pack(&[at("a")], None, &at("b")).unwrap_err();
    let expected = format!(
        "the content of the layer {} does not match its digest",
        layer.digest
    );
    assert_eq!(error.to_string(), expected);
    assert!(!at("b").exists());
}

/// A tar file with one file of this time.
fn tar_of(time: u64) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(3);
    header.set_mtime(time);
    tar.append_data(&mut header, "app/x", &b"abc"[..]).unwrap();
    tar.into_inner().unwrap()
}

/// The time of the first file in a tar file.
fn time_in(tar: &[u8]) -> u64 {
    let mut tar = tar::Archive::new(tar);
    let file = tar.entries().unwrap().next().unwrap().unwrap();
    file.header().mtime().unwrap()
}

/// What BuildKit writes: a layer of the base image, and one of the build, with the time of `SOURCE_DATE_EPOCH` in the
/// history. Steps without a layer are there too.
fn write_built(path: &Path, epoch: u64, file_time: u64, steps: usize) {
    let mut writer = ArchiveWriter::create(path).unwrap();
    let base = writer
        .content("application/vnd.docker.image.rootfs.diff.tar.zstd", b"base")
        .unwrap();
    let tar = tar_of(file_time);
    // Another program's compression.
    let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    io::Write::write_all(&mut compressed, &tar).unwrap();
    let own = writer
        .content(media_type::DOCKER_LAYER, &compressed.finish().unwrap())
        .unwrap();
    let created = rfc3339(epoch);
    let history = [
        serde_json::json!({"created": "2001-01-01T00:00:00.5Z", "created_by": "base"}),
        serde_json::json!({"created": created, "created_by": "ENV", "empty_layer": true}),
        serde_json::json!({"created": created, "created_by": "COPY"}),
    ];
    let config = serde_json::json!({
        "architecture": "amd64", "created": created, "os": "linux",
        "history": history[..steps],
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"x"), sha256(&tar)]},
    });
    let config = writer
        .content(media_type::DOCKER_CONFIG, config.to_string().as_bytes())
        .unwrap();
    let root = write_manifest(&mut writer, config, vec![base, own]);
    writer.finish(&root).unwrap();
}

#[test]
fn a_timestamp_replaces_the_times_of_layers_that_buildkit_built() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let epoch = 1_234_567_890;
    write_built(&at("old"), epoch, 1_200_000_000, 3);
    write_built(&at("new"), epoch, 1_300_000_000, 3);
    let packed = pack(&[at("old")], Some(epoch), &at("packed-old")).unwrap();
    assert_eq!(
        pack(&[at("new")], Some(epoch), &at("packed-new"))
            .unwrap()
            .root,
        packed.root
    );
    let manifest = manifest_of(&packed);
    let [base, own] = &manifest.layers[..] else {
        panic!("{manifest:?}")
    };
    assert_eq!(
        base.media_type,
        "application/vnd.docker.image.rootfs.diff.tar.zstd"
    );
    assert_eq!(
        packed.read(&base.digest).unwrap(),
        b"base",
        "the base image's layer stays"
    );
    assert_eq!(own.media_type, media_type::DOCKER_LAYER);
    let tar = unpacked(&packed, own);
    assert_eq!(time_in(&tar), epoch);
    assert_eq!(
        packed.read(&own.digest).unwrap(),
        gzip::compress(&tar[..], Vec::new()).unwrap()
    );
    let config = packed.read(&manifest.config.unwrap().digest).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["rootfs"]["diff_ids"],
        serde_json::json!([sha256(b"x"), sha256(&tar)])
    );

    // Packing the result changes nothing.
    assert_eq!(
        pack(&[at("packed-old")], None, &at("again")).unwrap().root,
        packed.root
    );
    // If the history does not tell which layers are the base image's, none is kept: here, "base" is no zstd.
    write_built(&at("unknown"), epoch, 1_300_000_000, 2);
    let error = pack(&[at("unknown")], Some(epoch), &at("x")).unwrap_err();
    assert!(
        format!("{error:#}").starts_with("cannot pack the layer "),
        "{error:#}"
    );
}

#[test]
fn a_layer_of_another_size_than_the_manifest_says_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut writer = ArchiveWriter::create(&at("a")).unwrap();
    let config = writer.content(media_type::DOCKER_CONFIG, b"{}").unwrap();
    let mut layer = writer.content(media_type::DOCKER_LAYER, b"layer").unwrap();
    layer.size = 4;
    let root = write_manifest(&mut writer, config, vec![layer.clone()]);
    writer.finish(&root).unwrap();
    let error = pack(&[at("a")], None, &at("b")).unwrap_err();
    let expected = format!(
        "the layer {} has 5 bytes, and the manifest says 4",
        layer.digest
    );
    assert_eq!(error.to_string(), expected);
}

/// The format stays, and the platform of the index too: configurations may name no variant.
#[test]
fn an_oci_image_stays_one_when_its_times_change() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let tar = tar_of(1_300_000_000);
    let mut writer = ArchiveWriter::create(&at("a")).unwrap();
    let config = serde_json::json!({
        "architecture": "arm", "os": "linux", "rootfs": {"diff_ids": [sha256(&tar)]},
    });
    let config = config.to_string();
    let config_type = "application/vnd.oci.image.config.v1+json";
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Some(writer.content(config_type, config.as_bytes()).unwrap()),
        layers: vec![
            writer
                .content("application/vnd.oci.image.layer.v1.tar", &tar)
                .unwrap(),
        ],
        annotations: [
            ("a", "b"),
            ("org.opencontainers.image.created", "2026-11-27T00:00:00.5Z"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into(),
        ..Manifest::default()
    };
    let content = serde_json::to_vec(&manifest).unwrap();
    let variants = ["v6", "v7"].map(|variant| {
        let mut image = writer.content(media_type::OCI_MANIFEST, &content).unwrap();
        image.platform = Some(DescriptorPlatform {
            architecture: "arm".to_owned(),
            os: "linux".to_owned(),
            variant: Some(variant.to_owned()),
        });
        image
    });
    let index = Manifest::index(variants.to_vec(), BTreeMap::new());
    let index = serde_json::to_vec(&index).unwrap();
    let index = writer.content(media_type::OCI_INDEX, &index).unwrap();
    writer.finish(&index).unwrap();
    let packed = pack(&[at("a")], Some(1_234_567_890), &at("b")).unwrap();
    assert_eq!(platforms(&packed), ["linux/arm/v6", "linux/arm/v7"]);
    let image = packed
        .read(&manifest_of(&packed).manifests[0].digest)
        .unwrap();
    let image: Manifest = serde_json::from_slice(&image).unwrap();
    assert_eq!(image.media_type, media_type::OCI_MANIFEST);
    assert_eq!(image.config.unwrap().media_type, config_type);
    assert_eq!(
        image.layers[0].media_type,
        "application/vnd.oci.image.layer.v1.tar+gzip"
    );
    let annotations = [
        ("a", "b"),
        ("org.opencontainers.image.created", "2009-02-13T23:31:30Z"),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(image.annotations, annotations.into());
    assert_eq!(time_in(&unpacked(&packed, &image.layers[0])), 1_234_567_890);
}

#[test]
fn an_image_with_an_attestation_gets_no_timestamp() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut writer = ArchiveWriter::create(&at("attested")).unwrap();
    let config = br#"{"architecture":"amd64","os":"linux"}"#;
    let config = writer.content(media_type::DOCKER_CONFIG, config).unwrap();
    let image = write_manifest(&mut writer, config, Vec::new());
    let mut attestation = writer.content(media_type::OCI_MANIFEST, b"{}").unwrap();
    let mark = (
        "vnd.docker.reference.type".to_owned(),
        "attestation-manifest".to_owned(),
    );
    attestation.annotations = Some([mark].into());
    let index = Manifest::index(vec![image, attestation], BTreeMap::new());
    let index = serde_json::to_vec(&index).unwrap();
    let index = writer.content(media_type::OCI_INDEX, &index).unwrap();
    writer.finish(&index).unwrap();
    let packed = pack(&[at("attested")], None, &at("packed")).unwrap();
    assert_eq!(packed.root.digest, index.digest);
    let error = pack(&[at("attested")], Some(7), &at("x")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("leave out `--timestamp`, or build without"),
        "{error}"
    );
    assert!(!at("x.partial").exists());
}

/// A folder of `podman push … dir:` with one layer; all times in the image are this one.
fn write_podman_folder(path: &Path, time: u64, compressed: bool) {
    fs::create_dir_all(path).unwrap();
    let write = |name: &str, content: &[u8]| fs::write(path.join(name), content).unwrap();
    let mut layer = tar_of(time);
    let diff_id = sha256(&layer);
    let mut media_type = media_type::DOCKER_LAYER;
    if compressed {
        layer = gzip::compress(&layer[..], Vec::new()).unwrap();
    } else {
        media_type = media_type.trim_end_matches(".gzip");
    }
    let layer_descriptor = Descriptor::of(media_type, &layer);
    write(file_name(&layer_descriptor.digest), &layer);
    let created = rfc3339(time);
    let config = serde_json::json!({
        "architecture": "amd64", "created": created, "os": "linux",
        "history": [{"created": created, "created_by": "COPY"}],
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = config.to_string().into_bytes();
    let config_descriptor = Descriptor::of(media_type::DOCKER_CONFIG, &config);
    write(file_name(&config_descriptor.digest), &config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        config: Some(config_descriptor),
        layers: vec![layer_descriptor],
        ..Manifest::default()
    };
    write("manifest.json", &serde_json::to_vec(&manifest).unwrap());
}

#[test]
fn a_timestamp_replaces_all_times() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (before, time, after) = (1_200_000_000, 1_234_567_890, 1_300_000_000);
    for (name, time, compressed) in [
        ("old", before, false),
        ("new", after, false),
        ("gzip", after, true),
    ] {
        write_podman_folder(&at(name), time, compressed);
    }
    let pack_at = |name: &str, timestamp| {
        let output = at(&format!("{name}-{timestamp:?}.tar"));
        pack(&[at(name)], timestamp, &output).unwrap()
    };
    let old = pack_at("old", Some(time));
    assert_eq!(pack_at("new", Some(time)).root, old.root);
    assert_eq!(pack_at("gzip", Some(time)).root, old.root);
    assert_ne!(pack_at("new", Some(time + 1)).root, old.root);
    assert_ne!(pack_at("new", None).root, pack_at("old", None).root);

    let manifest = manifest_of(&old);
    let config = old.read(&manifest.config.unwrap().digest).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let layer = unpacked(&old, &manifest.layers[0]);
    assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layer));
    assert_eq!(time_in(&layer), time);
    for created in [&config["created"], &config["history"][0]["created"]] {
        assert_eq!(created, "2009-02-13T23:31:30Z");
    }
}

#[test]
fn a_layer_whose_times_are_fixed_is_the_same_in_each_release() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_podman_folder(&at("in"), 315_532_800, false);
    let [one, two] = [1_234_567_890, 1_300_000_000].map(|timestamp| {
        let packed = pack(&[at("in")], Some(timestamp), &at(&timestamp.to_string())).unwrap();
        manifest_of(&packed)
    });
    assert_eq!(one.layers, two.layers);
    assert_ne!(one.config, two.config);
}

#[test]
fn a_damaged_layer_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_podman_folder(&at("in"), 5, false);
    let manifest: Manifest =
        serde_json::from_slice(&fs::read(at("in/manifest.json")).unwrap()).unwrap();
    let digest = &manifest.layers[0].digest;
    let layer = at("in").join(file_name(digest));
    let mut damaged = fs::read(&layer).unwrap();
    damaged[600] ^= 1; // in the content of a file
    fs::write(layer, damaged).unwrap();
    let error = pack(&[at("in")], Some(7), &at("out")).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        format!(
            "cannot pack the layer {digest}: the content does not match the digest and size in the manifest"
        )
    );
    assert!(!at("out").exists());
}

#[test]
fn folders_of_podman_push_are_packed() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    let config = br#"{"architecture":"arm64","container":"5eb3","history":[{"comment":"FROM 5eb3","created_by":"x"}],"os":"linux","variant":"v8"}"#;
    let config_descriptor = Descriptor::of(media_type::DOCKER_CONFIG, config);
    write(file_name(&config_descriptor.digest), config);
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        config: Some(config_descriptor),
        ..Manifest::default()
    };
    let content = serde_json::to_vec(&manifest).unwrap();
    let one = Descriptor::of(media_type::DOCKER_MANIFEST, &content);
    write(
        &format!("{}.manifest.json", file_name(&one.digest)),
        &content,
    );
    let list = Manifest::index(vec![one.clone()], BTreeMap::new());
    write("manifest.json", &serde_json::to_vec(&list).unwrap());
    let output = folder.path().join("out/a.tar");
    let archive = pack(&[folder.path().to_owned()], None, &output).unwrap();
    let manifest = manifest_of(&archive);
    assert_eq!(manifest.layers.len(), 0);
    let config = archive.read(&manifest.config.unwrap().digest).unwrap();
    assert_eq!(
        String::from_utf8(config).unwrap(),
        r#"{"architecture":"arm64","history":[{"created_by":"x"}],"os":"linux","variant":"v8"}"#,
        "what differs from build to build is removed"
    );

    write(&format!("{}.manifest.json", file_name(&one.digest)), b"{}");
    let error = pack(&[folder.path().to_owned()], None, &output).unwrap_err();
    assert!(
        error.to_string().contains("does not match its digest"),
        "{error}"
    );
}

#[test]
fn a_stopped_pack_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_podman_folder(&at("in"), 5, false);
    let stop = || Err(io::Error::other("interrupted"));
    let error =
        super::pack(&[at("in")], Some(7), &at("out/a.tar"), &no_cache(), &stop).unwrap_err();
    assert!(format!("{error:#}").ends_with(": interrupted"), "{error:#}");
    assert_eq!(fs::read_dir(at("out")).unwrap().count(), 0);
}

/// Replaces the layer of [`write_podman_folder`] by zeros.
fn damage_layer(folder: &Path) {
    let manifest = fs::read(folder.join("manifest.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&manifest).unwrap();
    let layer = folder.join(file_name(&manifest.layers[0].digest));
    let size = fs::metadata(&layer).unwrap().len();
    File::create(&layer).unwrap().set_len(size).unwrap();
}

/// The file of a cache that has one layer.
fn only_file(folder: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(folder).unwrap().collect();
    match &files[..] {
        [Ok(file)] => file.path(),
        files => panic!("{files:?}"),
    }
}

#[test]
fn a_layer_that_was_compressed_before_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cache = cache_in(&at("cache"));
    write_podman_folder(&at("in"), 1_300_000_000, false);
    let pack_cached = |timestamp| pack_with(&cache, &[at("in")], timestamp, &at("cached"));
    let timestamps = [None, Some(1_234_567_890)];
    let roots = timestamps.map(|timestamp| {
        let fresh = pack(&[at("in")], timestamp, &at("fresh")).unwrap();
        assert_eq!(pack_cached(timestamp).unwrap().root, fresh.root);
        fresh.root
    });
    damage_layer(&at("in"));
    for (timestamp, root) in timestamps.into_iter().zip(roots) {
        pack(&[at("in")], timestamp, &at("fresh")).unwrap_err();
        assert_eq!(pack_cached(timestamp).unwrap().root, root);
    }
    pack_cached(Some(7)).unwrap_err();
}

#[test]
fn a_layer_whose_times_stay_is_compressed_once_for_all_timestamps() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    // The first timestamp is the time that the files have already, which changes nothing in them.
    let timestamps = [1_300_000_000, 1_234_567_890];
    for (time, is_kept) in [(315_532_800, true), (timestamps[0], false)] {
        write_podman_folder(&at("in"), time, false);
        let cache = cache_in(&at(&time.to_string()));
        let pack_cached = |timestamp| pack_with(&cache, &[at("in")], Some(timestamp), &at("x"));
        pack_cached(timestamps[0]).unwrap();
        let fresh = pack(&[at("in")], Some(timestamps[1]), &at("y")).unwrap();
        damage_layer(&at("in"));
        match pack_cached(timestamps[1]) {
            Ok(packed) => assert!(is_kept && packed.root == fresh.root),
            Err(error) => assert!(!is_kept, "{error:#}"),
        }
    }
}

#[test]
fn a_damaged_or_unusable_cache_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    write_podman_folder(&at("in"), 1_300_000_000, false);
    let expected = pack(&[at("in")], Some(7), &at("fresh")).unwrap();
    let pack_cached = |cache: &LayerCache| {
        let packed = pack_with(cache, &[at("in")], Some(7), &at("packed")).unwrap();
        assert_eq!(packed.root, expected.root);
        assert!(fs::read(at("packed")).unwrap() == fs::read(at("fresh")).unwrap());
    };
    let cache = cache_in(&at("cache"));
    pack_cached(&cache);
    let cached = only_file(&at("cache"));
    assert_eq!(cached.metadata().unwrap().mode() & 0o777, 0o600);
    let good = fs::read(&cached).unwrap();
    let header = good.iter().rposition(|byte| *byte == b'}').unwrap();
    let flipped = |at: usize| {
        let mut content = good.clone();
        content[at] ^= 1;
        content
    };
    let damaged = [
        flipped(good.len() - 1),
        // A digit of the `diff_id`.
        flipped(header - 5),
        flipped(10),
        good[..good.len() / 2].to_vec(),
        b"{}\n".to_vec(),
        Vec::new(),
    ];
    for content in damaged {
        fs::write(&cached, content).unwrap();
        pack_cached(&cache);
        assert!(
            fs::read(&cached).unwrap() == good,
            "a damaged file is replaced"
        );
    }
    fs::write(at("file"), "").unwrap();
    pack_cached(&cache_in(&at("file")));
    // The folder is removed while the cache is open.
    fs::remove_dir_all(at("cache")).unwrap();
    pack_cached(&cache);
}

#[test]
fn a_file_with_the_name_of_another_layer_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let packed = |name: &str, time| {
        write_podman_folder(&at("in"), time, false);
        let cache = cache_in(&at(name));
        let packed = pack_with(&cache, &[at("in")], None, &at("x")).unwrap();
        (only_file(&at(name)), packed.root)
    };
    let (other, _) = packed("other", 1_200_000_000);
    let (file, root) = packed("cache", 1_300_000_000);
    fs::rename(other, file).unwrap();
    assert_eq!(packed("cache", 1_300_000_000).1, root);
}

#[test]
fn a_cached_layer_must_be_the_one_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let cache = cache_in(&at("cache"));
    let plain = tar_of(1_300_000_000);
    let layer = gzip::compress(&plain[..], Vec::new()).unwrap();
    write_saved(&at("good"), &layer, &sha256(&plain));
    pack_with(&cache, &[at("good")], Some(7), &at("x")).unwrap();
    let cached = only_file(&at("cache"));
    let number = cached.metadata().unwrap().ino();
    write_saved(&at("bad"), &layer, &sha256(b"other"));
    let error = pack_with(&cache, &[at("bad")], Some(7), &at("y")).unwrap_err();
    assert!(
        format!("{error:#}").contains("(`diff_ids`), but the layer is"),
        "{error:#}"
    );
    assert_eq!(
        cached.metadata().unwrap().ino(),
        number,
        "it was not compressed again"
    );
}
