//! `formula`: publishes a release to those who install it: a Homebrew formula for a program that runs the
//! image by its digest, and `versions.json`, the list of all releases.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    base::{error::Failure, secret, version::Version},
    build::work_tree,
    cli::VersionOption,
    commands::command::Command,
    config::{files::FILE, resolve::shared_text},
    engine::run::options,
    facts::{context::Context, git},
    plan::quote_for_shell,
    release::{dist, paths},
    settings::Settings,
};

/// Write the Homebrew formula and the list of versions of a release
#[derive(Args, Clone, Debug)]
pub struct Formula {
    #[command(flatten)]
    version: VersionOption,
    /// The folder to write to; an existing versions.json is extended [default: target/dist]
    #[arg(long, short, value_name = "FOLDER")]
    output: Option<PathBuf>,
}

const VERSIONS: &str = "versions.json";

const FORMULA_TEMPLATE: &str = include_str!("formula.rb");
const WRAPPER_TEMPLATE: &str = include_str!("wrapper.sh");

/// The version of the receipt's format and of that of `versions.json`.
const SCHEMA_VERSION: u32 = 1;

/// What the formula needs of a release's receipt: see [`crate::release::receipt::Receipt`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct ReleaseReceipt {
    schema: u32,
    version: String,
    channel: String,
    digest: String,
    reference: String,
    platforms: Vec<ReceiptPlatform>,
    revision: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct ReceiptPlatform {
    platform: String,
}

/// `versions.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct VersionList {
    /// A change that breaks readers raises it.
    schema: u32,
    /// The newest stable version; none if there are only pre-releases.
    latest: Option<String>,
    /// The newest first.
    versions: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    version: String,
    channel: String,
    /// `repository@digest`: what to run.
    reference: String,
    digest: String,
    platforms: Vec<String>,
    revision: Option<String>,
}

impl VersionList {
    fn read(path: &Path, text: &str) -> Result<Self> {
        let read = || format!("`{}` cannot be read", path.display());
        let versions: Self = serde_json::from_str(text).with_context(read)?;
        check_schema(path, versions.schema)?;
        Ok(versions)
    }

    /// Adds a version.
    ///
    /// # Errors
    /// When the list has the version with another image.
    fn with(mut self, released: &ReleaseReceipt) -> Result<Self, Failure> {
        let same = |entry: &&Entry| entry.version == released.version;
        if let Some(known) = self.versions.iter().find(same)
            && known.digest != released.digest
        {
            return Err(Failure::new(format!(
                "{VERSIONS} has {} with digest {}, but the receipt has {}",
                released.version, known.digest, released.digest
            ))
            .hint("compare both digests with the registry's (`cargo xtask verify-image`), and remove the wrong entry or receipt"));
        }
        self.versions
            .retain(|entry| entry.version != released.version);
        self.versions.push(Entry {
            version: released.version.clone(),
            channel: released.channel.clone(),
            reference: released.reference.clone(),
            digest: released.digest.clone(),
            platforms: released
                .platforms
                .iter()
                .map(|one| one.platform.clone())
                .collect(),
            revision: released.revision.clone(),
        });
        self.versions.sort_by_cached_key(|entry| {
            std::cmp::Reverse(semver::Version::parse(&entry.version).ok())
        });
        let stable = |entry: &&Entry| Version::parse(&entry.version).is_ok_and(|v| v.is_release());
        self.latest = self
            .versions
            .iter()
            .find(stable)
            .map(|entry| entry.version.clone());
        Ok(self)
    }
}

fn check_schema(path: &Path, schema: u32) -> Result<(), Failure> {
    if schema == SCHEMA_VERSION {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`{}` has schema {schema}, and this xtask knows {SCHEMA_VERSION}",
        path.display()
    ))
    .hint("use the xtask of the commit that wrote it, or a newer one"))
}

/// Homebrew's class for a formula of this name: `StigmerAgentRunner` for `stigmer-agent-runner`.
/// <https://docs.brew.sh/Formula-Cookbook#names-of-formulae>
fn class_name(name: &str) -> String {
    let capitalised = |word: &str| {
        let word = word.to_ascii_lowercase();
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    name.split(['-', '_', '.']).map(capitalised).collect()
}

/// Replaces the `@NAMES@` of a template, in one pass: a name within a value is not replaced.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('@') {
        out.push_str(before);
        let value = after.split_once('@').and_then(|(name, after)| {
            let known = values.iter().find(|(known, _)| *known == name)?;
            Some((known.1, after))
        });
        rest = if let Some((value, after)) = value {
            out.push_str(value);
            after
        } else {
            out.push('@');
            after
        };
    }
    out + rest
}

