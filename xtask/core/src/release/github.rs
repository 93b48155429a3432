//! What a publication reports to GitHub Actions: groups in the log, the step's outputs, its summary.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use std::{fmt::Write as _, fs::OpenOptions, io::Write as _};

use anyhow::{Context as _, Error, Result};

use crate::{
    base::{env::Env, github::is_active, ui::Ui},
    facts::context::Context,
    release::receipt::Receipt,
};

/// A foldable part of the log. It ends when this is dropped.
pub struct Group(Option<Ui>);

impl Group {
    pub fn begin(cx: &Context, name: &str) -> Self {
        if !is_active(cx.env) {
            return Self(None);
        }
        cx.ui.detail(&format!("::group::{name}"));
        Self(Some(cx.ui))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(ui) = self.0 {
            ui.detail("::endgroup::");
        }
    }
}

/// Adds the image to the step's summary. With `with_outputs`, also sets the step's outputs to those of this image:
/// `image`, `digest`, `tags`, `version`. Returns the failures: a program that imitates GitHub Actions may name files
/// that do not exist.
pub fn report(env: &Env, receipt: &Receipt, with_outputs: bool) -> Vec<Error> {
    let outputs = with_outputs.then(|| append(env, "GITHUB_OUTPUT", &outputs(receipt)));
    let summary = append(env, "GITHUB_STEP_SUMMARY", &summary(receipt));
    let written = outputs.into_iter().chain([summary]);
    written.filter_map(Result::err).collect()
}

fn append(env: &Env, name: &str, text: &str) -> Result<()> {
    let Some(path) = env.get(name).filter(|_| is_active(env)) else {
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
    let flavour = receipt.flavour.as_ref();
    let flavour = flavour.map_or(String::new(), |name| format!(", flavour {name}"));
    let mut text = format!(
        "### {}:{}{flavour}\n\n| | |\n|---|---|\n| Digest | `{}` |\n| Tags | {} |\n",
        receipt.image,
        receipt.version,
        receipt.digest,
        receipt.tags.join(", ")
    );
    for kept in &receipt.kept {
        let _ = writeln!(
            text,
            "| Kept | {}, because {} is newer |",
            kept.tag, kept.version
        );
    }
    for platform in &receipt.platforms {
        let _ = writeln!(text, "| {} | {} |", platform.platform, platform.sizes());
    }
    if let Some(verify) = &receipt.verify {
        let _ = writeln!(text, "| Verify | `{verify}` |");
    }
    let total: f64 = receipt.seconds.iter().map(|(_, seconds)| seconds).sum();
    let _ = writeln!(text, "| Time | {total:.1} s |\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_cannot_be_written_does_not_keep_the_other_from_being_written() {
        let receipt = Receipt {
            schema: 1,
            image: "ghcr.io/x/y".to_owned(),
            version: "1.2.3".to_owned(),
            flavour: None,
            channel: "release".to_owned(),
            digest: "sha256:1".to_owned(),
            reference: "ghcr.io/x/y@sha256:1".to_owned(),
            media_type: String::new(),
            tags: vec!["1.2.3".to_owned(), "latest".to_owned()],
            kept: Vec::new(),
            platforms: Vec::new(),
            attestations: 0,
            signed: false,
            verify: Some("cosign verify x".to_owned()),
            revision: None,
            source: String::new(),
            seconds: Vec::new(),
        };
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let env = Env::fake(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_OUTPUT", &path("missing/output")),
            ("GITHUB_STEP_SUMMARY", &path("summary")),
        ]);
        let failures = report(&env, &receipt, true);
        let [failure] = &failures[..] else {
            panic!("{failures:?}")
        };
        assert!(
            failure.to_string().ends_with("which GITHUB_OUTPUT names"),
            "{failure}"
        );
        let summary = std::fs::read_to_string(path("summary")).unwrap();
        assert!(summary.contains("| Tags | 1.2.3, latest |"), "{summary}");
        assert!(
            summary.contains("| Verify | `cosign verify x` |"),
            "{summary}"
        );
        assert!(report(&Env::fake(&[]), &receipt, true).is_empty());
    }
}
