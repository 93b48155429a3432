//! Checks that an image is what it should be: every platform is there, and is what the index and
//! the configuration say, down to the ELF headers of its programs.

use std::{collections::BTreeMap, io::Read, thread};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Serialize;

use super::{
    digest::{Digesting, sha256},
    filesystem::{self, Program},
    image_config::ImageConfig,
    layer,
    manifest::{Descriptor, DescriptorPlatform, Manifest},
    source::Source,
    stop::StopCheck,
};
use crate::base::{
    image::{Budget, Platform, human_bytes},
    parallel,
};

/// How many layers are asked for at once.
const SIDE_BY_SIDE: usize = 4;

/// What an image must be.
#[derive(Clone, Debug)]
pub struct Expected {
    pub platforms: Vec<Platform>,
    /// Labels and their values.
    pub labels: BTreeMap<String, String>,
    /// Labels that it must not have.
    pub absent_labels: Vec<String>,
    pub budget: Budget,
    pub user: ExpectedUser,
    /// Whether there must be a health check.
    pub health_check: bool,
}

/// Who the image must run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedUser {
    Any,
    NotRoot,
    /// A user id. A name in the image's configuration cannot be compared with it, but is not root.
    Uid(u32),
}

/// How much of an image is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Manifests and configurations are read; layers must be there, with their size.
    Shallow,
    /// Layers are read too, down to the ELF headers of the programs in them.
    Deep,
}

/// An image that is as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Of the index, or of the manifest of a single image.
    pub digest: String,
    pub media_type: String,
    pub platforms: Vec<VerifiedPlatform>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedPlatform {
    pub platform: String,
    pub digest: String,
    /// The base image with its digest, if the labels name both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The size of the compressed layers in bytes.
    pub compressed: u64,
    /// What the layers contain; none if they were not read.
    #[serde(flatten)]
    pub layers: Option<VerifiedLayers>,
}

/// What is known of layers that were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedLayers {
    /// The size of the tar files in bytes.
    pub unpacked: u64,
    /// The number of programs and libraries whose ELF headers were checked.
    pub programs: usize,
}

impl Verified {
    /// `linux/amd64`, …
    pub fn platform_names(&self) -> Vec<String> {
        let platforms = self.platforms.iter();
        platforms.map(|one| one.platform.clone()).collect()
    }
}

impl VerifiedPlatform {
    /// The sizes, for people.
    pub fn sizes(&self) -> String {
        let download = format!("{} to download", human_bytes(self.compressed));
        match &self.layers {
            Some(layers) => format!("{download}, {} unpacked", human_bytes(layers.unpacked)),
            None => download,
        }
    }

    /// The sizes and the number of programs, for people.
    pub fn summary(&self) -> String {
        let sizes = self.sizes();
        match &self.layers {
            Some(layers) => format!("{sizes}, {} programs and libraries", layers.programs),
            None => sizes,
        }
    }
}

/// Verifies an image, and reports everything that is wrong at once.
///
/// # Errors
/// What is wrong, one line for each; or why the image cannot be read.
pub fn verify(
    source: &dyn Source,
    root: &str,
    expected: &Expected,
    depth: Depth,
    stop: StopCheck,
) -> Result<Verified> {
    let content = read_manifest(source, root)?;
    let top: Manifest = serde_json::from_slice(&content).context("cannot read the manifest")?;
    let children = if top.is_index() {
        top.manifests.clone()
    } else {
        vec![Descriptor {
            digest: root.to_owned(),
            media_type: top.media_type.clone(),
            ..Descriptor::default()
        }]
    };
    let images = thread::scope(|scope| {
        let images = children.iter().filter(|child| !child.is_attestation());
        let running: Vec<_> = images
            .map(|child| {
                let check = ImageCheck {
                    source,
                    expected,
                    depth,
                    stop,
                };
                scope.spawn(move || check.run(child))
            })
            .collect();
        let panicked = |_| Err(anyhow!("the thread that verifies a platform panicked"));
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(panicked))
            .collect::<Result<Vec<_>>>()
    })?;
    let (platforms, problems): (Vec<_>, Vec<_>) = images.into_iter().unzip();
    let mut problems: Vec<String> = problems.into_iter().flatten().collect();
    problems.extend(platform_problems(&platforms, &expected.platforms));
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(Verified {
        digest: root.to_owned(),
        media_type: top.media_type,
        platforms,
    })
}

/// Reads a manifest, and checks it against its digest.
///
/// # Errors
/// When it cannot be read, or differs from its digest.
pub fn read_manifest(source: &dyn Source, digest: &str) -> Result<Vec<u8>> {
    let content = source.manifest(digest)?;
    check_manifest(&content, digest)?;
    Ok(content)
}

