//! A checkout with an archive that can be published. No engine is needed.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use flate2::write::GzEncoder;
use ring::digest::SHA256;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How the image in the archive is built.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// What xtask.toml has besides the repository.
    pub project: &'a str,
    pub version: &'a str,
    /// The label of the flavour.
    pub flavour: Option<&'a str>,
    /// Two images with the same number share the layers of amd64.
    pub content: u32,
    /// Each with the number of its machine in ELF.
    pub architectures: &'a [(&'a str, u8)],
    /// The size of each layer's program in bytes.
    pub size: usize,
    pub types: Types,
    pub compression: Compression,
    /// Each platform has an attestation as BuildKit 0.32 writes it: an artifact whose `subject` is the image.
    pub is_attested: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Types {
    Docker,
    Oci,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Default for Image<'_> {
    fn default() -> Self {
        Self {
            project: "",
            version: "1.2.3",
            flavour: None,
            content: 1,
            architectures: &[("amd64", 62), ("arm64", 183)],
            size: 200_000,
            types: Types::Docker,
            compression: Compression::Gzip,
            is_attested: false,
        }
    }
}

/// A checkout, tagged as a version, with an archive of that version.
pub struct Publication {
    folder: TempDir,
    pub version: String,
    pub archive: PathBuf,
    /// The digest of the image in the archive.
    pub digest: String,
}

