//! What GitHub Actions understands: groups in the log, outputs of the step, its summary, and
//! errors that are shown beside the line they are about.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{fmt::Write as _, fs::OpenOptions, io::Write as _};

use anyhow::{Context as _, Result};

use super::{Context, receipt::Receipt};
use crate::{env::Env, error::Failure, image::human_bytes, ui::Ui};

/// Whether this is a step of GitHub Actions.
pub fn is_here(env: &Env) -> bool {
    env.get("GITHUB_ACTIONS") == Some("true")
}

/// A part of the log that can be folded; it ends when this is dropped.
pub struct Group(Option<Ui>);

impl Group {
    pub fn begin(cx: &Context, name: &str) -> Self {
        if !is_here(cx.env) {
            return Self(None);
        }
        cx.ui.line(&format!("::group::{name}"));
        Self(Some(cx.ui))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(ui) = self.0 {
            ui.line("::endgroup::");
        }
    }
}

/// Tells the step's outputs (`image`, `digest`, `tags`, `version`) and writes its summary.
///
/// # Errors
/// When the files that GitHub names cannot be written.
pub fn tell(cx: &Context, receipt: &Receipt) -> Result<()> {
    append(cx.env, "GITHUB_OUTPUT", &outputs(receipt))?;
    append(cx.env, "GITHUB_STEP_SUMMARY", &summary(receipt))
}

fn append(env: &Env, name: &str, text: &str) -> Result<()> {
    let Some(path) = env.get(name).filter(|_| is_here(env)) else {
        return Ok(());
    };
    let mut file = OpenOptions::new().append(true).create(true).open(path);
    file.as_mut()
        .map_err(|error| std::io::Error::new(error.kind(), error.to_string()))
        .and_then(|file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write `{path}`, which {name} names"))
}

fn outputs(receipt: &Receipt) -> String {
    format!(
        "image={}\ndigest={}\ntags={}\nversion={}\n",
        receipt.image,
        receipt.digest,
        receipt.tags.join(","),
        receipt.version
    )
}

fn summary(receipt: &Receipt) -> String {
    let mut text = format!(
        "### {}:{}\n\n| | |\n|---|---|\n| Digest | `{}` |\n| Tags | {} |\n",
        receipt.image,
        receipt.version,
        receipt.digest,
        receipt.tags.join(", ")
    );
    for one in &receipt.kept {
        let _ = writeln!(text, "| Stays | {} with {} |", one.tag, one.with);
    }
    for one in &receipt.platforms {
        let _ = writeln!(
            text,
            "| {} | {} to download, {} unpacked |",
            one.platform,
            human_bytes(one.compressed),
            human_bytes(one.unpacked)
        );
    }
    let total: f64 = receipt.seconds.iter().map(|(_, seconds)| seconds).sum();
    let _ = writeln!(text, "| Time | {total:.1} s |\n");
    text
}

/// A failure as an annotation; beside the Dockerfile's line where the builder names one.
pub fn annotation(failure: &Failure, dockerfile: &str) -> String {
    let place = dockerfile_line(failure.said()).map_or(String::new(), |line| {
        format!(" file={dockerfile},line={line}")
    });
    let message = std::iter::once(failure.to_string())
        .chain(failure.hint_lines().iter().cloned())
        .collect::<Vec<_>>()
        .join("\n");
    format!("::error{place}::{}", escaped(&message))
}

/// BuildKit shows the step that failed below `Dockerfile:12`.
fn dockerfile_line(said: &str) -> Option<u32> {
    let mut lines = said.lines().zip(said.lines().skip(1));
    lines.find_map(|(line, next)| {
        let number = line.trim().rsplit_once("ockerfile:")?.1.parse().ok();
        number.filter(|_| next.trim().starts_with("----"))
    })
}

/// Line ends within a command's message. <https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts>
fn escaped(message: &str) -> String {
    message
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfiles_line_is_found() {
        let said = "#9 ERROR: process \"/bin/sh -c false\" did not complete successfully: exit code: 1\n\
                    ------\n > [runtime 2/3] RUN false:\n------\nDockerfile:12\n--------------------\n  11 |     \n  12 | >>> RUN false\n";
        let failure = Failure::new("`docker buildx` failed with exit code 1")
            .hint("look at 100%")
            .with_said(said.to_owned());
        assert_eq!(
            annotation(&failure, "Dockerfile"),
            "::error file=Dockerfile,line=12::`docker buildx` failed with exit code 1%0Alook at 100%25"
        );
        assert_eq!(annotation(&Failure::new("x"), "Dockerfile"), "::error::x");
    }
}