/// The program that runs the image as `run-local` does, as far as a script can.
fn wrapper(settings: &Settings, released: &ReleaseReceipt) -> Result<String, Failure> {
    let run = &settings.run;
    let mut fixed = Vec::new();
    for (name, value) in &run.env {
        if secret::is_secret_name(name) || secret::looks_like_secret(value) {
            return Err(Failure::usage(format!(
                "`run.env` has the secret `{name}`, which would be readable in the formula"
            ))
            .hint("pass it from the environment: `run.pass-env`"));
        }
        let unless_set = if run.pass_env.contains(name) {
            format!("[ -n \"${{{name}:-}}\" ] || ")
        } else {
            String::new()
        };
        fixed.push(format!(
            "{unless_set}export {name}={}",
            quote_for_shell(value)
        ));
    }
    let mut names = run.pass_env.clone();
    names.extend(
        run.env
            .keys()
            .filter(|name| !run.pass_env.contains(name))
            .cloned(),
    );
    let volumes: Vec<_> = settings
        .mounts()
        .iter()
        .map(|volume| volume_lines(&volume.value))
        .collect::<Result<_, _>>()?;
    let options: Vec<_> = options(&run.limits, &run.hardening, run.stop_grace)
        .iter()
        .map(|word| quote_for_shell(word))
        .collect();
    let passed: Vec<_> = run
        .pass_env
        .iter()
        .map(|name| format!("  {name}"))
        .collect();
    Ok(fill(
        WRAPPER_TEMPLATE,
        &[
            ("NAME", &run.container),
            ("IMAGE", &quote_for_shell(&released.reference)),
            ("VERSION", &released.version),
            ("OPTIONS", &options.join(" ")),
            ("VOLUMES", volumes.concat().trim_end()),
            ("FIXED", &fixed.join("\n")),
            ("ADDRESSES", &run.addresses.join(" ")),
            ("NAMES", &names.join(" ")),
            ("PASSED", &passed.join("\n")),
        ],
    ))
}

/// The lines that mount a folder of the user.
fn volume_lines(volume: &str) -> Result<String, Failure> {
    let (host, rest) = volume.split_once(':').unwrap_or((volume, ""));
    let mount = if rest.contains(':') {
        format!("\"$folder:{rest}${{relabel:+,$relabel}}\"")
    } else {
        format!("\"$folder:{rest}${{relabel:+:$relabel}}\"")
    };
    let folder = match host.strip_prefix("~/") {
        Some(below) => format!("\"$HOME\"/{}", quote_for_shell(below)),
        None if host.starts_with('/') => quote_for_shell(host),
        None => {
            return Err(Failure::usage(format!(
                "the volume `{volume}` is relative to this repository, and the formula's users don't have it"
            ))
            .hint("give an absolute path or one below `~/` in `run.volumes`"));
        }
    };
    Ok(format!(
        "folder={folder}\nready \"$folder\"\nset -- \"$@\" --volume {mount}\n"
    ))
}

/// The formula. It names the commit, so it needs no checksum of a download.
fn formula(settings: &Settings, released: &ReleaseReceipt, tag: &str) -> Result<String, Failure> {
    let image = &settings.image;
    let Some(revision) = &released.revision else {
        return Err(Failure::new(format!(
            "the receipt of {} names no commit, which the formula does",
            released.version
        ))
        .hint("release from a git work tree"));
    };
    for (key, value) in [
        ("image.source", &image.source),
        ("image.licenses", &image.licenses),
        ("image.description", &image.description),
    ] {
        if value.is_empty() {
            return Err(Failure::usage(format!(
                "`{key}` is not set, and the formula needs it"
            )));
        }
    }
    let wrapper = wrapper(settings, released)?;
    let indented: Vec<_> = wrapper
        .lines()
        .map(|line| {
            if line.is_empty() {
                String::new()
            } else {
                format!("      {line}")
            }
        })
        .collect();
    Ok(fill(
        FORMULA_TEMPLATE,
        &[
            ("NAME", &settings.run.container),
            ("CLASS", &class_name(&settings.run.container)),
            ("DESC", &ruby(&image.description)),
            ("HOMEPAGE", &ruby(&image.source)),
            ("GIT", &ruby(&format!("{}.git", image.source))),
            ("TAG", &ruby(tag)),
            ("REVISION", &ruby(revision)),
            ("LICENSE", &ruby(&image.licenses)),
            ("IMAGE", &ruby(&released.reference)),
            ("WRAPPER", &indented.join("\n")),
        ],
    ))
}

/// Escapes a text for Ruby's double quotes.
fn ruby(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace("#{", "\\#{")
}

