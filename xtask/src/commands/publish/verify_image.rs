//! `verify-image`: looks at what the registry, or an archive, holds.

use anyhow::Result;

use super::{Context, build_multiarch, expected, placed, push::verify_in_registry, registry};
use crate::{
    cli::VerifyArgs,
    error::Failure,
    image::human_bytes,
    oci::{archive::Archive, verify::Attestations},
    probe::Git,
};

pub fn run(cx: &Context, args: &VerifyArgs) -> Result<()> {
    // Whatever commit it is from: only pushing asks for this one.
    let mut wanted = expected(cx.settings, &Git::default(), Attestations::Optional);
    if let Some(platform) = &args.platform {
        let why = |why| Failure::usage(format!("`--platform {platform}` {why}"));
        wanted.platforms = vec![platform.parse().map_err(why)?];
    }
    let settings = &placed(cx.settings, &args.place)?;
    let cx = &Context { settings, ..*cx };
    let verified = if let Some(path) = &args.archive {
        let path = cx.env.cwd.join(path);
        if cx.dry_run {
            return Ok(cx.ui.result(&format!("# read {}\n", path.display()))?);
        }
        build_multiarch::look(cx, &Archive::open(&path)?, &wanted)?
    } else {
        let reference = cx.reference()?;
        if cx.dry_run {
            return Ok(cx.ui.result(&format!("# read {reference}\n"))?);
        }
        let registry = registry(cx);
        let tag = settings.tags(&cx.git_values())?;
        let found = registry.manifest(&tag[0])?.ok_or_else(|| {
            Failure::new(format!("there is no `{reference}`"))
                .hint("published versions: see the registry's page of the image, or name another with `--version`")
        })?;
        verify_in_registry(cx, &registry, &found.digest(), &wanted)?
    };
    if args.json {
        let text = serde_json::to_string_pretty(&verified)?;
        return Ok(cx.ui.result(&(text + "\n"))?);
    }
    let mut text = format!("{}\n", verified.digest);
    for one in &verified.platforms {
        text.push_str(&format!(
            "{}  {}  {} to download, {} unpacked, {} programs and libraries\n",
            one.platform,
            one.digest,
            human_bytes(one.compressed),
            human_bytes(one.unpacked),
            one.programs
        ));
    }
    Ok(cx.ui.result(&text)?)
}