/// Checks the content of a manifest against its digest.
///
/// # Errors
/// When they differ.
pub fn check_manifest(content: &[u8], digest: &str) -> Result<()> {
    if sha256(content) != digest {
        bail!("the content of manifest {digest} does not match its digest");
    }
    Ok(())
}

/// Reads an image configuration, and checks it against its digest.
///
/// # Errors
/// When it cannot be read, or differs from its digest.
pub fn read_config(source: &dyn Source, descriptor: &Descriptor) -> Result<ImageConfig> {
    let mut content = Vec::new();
    // One byte more shows that there is more.
    let limit = descriptor.size.saturating_add(1);
    let mut blob = source.blob(&descriptor.digest)?.take(limit);
    blob.read_to_end(&mut content)?;
    if sha256(&content) != descriptor.digest || content.len() as u64 != descriptor.size {
        let digest = &descriptor.digest;
        bail!("the content of configuration {digest} does not match its digest and size");
    }
    serde_json::from_slice(&content).context("cannot read the image configuration")
}

/// The base image with its digest, by the OCI's labels.
fn base_image(config: &ImageConfig) -> Option<String> {
    let label = |name: &str| config.label(&format!("org.opencontainers.image.base.{name}"));
    Some(format!("{}@{}", label("name")?, label("digest")?))
}

/// Layers that are not those of the configuration. Engines refuse to pull such an image.
fn layer_problems(in_config: &[&str], found: &[String]) -> Vec<String> {
    if in_config.len() != found.len() {
        return vec![format!(
            "the configuration lists {} layers, the manifest {}",
            in_config.len(),
            found.len()
        )];
    }
    let pairs = in_config.iter().zip(found);
    let differing = pairs.filter(|(in_config, found)| **in_config != *found);
    let problem = |(in_config, found): (&&str, &String)| {
        format!("the configuration lists the layer {in_config} (`diff_ids`), but it is {found}")
    };
    differing.map(problem).collect()
}

/// Platforms that are missing, that occur more than once, or that are not expected.
fn platform_problems(found: &[VerifiedPlatform], expected: &[Platform]) -> Vec<String> {
    let mut problems = Vec::new();
    for platform in expected {
        let same = |one: &&VerifiedPlatform| one.platform == platform.to_string();
        match found.iter().filter(same).count() {
            0 => problems.push(format!("{platform} is missing")),
            1 => {}
            count => problems.push(format!("{platform} occurs {count} times")),
        }
    }
    for one in found {
        let same = |platform: &Platform| platform.to_string() == one.platform;
        if !expected.iter().any(same) {
            problems.push(format!("{} is not expected", one.platform));
        }
    }
    problems
}

/// The check of one platform's image.
struct ImageCheck<'a> {
    source: &'a dyn Source,
    expected: &'a Expected,
    depth: Depth,
    stop: StopCheck<'a>,
}

