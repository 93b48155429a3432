//! `verify-image`: verifies what the registry, or an archive, holds.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::{
    base::error::Failure,
    cli::{JsonOption, PlatformOption, RepositoryOption, VersionOption},
    commands::{command::Command, json},
    facts::{context::Context, git::WorkTree},
    oci::{archive::Archive, verify::Attestations},
    release::{destination, expected::expected, verify},
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
        // The image may be of any commit: only publishing requires the current one.
        let mut expected = expected(cx.settings, &WorkTree::default(), Attestations::Optional);
        if let Some(platform) = self.platform.parse()? {
            expected.platforms = vec![platform];
        }
        let settings =
            &destination::with_repository(cx.settings, self.repository.repository.as_deref())?;
        let cx = &Context { settings, ..*cx };
        let verified = if let Some(path) = &self.archive {
            let path = cx.env.cwd.join(path);
            if cx.dry_run {
                return Ok(cx.ui.print_plan(&format!("# read {}\n", path.display()))?);
            }
            verify::archive(cx, &Archive::open(&path)?, &expected)?
        } else {
            let reference = cx.reference()?;
            if cx.dry_run {
                return Ok(cx.ui.print_plan(&format!("# read {reference}\n"))?);
            }
            let registry = destination::registry(cx);
            let tag = settings.tags(&cx.git_values())?;
            let found = registry.manifest(&tag[0])?.ok_or_else(|| {
                Failure::new(format!("there is no `{reference}`"))
                    .hint("the registry's page of the image lists the published versions; name one with `--version`")
            })?;
            verify::in_registry(cx, &registry, &found.digest(), &expected)?
        };
        if self.json.json {
            return json::print(cx.ui, &verified);
        }
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

#[cfg(test)]
impl crate::commands::testing::Examples for VerifyImage {}
