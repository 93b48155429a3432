//! Whether what an archive or a registry holds is what was meant: every platform is there and
//! is what it says, down to the headers of its programs.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    thread,
};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use super::{
    Config, Descriptor, DescriptorPlatform, Hashing, Manifest,
    archive::Archive,
    digest,
    filesystem::{self, Measured, Program},
};
use crate::{
    exec::Exec,
    image::{Budget, Platform, human_bytes},
    registry::Registry,
};

/// Where the image is.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    Archive(&'a Archive),
    Registry(&'a Registry<'a>),
}

impl Place<'_> {
    /// A manifest, which must be what its digest says.
    fn manifest(self, wanted: &str) -> Result<Vec<u8>> {
        match self {
            Self::Archive(archive) => archive.read(wanted),
            Self::Registry(registry) => {
                let found = registry
                    .manifest(wanted)?
                    .with_context(|| format!("the registry has no manifest {wanted}"))?;
                if digest(found.content.as_bytes()) != wanted {
                    bail!("the registry's content of {wanted} is another");
                }
                Ok(found.content.into_bytes())
            }
        }
    }

    fn config(self, descriptor: &Descriptor) -> Result<Config> {
        let mut content = Vec::new();
        let mut stream = Hashing::new(self.stream(&descriptor.digest)?);
        stream.read_to_end(&mut content)?;
        if stream.digest() != descriptor.digest {
            bail!("the content of {} is another", descriptor.digest);
        }
        serde_json::from_slice(&content).context("the configuration cannot be read")
    }

    fn stream(self, digest: &str) -> Result<Box<dyn Read + Send>> {
        Ok(match self {
            Self::Archive(archive) => Box::new(archive.reader(digest)?.0),
            Self::Registry(registry) => Box::new(registry.blob(digest)?),
        })
    }
}

/// What an image is to be.
#[derive(Clone, Debug)]
pub struct Expected {
    pub platforms: Vec<Platform>,
    /// Labels that must have just this value.
    pub labels: BTreeMap<String, String>,
    pub budget: Budget,
    pub attestations: Attestations,
}

/// Whether statements on origin and content must come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestations {
    Wanted,
    /// They may be there; nobody asks for them.
    NotAsked,
}

/// What was found to be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub digest: String,
    pub media_type: String,
    pub platforms: Vec<VerifiedPlatform>,
    /// How many attestation manifests it has.
    pub attestations: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedPlatform {
    pub platform: String,
    pub digest: String,
    /// Bytes to download.
    pub compressed: u64,
    /// Bytes of the layers' tar archives.
    pub unpacked: u64,
    /// How many programs and libraries were looked at.
    pub programs: usize,
}

/// Looks at everything, and tells all that is wrong at once.
///
/// # Errors
/// What is wrong, a line each; or why it could not be looked at.
pub fn verify(exec: &Exec, place: Place, root: &str, expected: &Expected) -> Result<Verified> {
    let content = place.manifest(root)?;
    let top: Manifest = serde_json::from_slice(&content).context("the manifest cannot be read")?;
    let children = if top.is_index() {
        top.manifests.clone()
    } else {
        vec![Descriptor {
            digest: root.to_owned(),
            media_type: top.media_type.clone(),
            ..Descriptor::default()
        }]
    };
    // Side by side: each platform is unpacked and read whole.
    let looked = thread::scope(|scope| {
        let images = children.iter().filter(|child| !child.is_attestation());
        let running: Vec<_> = images
            .map(|child| {
                let mut look = Look {
                    exec,
                    place,
                    expected,
                    problems: Vec::new(),
                };
                scope.spawn(move || look.image(child).map(|found| (found, look.problems)))
            })
            .collect();
        let died = || bail!("a thread that looks at a platform died");
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| died()))
            .collect::<Result<Vec<_>>>()
    });
    exec.check()?;
    let (platforms, problems): (Vec<_>, Vec<_>) = looked?.into_iter().unzip();
    let mut problems: Vec<String> = problems.into_iter().flatten().collect();
    let attestations = children.iter().filter(|one| one.is_attestation()).count();
    for wanted in &expected.platforms {
        match platforms
            .iter()
            .filter(|one| one.platform == wanted.to_string())
            .count()
        {
            0 => problems.push(format!("{wanted} is missing")),
            1 => {}
            more => problems.push(format!("{wanted} is there {more} times")),
        }
    }
    for found in &platforms {
        let wanted = |one: &Platform| one.to_string() == found.platform;
        if !expected.platforms.iter().any(wanted) {
            problems.push(format!("{} was not asked for", found.platform));
        }
    }
    if expected.attestations == Attestations::Wanted && attestations < platforms.len() {
        problems.push("attestations are missing".to_owned());
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(Verified {
        digest: root.to_owned(),
        media_type: top.media_type,
        platforms,
        attestations,
    })
}