impl ImageCheck<'_> {
    /// What the image holds, and what is wrong with it.
    fn run(&self, descriptor: &Descriptor) -> Result<(VerifiedPlatform, Vec<String>)> {
        let content = read_manifest(self.source, &descriptor.digest)?;
        let is_listed = descriptor.size > 0;
        if is_listed && content.len() as u64 != descriptor.size {
            let (digest, size) = (&descriptor.digest, content.len());
            bail!(
                "manifest {digest} has {size} bytes, and the index says {}",
                descriptor.size
            );
        }
        let manifest: Manifest =
            serde_json::from_slice(&content).context("cannot read a platform's manifest")?;
        let config = manifest
            .config
            .context("a platform's manifest has no configuration")?;
        let config = read_config(self.source, &config).or_else(|why| {
            match self.source.find_blob(&config.digest) {
                Ok(None) => bail!("configuration {} is missing", config.digest),
                _ => Err(why),
            }
        })?;
        let platform = config.platform().normalized();
        let mut problems = Vec::new();
        if let Some(in_index) = descriptor
            .platform
            .as_ref()
            .map(DescriptorPlatform::normalized)
            && in_index != platform
        {
            problems.push(format!("the index says {in_index}"));
        }
        problems.extend(self.config_problems(&config));
        let mut found = VerifiedPlatform {
            platform: platform.to_string(),
            digest: descriptor.digest.clone(),
            base: base_image(&config),
            compressed: manifest
                .layers
                .iter()
                .fold(0, |sum: u64, layer| sum.saturating_add(layer.size)),
            layers: None,
        };
        match self.depth {
            Depth::Shallow => self.find_layers(&manifest.layers)?,
            Depth::Deep => {
                let (layers, programs, diff_ids) = self.read_layers(&manifest.layers)?;
                found.layers = Some(layers);
                problems.extend(layer_problems(&config.diff_ids(), &diff_ids));
                problems.extend(filesystem::wrong_programs(&programs, &platform));
            }
        }
        problems.extend(self.size_problems(&found));
        let problems = problems.into_iter().map(|why| format!("{platform}: {why}"));
        Ok((found, problems.collect()))
    }

    fn config_problems(&self, config: &ImageConfig) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, expected) in &self.expected.labels {
            match config.label(name) {
                Some(value) if value == expected => {}
                Some(value) => {
                    problems.push(format!("label {name} is `{value}`, not `{expected}`"));
                }
                None => problems.push(format!("label {name} is missing")),
            }
        }
        for name in &self.expected.absent_labels {
            if let Some(value) = config.label(name) {
                problems.push(format!(
                    "label {name} is `{value}`, but there should be none"
                ));
            }
        }
        let user = config.run.user.split(':').next().unwrap_or_default();
        // Engines take every number for a user id, however it is written.
        let is_root_id = user.parse() == Ok(0_i64);
        let is_root = is_root_id || matches!(user, "" | "root");
        let is_id = user
            .trim_start_matches('+')
            .bytes()
            .all(|byte| byte.is_ascii_digit());
        match self.expected.user {
            ExpectedUser::NotRoot | ExpectedUser::Uid(1..) if is_root => {
                problems.push("it runs as root".to_owned());
            }
            // A name other than `root` can have every id but 0.
            ExpectedUser::Uid(uid)
                if !is_root && (uid == 0 || (is_id && user.parse() != Ok(uid))) =>
            {
                problems.push(format!("it runs as user {user}, not {uid}"));
            }
            ExpectedUser::Any | ExpectedUser::NotRoot | ExpectedUser::Uid(_) => {}
        }
        let check = config.run.healthcheck.as_ref();
        let is_check =
            |test: &Vec<serde_json::Value>| test.first().is_some_and(|first| first != "NONE");
        let has_check = check.is_some_and(|check| check["Test"].as_array().is_some_and(is_check));
        if self.expected.health_check && !has_check {
            problems.push("it has no health check".to_owned());
        }
        problems
    }

    fn size_problems(&self, found: &VerifiedPlatform) -> Vec<String> {
        let budget = self.expected.budget;
        let over = |what: &str, size: u64, limit: Option<u64>| {
            let limit = limit.filter(|limit| size > *limit)?;
            let (size, limit) = (human_bytes(size), human_bytes(limit));
            Some(format!("{size} {what}, the budget is {limit}"))
        };
        let download = over("to download", found.compressed, budget.compressed);
        let unpacked = found.layers.as_ref();
        let unpacked =
            unpacked.and_then(|layers| over("unpacked", layers.unpacked, budget.unpacked));
        download.into_iter().chain(unpacked).collect()
    }

    /// Fails if a layer is missing, or has another size than the manifest says.
    fn find_layers(&self, layers: &[Descriptor]) -> Result<()> {
        parallel::map(SIDE_BY_SIDE, layers.iter(), |layer| {
            (self.stop)()?;
            let digest = &layer.digest;
            let found = self.source.find_blob(digest)?;
            let found = found.with_context(|| format!("layer {digest} is missing"))?;
            match found.size {
                Some(size) if size != layer.size => bail!(
                    "layer {digest} has {size} bytes, and the manifest says {}",
                    layer.size
                ),
                _ => Ok(()),
            }
        })?;
        Ok(())
    }

    /// Returns also the programs in the layers, and the digests of their tar files.
    fn read_layers(
        &self,
        layers: &[Descriptor],
    ) -> Result<(VerifiedLayers, Vec<Program>, Vec<String>)> {
        let (mut unpacked, mut programs, mut diff_ids) = (0, Vec::new(), Vec::new());
        for layer in layers {
            let read = |tar: Box<dyn Read + '_>| {
                let mut tar = Digesting::new(tar);
                let contents = filesystem::read(&mut tar)?;
                Ok((contents, tar.finish().0))
            };
            let (contents, diff_id) = layer::read(self.source, layer, self.stop, read)
                .with_context(|| format!("cannot verify layer {}", layer.digest))?;
            unpacked += contents.size;
            programs.extend(contents.programs);
            diff_ids.push(diff_id);
        }
        let count = programs.len();
        Ok((
            VerifiedLayers {
                unpacked,
                programs: count,
            },
            programs,
            diff_ids,
        ))
    }
}

#[cfg(test)]
mod tests;
