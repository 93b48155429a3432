//! The image of the Dockerfile's stage `foundation`, from which Podman's builds start.
//!
//! To find out whether a COPY from another stage is cached, Buildah copies the files again. For the two large
//! layers of the runner's image that takes two seconds in each build. So xtask keeps the image of the stage that has
//! them, with a tag that is a digest of everything that the stage is made from. Later builds take it from the store.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::Result;

use super::{
    dockerfile::{self, BuildFiles},
    instructions::Instructions,
};
use crate::{
    base::image::Platform,
    engine::{EngineFacts, capabilities::Capability, image::Image, labelled::changes_the_escape},
    facts::context::Context,
    oci::digest::{Digesting, sha256},
    settings::Settings,
};

/// The name of the stage.
pub const STAGE: &str = "foundation";

/// The image of the stage for the engine's own platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foundation {
    /// `localhost/agent-runner-foundation:KEY`
    pub reference: String,
    /// Whether the engine has it.
    pub exists: bool,
    /// The id of the base image that it is made from.
    pub base_id: String,
}

impl Foundation {
    /// The image that the next build can start from. None if the engine cannot do that, if it has no base image
    /// yet, or if the key cannot be known. A base image that is known already is not asked for.
    ///
    /// # Errors
    /// When the engine does not answer, and when a signal interrupts.
    pub fn find(
        cx: &Context,
        engine: &EngineFacts,
        files: &BuildFiles,
        known_base: Option<Image>,
    ) -> Result<Option<Self>> {
        if !engine.can(Capability::StageFromImage) {
            return Ok(None);
        }
        let Some(inputs) = inputs(cx.settings, files) else {
            return Ok(None);
        };
        let known_id = known_base
            .filter(|image| is_usable(engine, image))
            .map(|image| image.id);
        let base_id = match known_id {
            Some(id) => Some(id),
            None => base_id(cx, engine)?,
        };
        let Some(base_id) = base_id else {
            return Ok(None);
        };
        let reference = reference(cx.settings, &inputs, &engine.platform, &base_id);
        let found = cx.images_of(&engine.engine, &[&reference])?;
        Ok(Some(Self {
            exists: found.iter().any(Image::is_built_by_xtask),
            reference,
            base_id,
        }))
    }

    /// Whether the engine has another base image now: Podman looks for a newer one in each build.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn is_outdated(&self, cx: &Context, engine: &EngineFacts) -> Result<bool> {
        Ok(base_id(cx, engine)?.is_some_and(|id| id != self.base_id))
    }

    /// Whether the image existed and does not any more. For example, a build with `--no-cache` in another checkout
    /// removes it.
    pub fn was_removed(&self, cx: &Context, engine: &EngineFacts) -> bool {
        let found = self
            .exists
            .then(|| cx.images_of(&engine.engine, &[&self.reference]));
        found.is_some_and(|found| found.is_ok_and(|found| found.is_empty()))
    }
}

/// The id of the base image, if the engine has it.
fn base_id(cx: &Context, engine: &EngineFacts) -> Result<Option<String>> {
    let base = &cx.settings.build.base_image;
    if base.is_empty() {
        return Ok(None);
    }
    let mut found = cx.images_of(&engine.engine, &[base])?.into_iter();
    Ok(found
        .find(|image| is_usable(engine, image))
        .map(|image| image.id))
}

/// Whether a build can start from a stage of this base image. A build for another platform moves the name to the
/// image of that platform, and instructions that the base image adds are not in the Dockerfile.
fn is_usable(engine: &EngineFacts, image: &Image) -> bool {
    image.platform() == engine.platform.to_string() && !image.config.has_triggers()
}

/// The repository of the images. They are used on this machine only.
pub fn repository(settings: &Settings) -> String {
    settings.image.repository.on_this_machine(STAGE)
}

