//! The Dockerfile and the ignore file of a build, and what is unusual about them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::arguments;
use crate::settings::Settings;

/// The files that decide what a build does and which files it gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildFiles {
    /// The path of the Dockerfile. If the configured path is a link, this is the file that it leads
    /// to, because BuildKit does not follow a link out of the Dockerfile's folder.
    pub dockerfile: PathBuf,
    /// Its text; none if it cannot be read.
    pub text: Option<String>,
    /// The ignore file, where Podman would choose another one than BuildKit.
    pub ignore_file_for_podman: Option<PathBuf>,
    /// What the user may not expect.
    pub warnings: Vec<String>,
}

/// The Dockerfile's ignore file and the context's. With every engine, a build uses the first one
/// that exists. This is `BuildKit`'s order.
pub fn ignore_files(settings: &Settings) -> [PathBuf; 2] {
    let dockerfile = followed(settings.root.join(&settings.build.dockerfile));
    let context = settings.root.join(&settings.build.context);
    let context: PathBuf = context.components().collect();
    [
        with_suffix(&dockerfile, ".dockerignore"),
        context.join(".dockerignore"),
    ]
}

/// Reads the files of a build.
pub fn read(settings: &Settings) -> BuildFiles {
    let dockerfile = followed(settings.root.join(&settings.build.dockerfile));
    let [of_dockerfile, of_context] = ignore_files(settings);
    let is_dockerfiles = of_dockerfile.is_file();
    let ignore_file = [of_dockerfile, of_context]
        .into_iter()
        .find(|path| path.is_file());
    let podmans = settings
        .root
        .join(&settings.build.context)
        .join(".containerignore");
    let mut warnings = Vec::new();
    if podmans.is_file() {
        warnings.push(match &ignore_file {
            Some(used) => format!(
                "`.containerignore` is not used: builds with every engine read `{}`",
                used.strip_prefix(&settings.root).unwrap_or(used).display()
            ),
            None => "only Podman reads `.containerignore`, and Docker sends every file: rename it to `.dockerignore`".to_owned(),
        });
    }
    if let Some(text) = ignore_file
        .as_ref()
        .and_then(|path| fs::read_to_string(path).ok())
    {
        warnings.extend(links_out_of(
            &settings.root.join(&settings.build.context),
            &text,
        ));
    }
    let text = fs::read_to_string(&dockerfile).ok();
    if let Some(text) = &text {
        warnings.extend(warnings_of(settings, text));
    }
    BuildFiles {
        ignore_file_for_podman: ignore_file.filter(|_| podmans.is_file() || is_dockerfiles),
        dockerfile,
        text,
        warnings,
    }
}

/// Warnings about links out of the context among the paths that an ignore file includes (`!PATH`).
/// No engine follows such a link.
fn links_out_of(context: &Path, ignore_file: &str) -> Vec<String> {
    let Ok(context) = fs::canonicalize(context) else {
        return Vec::new();
    };
    let is_outside = |path: &&str| {
        let path = context.join(path);
        path.is_symlink()
            && fs::canonicalize(path).is_ok_and(|target| !target.starts_with(&context))
    };
    ignore_file
        .lines()
        .filter_map(|line| line.trim().strip_prefix('!'))
        .filter(is_outside)
        .map(|path| {
            format!("`{path}` is a link that leads out of the build's context, and engines do not follow it: replace the link with the files")
        })
        .collect()
}

fn warnings_of(settings: &Settings, dockerfile: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    let name = &settings.build.dockerfile;
    if dockerfile.contains("\r\n") {
        warnings.push(format!(
            "the lines of `{name}` end with CR LF, probably because git converted them, and scripts in the image fail with this (`Illegal option -`): run `git config --global core.autocrlf false` and clone the repository again"
        ));
    }
    let undeclared = arguments::undeclared(settings, dockerfile);
    warnings.extend(
        undeclared.iter().map(|arg| {
            format!("the build argument `{arg}` is not used: `{name}` has no `ARG {arg}`")
        }),
    );
    warnings
}

/// The file that a link leads to.
fn followed(path: PathBuf) -> PathBuf {
    if path.is_symlink() {
        fs::canonicalize(&path).unwrap_or(path)
    } else {
        path
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
