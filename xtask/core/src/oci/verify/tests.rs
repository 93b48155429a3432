use std::path::Path;

use super::*;
use crate::oci::{archive::Archive, archive_writer::ArchiveWriter, media_type, source::StoredBlob};

/// A layer with one program for a processor, as a plain tar.
fn layer(machine: u8) -> Vec<u8> {
    let mut program = vec![
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, machine, 0,
    ];
    program.extend([0; 50]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/sh", &program[..])
        .unwrap();
    tar.into_inner().unwrap()
}

struct Image {
    arch: &'static str,
    machine: u8,
    config: &'static str,
}

const GOOD: &str =
    r#"{"User":"stigmer","Labels":{"v":"1"},"Healthcheck":{"Test":["CMD","probe"]}}"#;

fn archive(path: &Path, images: &[Image]) -> Archive {
    let mut writer = ArchiveWriter::create(path).unwrap();
    let mut manifests = Vec::new();
    for image in images {
        let layer = layer(image.machine);
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","config":{},"rootfs":{{"diff_ids":["{}"]}}}}"#,
            image.arch,
            image.config,
            sha256(&layer)
        );
        let config = writer
            .content(media_type::DOCKER_CONFIG, config.as_bytes())
            .unwrap();
        let layer = writer
            .content("application/vnd.oci.image.layer.v1.tar", &layer)
            .unwrap();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type::DOCKER_MANIFEST.to_owned(),
            config: Some(config),
            layers: vec![layer],
            ..Manifest::default()
        };
        let content = serde_json::to_vec(&manifest).unwrap();
        let mut manifest = writer
            .content(media_type::DOCKER_MANIFEST, &content)
            .unwrap();
        manifest.platform = Some(DescriptorPlatform {
            architecture: image.arch.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        });
        manifests.push(manifest);
    }
    let index = serde_json::to_vec(&Manifest::index(manifests, BTreeMap::new())).unwrap();
    let root = writer.content(media_type::DOCKER_INDEX, &index).unwrap();
    writer.finish(&root).unwrap()
}

fn verify_images(images: &[Image], change: impl FnOnce(&mut Expected)) -> Result<Verified> {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder.path().join("a.tar"), images);
    let mut expected = Expected {
        platforms: vec![Platform::linux("amd64"), Platform::linux("arm64")],
        labels: [("v".to_owned(), "1".to_owned())].into(),
        absent_labels: Vec::new(),
        budget: Budget::default(),
        user: ExpectedUser::NotRoot,
        health_check: true,
    };
    change(&mut expected);
    verify(
        &archive,
        &archive.root.digest,
        &expected,
        Depth::Deep,
        &|| Ok(()),
    )
}

fn image(arch: &'static str, machine: u8) -> Image {
    Image {
        arch,
        machine,
        config: GOOD,
    }
}

#[test]
fn a_good_image_is_described_by_platform() {
    let verified = verify_images(&[image("amd64", 62), image("arm64", 183)], |_| {}).unwrap();
    let platforms: Vec<_> = verified
        .platforms
        .iter()
        .map(|one| (one.platform.as_str(), one.layers.as_ref().unwrap().programs))
        .collect();
    assert_eq!(platforms, [("linux/amd64", 1), ("linux/arm64", 1)]);
}