/// The name of the image: its tag is a digest of the inputs, the platform and the base image.
fn reference(settings: &Settings, inputs: &str, platform: &Platform, base_id: &str) -> String {
    let digest = sha256(format!("{inputs}\n{platform}\n{base_id}").as_bytes());
    let hex = digest.trim_start_matches("sha256:");
    format!("{}:{}", repository(settings), &hex[..32])
}

/// Everything that the stage is made from, but for the base image: the instructions up to its end, the build
/// arguments that they use, the files that they copy, and the ignore files. None if there is no such
/// stage, or if the instructions depend on more than that.
fn inputs(settings: &Settings, files: &BuildFiles) -> Option<String> {
    let build = &settings.build;
    let context = settings.root.join(&build.context);
    let text = files.text.as_deref()?;
    if changes_the_escape(text) {
        return None;
    }
    let all = Instructions::of(text);
    let part = all.up_to_the_end_of(STAGE, &build.target)?;
    let base = &build.base_image_arg;
    let known = [
        "scratch".to_owned(),
        format!("${base}"),
        format!("${{{base}}}"),
    ];
    if !part
        .images()
        .iter()
        .all(|image| known.iter().any(|one| one == image))
    {
        return None;
    }
    if part.copies_from_other_images() {
        return None;
    }
    let arguments = part.arguments();
    let is_used = |name: &&String| arguments.contains(name.as_str());
    // Their values can be different for each version.
    if settings
        .channel
        .build_args
        .keys()
        .any(|name| is_used(&name))
    {
        return None;
    }
    let mut inputs = part.text();
    for (name, value) in build.args.iter().filter(|(name, _)| is_used(name)) {
        inputs += &format!("\n{name}={}", sha256(value.as_bytes()));
    }
    for path in part.context_paths()? {
        let path = context.join(path);
        // A link that an instruction names is followed, those below it are copied.
        if path.is_symlink() {
            return None;
        }
        inputs += &files_below(&context, &path).ok()?;
    }
    let podmans = context.join(".containerignore");
    for ignore_file in dockerfile::ignore_files(settings)
        .into_iter()
        .chain([podmans])
    {
        let text = fs::read_to_string(ignore_file).unwrap_or_default();
        inputs += &format!("\n{}", sha256(text.as_bytes()));
    }
    Some(inputs)
}