impl Publication {
    /// `repository` is where the image is published.
    pub fn new(repository: &str, image: Image) -> Self {
        let folder = TempDir::new().unwrap();
        let project = format!(
            "schema = 1\n[image]\nrepository = '{repository}'\n{}",
            image.project
        );
        fs::write(folder.path().join("xtask.toml"), project).unwrap();
        fs::write(
            folder.path().join(".gitignore"),
            "/target/\n/home/\n/xtask.local.toml\n",
        )
        .unwrap();
        let mut publication = Self {
            archive: folder.path().join("target/a.oci.tar"),
            folder,
            version: image.version.to_owned(),
            digest: String::new(),
        };
        publication.git(&["init", "-q"]);
        publication.git(&["add", "-A"]);
        publication.git(&["commit", "-q", "-m", "x"]);
        publication.git(&["tag", &format!("v{}", image.version)]);
        publication.digest = publication.write_archive(&publication.archive, repository, image);
        publication
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn git(&self, args: &[&str]) -> String {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.com"];
        let output = Command::new("git")
            .args(who)
            .args(args)
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// An xtask command in the checkout, with a home folder of its own.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path().join("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for name in [
            "REGISTRY_TOKEN",
            "REGISTRY_AUTH_FILE",
            "DOCKER_CONFIG",
            "XDG_CONFIG_HOME",
            "XDG_RUNTIME_DIR",
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "https_proxy",
            "http_proxy",
            "no_proxy",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// The command that publishes the archive.
    pub fn push_archive(&self) -> Command {
        let archive = self.archive.to_str().unwrap();
        self.command(&["push-archive", "--version", &self.version, archive])
    }

    /// Writes an archive. Each platform has its own program.
    pub fn write_archive(&self, path: &Path, repository: &str, image: Image) -> String {
        let revision = self.git(&["rev-parse", "HEAD"]).trim().to_owned();
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut archive = Blobs(tar::Builder::new(fs::File::create(path).unwrap()));
        let types = MediaTypes::of(image);
        let mut images: Vec<_> = image
            .architectures
            .iter()
            .map(|&(arch, machine)| {
                let seed = if arch == "amd64" {
                    image.content
                } else {
                    u32::from(machine)
                };
                let tar = layer(machine, seed, image);
                let mut config = json!({
                    "architecture": arch, "os": "linux",
                    "rootfs": { "type": "layers", "diff_ids": [digest(&tar)] },
                    "config": {
                        "User": "stigmer",
                        "Healthcheck": { "Test": ["CMD", "probe"] },
                        "Labels": {
                            "org.opencontainers.image.version": image.version,
                            "org.opencontainers.image.revision": revision,
                            "ai.stigmer.xtask.image": repository,
                        },
                    },
                });
                if let Some(flavour) = image.flavour {
                    config["config"]["Labels"]["ai.stigmer.xtask.flavour"] = flavour.into();
                }
                let config = archive.add(types.config, config.to_string().as_bytes());
                let layer = archive.add(types.layer, &compress(&tar, image.compression));
                let manifest = json!({
                    "schemaVersion": 2, "mediaType": types.manifest,
                    "config": config, "layers": [layer],
                });
                let mut manifest = archive.add(types.manifest, manifest.to_string().as_bytes());
                manifest["platform"] = json!({ "architecture": arch, "os": "linux" });
                manifest
            })
            .collect();
        if image.is_attested {
            // Listed before the images, so that the index's order alone does not make the test pass.
            let attestations: Vec<_> = images.iter().map(|one| archive.attest(one)).collect();
            images.splice(0..0, attestations);
        }
        let index = json!({ "schemaVersion": 2, "mediaType": types.index, "manifests": images });
        let root = archive.add(types.index, index.to_string().as_bytes());
        let top = json!({ "schemaVersion": 2, "manifests": [root] });
        archive.file("index.json", top.to_string().as_bytes());
        archive.0.into_inner().unwrap();
        root["digest"].as_str().unwrap().to_owned()
    }
}

struct MediaTypes {
    config: &'static str,
    layer: &'static str,
    manifest: &'static str,
    index: &'static str,
}

impl MediaTypes {
    fn of(image: Image) -> Self {
        match (image.types, image.compression) {
            (Types::Docker, _) => Self {
                config: "application/vnd.docker.container.image.v1+json",
                layer: "application/vnd.docker.image.rootfs.diff.tar.gzip",
                manifest: "application/vnd.docker.distribution.manifest.v2+json",
                index: "application/vnd.docker.distribution.manifest.list.v2+json",
            },
            (Types::Oci, compression) => Self {
                config: "application/vnd.oci.image.config.v1+json",
                layer: match compression {
                    Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
                    Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
                },
                manifest: "application/vnd.oci.image.manifest.v1+json",
                index: "application/vnd.oci.image.index.v1+json",
            },
        }
    }
}

struct Blobs(tar::Builder<fs::File>);

impl Blobs {
    fn file(&mut self, name: &str, content: &[u8]) {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        self.0.append_data(&mut header, name, content).unwrap();
    }

    fn add(&mut self, media_type: &str, content: &[u8]) -> Value {
        let digest = digest(content);
        self.file(&format!("blobs/{}", digest.replace(':', "/")), content);
        json!({ "mediaType": media_type, "digest": digest, "size": content.len() })
    }

    fn attest(&mut self, image: &Value) -> Value {
        let mut subject = image.clone();
        subject.as_object_mut().unwrap().remove("platform");
        let statement = json!({ "subject": image["digest"] }).to_string();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
            "config": self.add("application/vnd.oci.empty.v1+json", b"{}"),
            "layers": [self.add("application/vnd.in-toto+json", statement.as_bytes())],
            "subject": subject,
        });
        let mut added = self.add(
            "application/vnd.oci.image.manifest.v1+json",
            manifest.to_string().as_bytes(),
        );
        added["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
        added["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        added
    }
}

pub fn digest(content: &[u8]) -> String {
    let hex = ring::digest::digest(&SHA256, content);
    let hex: String = hex
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// The tar file of a layer with a program for an architecture. It is large enough that sending it takes some time.
fn layer(machine: u8, seed: u32, image: Image) -> Vec<u8> {
    let mut program = vec![
        0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, machine, 0,
    ];
    // Data that cannot be compressed.
    let mut state = seed + std::process::id();
    program.extend((0..image.size).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    }));
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, "bin/program", &program[..])
        .unwrap();
    tar.into_inner().unwrap()
}

fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            // Compressing random bytes takes time and makes them no smaller.
            let mut packed = GzEncoder::new(Vec::new(), flate2::Compression::none());
            packed.write_all(tar).unwrap();
            packed.finish().unwrap()
        }
        Compression::Zstd => {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("layer");
            fs::write(&path, tar).unwrap();
            let packed = Command::new("zstd").arg("-qc").arg(&path).output().unwrap();
            assert!(packed.status.success(), "zstd");
            packed.stdout
        }
    }
}