#[test]
fn the_base_image_is_known_if_the_labels_name_it_and_its_digest() {
    let base = |labels: &str| {
        let config = format!(r#"{{"config":{{"Labels":{{{labels}}}}}}}"#);
        base_image(&serde_json::from_str(&config).unwrap())
    };
    let name = r#""org.opencontainers.image.base.name":"python:3""#;
    let digest = r#""org.opencontainers.image.base.digest":"sha256:1""#;
    assert_eq!(
        base(&format!("{name},{digest}")).as_deref(),
        Some("python:3@sha256:1")
    );
    assert_eq!(base(name), None);
}

#[test]
fn amd64_programs_in_an_arm64_image_are_found() {
    let error = verify_images(&[image("amd64", 62), image("arm64", 62)], |_| {}).unwrap_err();
    assert_eq!(
        error.to_string(),
        "linux/arm64: 1 of 1 programs and libraries are not for linux/arm64, such as bin/sh"
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let bare = Image {
        arch: "amd64",
        machine: 62,
        config: r#"{"Labels":{"v":"2"}}"#,
    };
    let error = verify_images(&[bare], |expected| {
        expected.budget.unpacked = Some(10);
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "linux/amd64: label v is `2`, not `1`\n\
         linux/amd64: it runs as root\n\
         linux/amd64: it has no health check\n\
         linux/amd64: 2.0 kB unpacked, the budget is 10 B\n\
         linux/arm64 is missing"
    );
}

/// Engines read a user id as a number, and take `NONE` for no check.
#[test]
fn root_and_a_missing_check_have_many_spellings() {
    for user in ["0", "00", "+0", "0000:1", "root:1000", ""] {
        let config = format!(
            r#"{{"User":"{user}","Healthcheck":{{"Test":["NONE"]}},"Labels":{{"v":"1"}}}}"#
        );
        let image = Image {
            arch: "amd64",
            machine: 62,
            config: config.leak(),
        };
        let error = verify_images(&[image], |expected| expected.platforms.truncate(1));
        assert_eq!(
            error.unwrap_err().to_string(),
            "linux/amd64: it runs as root\nlinux/amd64: it has no health check",
            "{user}"
        );
    }
}

#[test]
fn an_image_has_the_expected_user() {
    let problem = |user: &str, expected_uid: u32| {
        let config = GOOD.replace("stigmer", user);
        let image = Image {
            arch: "amd64",
            machine: 62,
            config: config.leak(),
        };
        let verified = verify_images(&[image], |expected| {
            expected.platforms.truncate(1);
            expected.user = ExpectedUser::Uid(expected_uid);
        });
        verified.err().map(|error| error.to_string())
    };
    for (user, uid) in [
        ("1000", 1000),
        ("01000", 1000),
        ("app", 1000),
        ("0", 0),
        ("root", 0),
    ] {
        assert_eq!(problem(user, uid), None, "{user}");
    }
    for (user, uid) in [
        ("1001", 1000),
        ("99999999999", 1000),
        ("1000", 0),
        ("app", 0),
    ] {
        let expected = format!("linux/amd64: it runs as user {user}, not {uid}");
        assert_eq!(problem(user, uid), Some(expected));
    }
    let expected = "linux/amd64: it runs as root".to_owned();
    assert_eq!(problem("root", 1000), Some(expected));
}

#[test]
fn an_unexpected_platform_is_reported() {
    let error = verify_images(&[image("amd64", 62), image("arm64", 183)], |expected| {
        expected.platforms.truncate(1);
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "linux/arm64 is not expected");
}

/// A source whose layers have one byte more, after the end of the tar file.
struct Longer<'a>(&'a Archive);

impl Source for Longer<'_> {
    fn manifest(&self, digest: &str) -> Result<Vec<u8>> {
        self.0.manifest(digest)
    }

    fn blob(&self, digest: &str) -> Result<Box<dyn Read + Send + '_>> {
        let blob = self.0.blob(digest)?;
        let is_layer = self.0.reader(digest)?.1 > 1000;
        let more: &[u8] = if is_layer { &[0] } else { &[] };
        Ok(Box::new(blob.chain(more)))
    }

    fn find_blob(&self, digest: &str) -> Result<Option<StoredBlob>> {
        let size = self.0.reader(digest)?.1 + 1;
        Ok(Some(StoredBlob { size: Some(size) }))
    }
}

#[test]
fn a_layer_that_was_changed_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let archive = archive(&folder.path().join("a.tar"), &[image("amd64", 62)]);
    let expected = Expected {
        platforms: vec![Platform::linux("amd64")],
        labels: BTreeMap::new(),
        absent_labels: Vec::new(),
        budget: Budget::default(),
        user: ExpectedUser::NotRoot,
        health_check: true,
    };
    let root = &archive.root.digest;
    let error = verify(&Longer(&archive), root, &expected, Depth::Deep, &|| Ok(())).unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("cannot verify layer sha256:"), "{error}");
    assert!(
        error.ends_with(": the content does not match the digest and size in the manifest"),
        "{error}"
    );

    let error = verify(&Longer(&archive), root, &expected, Depth::Shallow, &|| {
        Ok(())
    });
    let error = error.unwrap_err().to_string();
    assert!(error.contains(" bytes, and the manifest says "), "{error}");

    let stop = || Err(std::io::Error::other("interrupted"));
    let error = verify(&archive, root, &expected, Depth::Deep, &stop).unwrap_err();
    assert!(format!("{error:#}").ends_with(": interrupted"), "{error:#}");
}

#[test]
fn layers_must_be_those_of_the_configuration() {
    let found = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    assert!(layer_problems(&["a", "b"], &found(&["a", "b"])).is_empty());
    assert_eq!(
        layer_problems(&[], &found(&["a"])),
        ["the configuration lists 0 layers, the manifest 1"]
    );
    assert_eq!(
        layer_problems(&["a", "b"], &found(&["a", "c"])),
        ["the configuration lists the layer b (`diff_ids`), but it is c"]
    );
}
