//! Verifying an archive before it is pushed, and what the registry holds after.

use anyhow::Result;

use crate::{
    base::error::Failure,
    engine::label,
    facts::context::Context,
    oci::{
        archive::Archive,
        digest,
        verify::{self, Depth, Expected, Verified},
    },
    registry::client::RegistryClient,
    release::paths,
};

/// Verifies an archive.
///
/// # Errors
/// Everything that differs from what is expected.
pub fn archive(cx: &Context, archive: &Archive, expected: &Expected) -> Result<Verified> {
    let path = paths::display(cx.settings, archive.path());
    cx.ui.status("Verifying", &path);
    let root = &archive.root.digest;
    let verified = cx
        .exec
        .interruptible(|stop| verify::verify(archive, root, expected, Depth::Deep, stop));
    verified.map_err(|error| {
        let is_of_another_repository = format!("{error:#}").contains(label::IMAGE);
        let mut hints = vec!["inspect the archive, which is kept".to_owned()];
        if is_of_another_repository {
            let settings = cx.settings;
            hints.push(format!(
                "set `image.repository` to the repository that the image was built for, and pass this one as a mirror: `cargo xtask push-archive {} --repository {} {path}`",
                settings.version_options(),
                settings.image.repository.as_str()
            ));
        }
        mismatch(error, &format!("`{path}`"), hints)
    })
}

/// Verifies an image in the registry. The hint says what to do if it is not as expected.
///
/// # Errors
/// Everything that differs from what is expected.
pub fn in_registry(
    cx: &Context,
    registry: &RegistryClient,
    digest: &str,
    expected: &Expected,
    depth: Depth,
    hint: &str,
) -> Result<Verified> {
    cx.ui.status(
        "Verifying",
        &format!("{} in {}", digest::short(digest), registry.host()),
    );
    let verified = cx
        .exec
        .interruptible(|stop| verify::verify(registry, digest, expected, depth, stop));
    verified.map_err(|error| {
        let what = format!("what {} holds as {digest}", registry.host());
        mismatch(error, &what, vec![hint.to_owned()])
    })
}

/// The failure of an image that differs from what is expected. A [`Failure`] is returned unchanged: it is
/// about something else.
fn mismatch(error: anyhow::Error, what: &str, hints: Vec<String>) -> anyhow::Error {
    if error.downcast_ref::<Failure>().is_some() {
        return error;
    }
    Failure::new(format!("{what} is not what it should be\n{error:#}"))
        .hints(hints)
        .into()
}