/// A line for each file at or below a path: its path, its permissions, and its digest or what it links to.
fn files_below(context: &Path, path: &Path) -> io::Result<String> {
    let metadata = fs::symlink_metadata(path)?;
    let name = path.strip_prefix(context).unwrap_or(path).display();
    let content = if metadata.is_dir() {
        let entries = fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
        let mut entries: Vec<_> = entries.collect::<io::Result<_>>()?;
        entries.sort();
        let lines = entries.iter().map(|entry| files_below(context, entry));
        lines.collect::<io::Result<_>>()?
    } else if metadata.is_symlink() {
        fs::read_link(path)?.display().to_string()
    } else if !metadata.is_file() {
        // Reading a pipe would wait for a writer.
        return Err(io::ErrorKind::InvalidInput.into());
    } else {
        let mut file = Digesting::new(fs::File::open(path)?);
        io::copy(&mut file, &mut io::sink())?;
        file.finish().0
    };
    Ok(format!(
        "\n{name} {:o} {content}",
        metadata.permissions().mode()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    const DOCKERFILE: &str = "ARG BASE=b\nFROM $BASE AS tools\nARG USED\nCOPY tools /t/\n\
        FROM scratch AS foundation\nCOPY --from=tools /t /t\n\
        FROM tools AS app\nCOPY code /c/\nFROM foundation AS runtime\nCOPY --from=app /c /c\n";

    /// The reference in a folder with these files, with more configuration.
    fn reference_with(change: impl Fn(&Path), more: &str, platform: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        write("Dockerfile", DOCKERFILE);
        write("tools/a", "1");
        write("code/b", "1");
        change(root);
        let text = format!(
            "schema = 1\n[image]\nrepository = \"ghcr.io/a/b\"\n[build]\nbase-image-arg = \"BASE\"\n{more}\n"
        );
        let files = Files {
            root: root.to_owned(),
            project: text,
            local: None,
        };
        let settings = Settings::resolve(&Arguments::default(), &Env::fake(&[]), &files).unwrap();
        let files = dockerfile::read(&settings);
        let inputs = inputs(&settings, &files)?;
        let platform = Platform::linux(platform);
        Some(reference(&settings, &inputs, &platform, "sha256:1"))
    }

    #[test]
    fn every_input_changes_the_name_and_nothing_else_does() {
        let plain = reference_with(|_| (), "", "amd64").unwrap();
        assert!(plain.starts_with("localhost/b-foundation:"), "{plain}");
        assert_eq!(reference_with(|_| (), "", "amd64").as_ref(), Some(&plain));
        let with = |change: &dyn Fn(&Path)| reference_with(change, "", "amd64").unwrap();
        let write = |path: &'static str, text: &'static str| {
            with(&move |root| fs::write(root.join(path), text).unwrap())
        };
        assert_eq!(write("code/b", "2"), plain, "code comes after the stage");
        let other_end = DOCKERFILE.replace("/c /c", "/c /d");
        let other_end = with(&|root| fs::write(root.join("Dockerfile"), &other_end).unwrap());
        assert_eq!(
            other_end, plain,
            "the rest of the Dockerfile comes after the stage"
        );
        let other_start = DOCKERFILE.replace("/t /t", "/t /s");
        for other in [
            write("tools/a", "2"),
            write("tools/c", ""),
            write(".dockerignore", "x"),
            write(".containerignore", "x"),
            with(&|root| fs::rename(root.join("tools/a"), root.join("tools/b")).unwrap()),
            with(&|root| {
                fs::remove_file(root.join("tools/a")).unwrap();
                std::os::unix::fs::symlink("b", root.join("tools/a")).unwrap();
            }),
            with(&|root| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(root.join("tools/a"), mode).unwrap();
            }),
            with(&|root| fs::write(root.join("Dockerfile"), &other_start).unwrap()),
            reference_with(|_| (), "", "arm64").unwrap(),
            reference_with(|_| (), "args = { USED = \"x\" }", "amd64").unwrap(),
        ] {
            assert_ne!(other, plain);
        }
        let unused = reference_with(|_| (), "args = { OTHER = \"x\" }", "amd64");
        assert_eq!(unused.unwrap(), plain);
    }

    #[test]
    fn a_stage_that_depends_on_more_has_no_name() {
        let with = |from: &str, to: &str| {
            let text = DOCKERFILE.replace(from, to);
            reference_with(
                |root| fs::write(root.join("Dockerfile"), &text).unwrap(),
                "",
                "amd64",
            )
        };
        assert!(with("COPY tools", "COPY missing").is_none());
        assert!(with("COPY tools", "COPY .").is_none());
        assert!(with("ARG BASE=b", "# escape=`\nARG BASE=b").is_none());
        assert!(with("$BASE AS tools", "docker.io/library/busybox AS tools").is_none());
        assert!(with("COPY tools", "COPY --from=alpine").is_none());
        let special = |change: &dyn Fn(&Path)| reference_with(change, "", "amd64");
        let link = special(&|root| {
            fs::rename(root.join("tools"), root.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink("elsewhere", root.join("tools")).unwrap();
        });
        assert!(link.is_none(), "a link that an instruction names");
        let socket = special(&|root| {
            std::os::unix::net::UnixListener::bind(root.join("tools/socket")).unwrap();
        });
        assert!(socket.is_none(), "no file");
        assert!(with("foundation", "other").is_none());
        let of_channel = "[[channel]]\nname = \"a\"\nmatch = [\"*\"]\ntags = [\"{version}\"]\n\
            build-args = { USED = \"{version}\" }\n";
        assert!(reference_with(|_| (), of_channel, "amd64").is_none());
        assert!(reference_with(|_| (), "target = \"tools\"", "amd64").is_none());
        assert!(reference_with(|_| (), "target = \"runtime\"", "amd64").is_some());
    }
}