/// The settings with the container's name of the project's file. The formula has this name, so a personal file or the
/// environment of the machine that releases must not change it.
fn shared_settings(settings: &Settings) -> Result<Settings> {
    let file = settings.root.join(FILE);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("`{}` cannot be read", file.display()))?;
    let mut shared = settings.clone();
    if let Some(name) = shared_text(&text, "run.container")? {
        shared.run.container = name;
    }
    Ok(shared)
}

/// The paths of all files.
struct Paths {
    receipt: PathBuf,
    formula: PathBuf,
    versions: PathBuf,
}

impl Paths {
    fn new(cx: &Context, settings: &Settings, args: &Formula) -> Self {
        let release = settings.root.join(paths::FOLDER);
        let output = args
            .output
            .as_ref()
            .map_or_else(|| release.clone(), |folder| cx.env.cwd.join(folder));
        Self {
            receipt: release.join(format!("{}.json", settings.version.value)),
            formula: output.join(format!("{}.rb", settings.run.container)),
            versions: output.join(VERSIONS),
        }
    }
}

impl Command for Formula {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let version = &cx.settings.version.value;
        if version.semver().is_none() {
            return Err(Failure::usage(format!(
                "`{version}` is not a release: a formula is for a SemVer version"
            ))
            .hint("name one: `--version 1.2.3`")
            .into());
        }
        let settings = &shared_settings(cx.settings)?;
        let paths = Paths::new(cx, settings, self);
        let show = |path: &Path| paths::display(cx.settings, path);
        if cx.dry_run {
            let formula = if version.is_release() {
                format!(
                    "# write {}, unless a newer version is in {VERSIONS}\n",
                    show(&paths.formula)
                )
            } else {
                String::new()
            };
            return Ok(cx.ui.print_plan(&format!(
                "# read {}\n# put {version} into {}\n{formula}",
                show(&paths.receipt),
                show(&paths.versions)
            ))?);
        }
        let released = receipt(cx, &paths.receipt)?;
        let versions = match std::fs::read_to_string(&paths.versions) {
            Ok(text) => VersionList::read(&paths.versions, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => VersionList {
                schema: SCHEMA_VERSION,
                latest: None,
                versions: Vec::new(),
            },
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("`{}` cannot be read", paths.versions.display()));
            }
        };
        let versions = versions.with(&released)?;
        // Both files are made before the first is written.
        let formula = if versions.latest.as_deref() == Some(version.as_str()) {
            let tags = git::tags(cx.exec, &cx.settings.root).names;
            let tag = work_tree::tag_of(cx.settings, &tags).cloned();
            let tag = tag.unwrap_or_else(|| version.git_tag());
            Some(formula(settings, &released, &tag)?)
        } else {
            None
        };
        dist::write(
            &paths.versions,
            &(serde_json::to_string_pretty(&versions)? + "\n"),
        )?;
        cx.ui.status("Wrote", &show(&paths.versions));
        let mut result = format!("{}\n", paths.versions.display());
        if let Some(formula) = formula {
            dist::write(&paths.formula, &formula)?;
            cx.ui.status("Wrote", &show(&paths.formula));
            result += &format!("{}\n", paths.formula.display());
        } else {
            let newest = versions.latest.as_deref().unwrap_or("no stable version");
            cx.ui.status("Kept", &format!("the formula of {newest}"));
        }
        Ok(cx.ui.print(&result)?)
    }
}

fn receipt(cx: &Context, path: &Path) -> Result<ReleaseReceipt> {
    let version = &cx.settings.version.value;
    let text = std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!(
            "there is no receipt of {version}: cannot read `{}`: {error}",
            paths::display(cx.settings, path)
        ))
        .hint(format!(
            "publish it: `cargo xtask push-multiarch --version {version}`; if it is published already, that only writes the receipt"
        ))
    })?;
    let released: ReleaseReceipt = serde_json::from_str(&text)
        .with_context(|| format!("`{}` is not a receipt", paths::display(cx.settings, path)))?;
    check_schema(path, released.schema)?;
    Ok(released)
}