struct Look<'a> {
    exec: &'a Exec,
    place: Place<'a>,
    expected: &'a Expected,
    problems: Vec<String>,
}

impl Look<'_> {
    fn image(&mut self, descriptor: &Descriptor) -> Result<VerifiedPlatform> {
        let content = self.place.manifest(&descriptor.digest)?;
        let manifest: Manifest =
            serde_json::from_slice(&content).context("a platform's manifest cannot be read")?;
        let config_is = manifest
            .config
            .context("a platform's manifest has no configuration")?;
        let config = self.place.config(&config_is)?;
        let platform = config.platform().normal();
        let mut wrong = Vec::new();
        if let Some(said) = descriptor.platform.as_ref().map(DescriptorPlatform::normal)
            && said != platform
        {
            wrong.push(format!("the index calls it {said}"));
        }
        self.promises(&config, &mut wrong);
        let mut programs: Vec<Program> = Vec::new();
        let mut found = VerifiedPlatform {
            platform: platform.to_string(),
            digest: descriptor.digest.clone(),
            compressed: 0,
            unpacked: 0,
            programs: 0,
        };
        for layer in &manifest.layers {
            let measured = self
                .read_layer(layer)
                .with_context(|| format!("layer {}", layer.digest))?;
            found.compressed += layer.size;
            found.unpacked += measured.unpacked.unwrap_or(0);
            programs.extend(measured.programs);
        }
        found.programs = programs.len();
        wrong.extend(filesystem::complaint(&programs, &platform));
        let budget = self.expected.budget;
        for (what, size, limit) in [
            ("to download", found.compressed, budget.compressed),
            ("unpacked", found.unpacked, budget.unpacked),
        ] {
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                wrong.push(format!(
                    "{} {what}, the budget is {}",
                    human_bytes(size),
                    human_bytes(limit)
                ));
            }
        }
        let lines = wrong.into_iter().map(|why| format!("{platform}: {why}"));
        self.problems.extend(lines);
        Ok(found)
    }

    /// What the configuration alone tells.
    fn promises(&self, config: &Config, wrong: &mut Vec<String>) {
        for (name, wanted) in &self.expected.labels {
            match config.label(name) {
                Some(value) if value == wanted => {}
                Some(value) => wrong.push(format!("label {name} is `{value}`, not `{wanted}`")),
                None => wrong.push(format!("label {name} is missing")),
            }
        }
        let user = config.run.user.split(':').next().unwrap_or_default();
        if matches!(user, "" | "0" | "root") {
            wrong.push("it runs as root".to_owned());
        }
        let check = config.run.healthcheck.as_ref();
        if check.is_none_or(|check| check["Test"].as_array().is_none_or(Vec::is_empty)) {
            wrong.push("it has no health check".to_owned());
        }
    }

    fn read_layer(&self, layer: &Descriptor) -> Result<Measured> {
        let packed = match layer.media_type.rsplit(['.', '+']).next() {
            Some("gzip") => true,
            Some("tar") => false,
            _ => bail!("is of a kind that is not known here: {}", layer.media_type),
        };
        let mut stream = Hashing::new(self.place.stream(&layer.digest)?);
        let (measured, stream) = if packed {
            let mut unpacked = self.exec.gzip(&["-dc"], stream)?;
            let measured = filesystem::read_layer(&mut unpacked)?;
            (measured, unpacked.finish()?)
        } else {
            let measured = filesystem::read_layer(&mut stream)?;
            io::copy(&mut stream, &mut io::sink())?;
            (measured, stream)
        };
        if stream.count != layer.size || stream.digest() != layer.digest {
            bail!("its content is another than the manifest says");
        }
        Ok(measured)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::oci::{archive::Writer, media};

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

    const FINE: &str =
        r#"{"User":"stigmer","Labels":{"v":"1"},"Healthcheck":{"Test":["CMD","probe"]}}"#;

    fn archive(path: &Path, images: &[Image]) -> Archive {
        let mut writer = Writer::create(path).unwrap();
        let mut manifests = Vec::new();
        for image in images {
            let config = format!(
                r#"{{"architecture":"{}","os":"linux","config":{}}}"#,
                image.arch, image.config
            );
            let config = writer
                .content(media::DOCKER_CONFIG, config.as_bytes())
                .unwrap();
            let layer = writer
                .content(
                    "application/vnd.oci.image.layer.v1.tar",
                    &layer(image.machine),
                )
                .unwrap();
            let manifest = Manifest {
                schema_version: 2,
                media_type: media::DOCKER_MANIFEST.to_owned(),
                config: Some(config),
                layers: vec![layer],
                ..Manifest::default()
            };
            let content = serde_json::to_vec(&manifest).unwrap();
            let mut manifest = writer.content(media::DOCKER_MANIFEST, &content).unwrap();
            manifest.platform = Some(DescriptorPlatform {
                architecture: image.arch.to_owned(),
                os: "linux".to_owned(),
                variant: None,
            });
            manifests.push(manifest);
        }
        let index = serde_json::to_vec(&Manifest::index(manifests)).unwrap();
        let root = writer.content(media::DOCKER_INDEX, &index).unwrap();
        writer.finish(&root).unwrap()
    }

    fn look(images: &[Image], change: impl FnOnce(&mut Expected)) -> Result<Verified> {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive(&folder.path().join("a.tar"), images);
        let mut expected = Expected {
            platforms: vec![Platform::linux("amd64"), Platform::linux("arm64")],
            labels: [("v".to_owned(), "1".to_owned())].into(),
            budget: Budget::default(),
            attestations: Attestations::NotAsked,
        };
        change(&mut expected);
        verify(
            &Exec::silent(),
            Place::Archive(&archive),
            &archive.root.digest,
            &expected,
        )
    }

    fn image(arch: &'static str, machine: u8) -> Image {
        Image {
            arch,
            machine,
            config: FINE,
        }
    }

    #[test]
    fn a_right_image_is_told_by_platform() {
        let verified = look(&[image("amd64", 62), image("arm64", 183)], |_| {}).unwrap();
        let platforms: Vec<_> = verified
            .platforms
            .iter()
            .map(|one| (one.platform.as_str(), one.programs))
            .collect();
        assert_eq!(platforms, [("linux/amd64", 1), ("linux/arm64", 1)]);
    }

    #[test]
    fn amd64_programs_in_an_arm64_image_are_found() {
        let error = look(&[image("amd64", 62), image("arm64", 62)], |_| {}).unwrap_err();
        assert_eq!(
            error.to_string(),
            "linux/arm64: 1 of 1 programs and libraries are not for linux/arm64, such as bin/sh"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let bare = Image {
            arch: "amd64",
            machine: 62,
            config: r#"{"Labels":{"v":"2"}}"#,
        };
        let error = look(&[bare], |expected| {
            expected.budget.unpacked = Some(10);
            expected.attestations = Attestations::Wanted;
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "linux/amd64: label v is `2`, not `1`\n\
             linux/amd64: it runs as root\n\
             linux/amd64: it has no health check\n\
             linux/amd64: 2.0 kB unpacked, the budget is 10 B\n\
             linux/arm64 is missing\n\
             attestations are missing"
        );
    }

    #[test]
    fn a_platform_too_many_is_told() {
        let error = look(&[image("amd64", 62), image("arm64", 183)], |expected| {
            expected.platforms.truncate(1);
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "linux/arm64 was not asked for");
    }
}
