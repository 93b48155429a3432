//! `verify-image`: verifies what the registry, or an archive, holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::{
    base::error::Failure,
    cli::{JsonOption, PlatformOption, RepositoryOption, VersionOption},
    commands::{command::Command, json},
    facts::{context::Context, git::WorkTree},
    oci::{
        archive::Archive,
        verify::{Depth, Verified},
    },
    registry::authentication::Access,
    release::{destination, expected::expected, verify},
    settings::Settings,
};

/// Check what the registry, or an archive, holds
#[derive(Args, Clone, Debug)]
pub struct VerifyImage {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    platform: PlatformOption,
    #[command(flatten)]
    repository: RepositoryOption,
    /// Verify an archive, not the registry
    #[arg(long, value_name = "FILE", conflicts_with = "repository")]
    archive: Option<PathBuf>,
    #[command(flatten)]
    json: JsonOption,
}

impl Command for VerifyImage {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let settings = &destination::with_repository(cx.settings, &self.repository)?;
        let built_for = cx.settings;
        let cx = &Context { settings, ..*cx };
        if cx.dry_run {
            let what = match &self.archive {
                Some(path) => cx.env.cwd.join(path).display().to_string(),
                None => cx.reference()?,
            };
            return Ok(cx.ui.print_plan(&format!("# read {what}\n"))?);
        }
        let verified = self.verify(cx, built_for);
        if self.json.json {
            let report = Report {
                ok: verified.is_ok(),
                image: verified.as_ref().ok(),
                error: verified.as_ref().err().map(|error| format!("{error:#}")),
            };
            json::print(cx.ui, &report)?;
            return verified.map(|_| ());
        }
        let verified = verified?;
        let mut text = format!("{}\n", verified.digest);
        for platform in &verified.platforms {
            text.push_str(&format!(
                "{}  {}  {}\n",
                platform.platform,
                platform.digest,
                platform.summary()
            ));
        }
        Ok(cx.ui.print(&text)?)
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    ok: bool,
    /// Null if the image is not as expected.
    #[serde(flatten)]
    image: Option<&'a Verified>,
    error: Option<String>,
}

impl VerifyImage {
    /// Verifies the archive, or what the registry holds. The image's labels name the repository that it was
    /// built for.
    fn verify(&self, cx: &Context, built_for: &Settings) -> Result<Verified> {
        // The image may be of any commit: only publishing requires the current one.
        let mut expected = expected(built_for, &WorkTree::default());
        if let Some(platform) = self.platform.parse()? {
            expected.platforms = vec![platform];
        }
        if let Some(path) = &self.archive {
            let archive = Archive::open(&cx.env.cwd.join(path))?;
            return verify::archive(cx, &archive, &expected);
        }
        let registry = destination::registry(cx, Access::Pull);
        let tag = cx.settings.tags(&cx.git_values())?;
        let found = registry.manifest(&tag[0])?.ok_or_else(|| {
            let reference = cx.settings.image.repository.tagged(&tag[0]);
            Failure::new(format!("there is no `{reference}`"))
                .hint("the registry's page of the image lists the published versions; name one with `--version`")
        })?;
        let hint = "publish the version again, or verify another one: `--version`";
        verify::in_registry(cx, &registry, &found.digest(), &expected, Depth::Deep, hint)
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for VerifyImage {}