#[cfg(test)]
impl crate::commands::testing::Examples for Formula {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env, config::files::Files, oci::verify::VerifiedPlatform,
        release::receipt::Receipt, settings::resolve::Arguments,
    };

    fn released(version: &str) -> ReleaseReceipt {
        let digest = format!("sha256:{}", "3f1c0a9b7d52e864".repeat(4));
        ReleaseReceipt {
            schema: 1,
            version: version.to_owned(),
            channel: "release".to_owned(),
            reference: format!("ghcr.io/stigmer/agent-runner@{digest}"),
            digest,
            platforms: ["linux/amd64", "linux/arm64"]
                .map(|platform| ReceiptPlatform {
                    platform: platform.to_owned(),
                })
                .to_vec(),
            revision: Some("0123456789abcdef0123456789abcdef01234567".to_owned()),
        }
    }

    fn settings(more: &str) -> Settings {
        let arguments = Arguments {
            version: Some("1.2.3".to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: include_str!("../../../../../xtask.toml").to_owned(),
            local: Some(format!("schema = 1\n{more}")),
        };
        Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap()
    }

    fn none() -> VersionList {
        VersionList {
            schema: 1,
            latest: None,
            versions: Vec::new(),
        }
    }

    #[test]
    fn a_receipt_tells_all_that_is_needed() {
        let wanted = released("1.2.3");
        let receipt = Receipt {
            schema: wanted.schema,
            image: "ghcr.io/stigmer/agent-runner".to_owned(),
            version: wanted.version.clone(),
            flavour: None,
            channel: wanted.channel.clone(),
            digest: wanted.digest.clone(),
            reference: wanted.reference.clone(),
            media_type: String::new(),
            tags: Vec::new(),
            kept: Vec::new(),
            platforms: ["linux/amd64", "linux/arm64"]
                .map(|platform| VerifiedPlatform {
                    platform: platform.to_owned(),
                    digest: String::new(),
                    base: None,
                    compressed: 0,
                    layers: None,
                })
                .to_vec(),
            attestations: 0,
            signed: false,
            verify: None,
            revision: wanted.revision.clone(),
            source: String::new(),
            seconds: Vec::new(),
        };
        let read: ReleaseReceipt =
            serde_json::from_value(serde_json::to_value(receipt).unwrap()).unwrap();
        assert_eq!(read, wanted);
    }

    #[test]
    fn the_formula_of_this_repository() {
        let text = formula(&settings(""), &released("1.2.3"), "v1.2.3").unwrap();
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("formula", text);
        });
    }

    #[test]
    fn versions_are_ordered_as_semver_does() {
        let mut versions = none();
        for version in ["1.9.0", "1.10.0", "1.10.0-rc.1", "2.0.0-rc.1", "1.2.3"] {
            versions = versions.with(&released(version)).unwrap();
        }
        let order: Vec<_> = versions
            .versions
            .iter()
            .map(|entry| entry.version.as_str())
            .collect();
        assert_eq!(
            order,
            ["2.0.0-rc.1", "1.10.0", "1.10.0-rc.1", "1.9.0", "1.2.3"]
        );
        assert_eq!(versions.latest.as_deref(), Some("1.10.0"));
        let again = versions.clone().with(&released("1.9.0")).unwrap();
        assert_eq!(again, versions, "the same once more changes nothing");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            let one = none().with(&released("1.2.3")).unwrap();
            insta::assert_snapshot!("versions", serde_json::to_string_pretty(&one).unwrap());
        });
    }

    #[test]
    fn a_version_has_one_image() {
        let versions = none().with(&released("1.2.3")).unwrap();
        let mut other = released("1.2.3");
        other.digest = "sha256:other".to_owned();
        let why = versions.with(&other).unwrap_err().to_string();
        assert!(why.ends_with(", but the receipt has sha256:other"), "{why}");
        let newer = VersionList::read(
            Path::new("versions.json"),
            r#"{"schema":2,"latest":null,"versions":[]}"#,
        );
        assert_eq!(
            newer.unwrap_err().to_string(),
            "`versions.json` has schema 2, and this xtask knows 1"
        );
    }

    #[test]
    fn secrets_and_places_of_this_repository_are_no_part_of_it() {
        let why = |more: &str| {
            wrapper(&settings(more), &released("1.2.3"))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            why("[run.env]\nMY_TOKEN = 'x'\n"),
            "`run.env` has the secret `MY_TOKEN`, which would be readable in the formula"
        );
        assert_eq!(
            why("[run]\nvolumes = ['./data:/data']\n"),
            "the volume `./data:/data` is relative to this repository, and the formula's users don't have it"
        );
    }

    /// As Homebrew's `Formulary.class_s` does.
    #[test]
    fn classes_are_named_as_homebrew_names_them() {
        for (name, class) in [
            ("stigmer-agent-runner", "StigmerAgentRunner"),
            ("myRunner", "Myrunner"),
            ("a_b.c", "ABC"),
        ] {
            assert_eq!(class_name(name), class);
        }
    }

    #[test]
    fn names_are_filled_in_once() {
        let values = [("A", "@B@"), ("B", "b")];
        assert_eq!(fill("@A@ @B@ me@B$@", &values), "@B@ b me@B$@");
        assert_eq!(fill("x@A", &values), "x@A");
        assert_eq!(fill("$@ @A@ \"$@\"", &values), "$@ @B@ \"$@\"");
        assert_eq!(ruby("a\"b\\c#{d}#e"), "a\\\"b\\\\c\\#{d}#e");
    }
}
