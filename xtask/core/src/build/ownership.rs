//! A build moves its tags to the new image. An image without a tag is hard to find, and `image prune`
//! removes it. So a build does not take a tag from an image that xtask did not build.

use crate::{
    base::error::Failure,
    build::facts::BuildFacts,
    engine::{EngineFacts, label},
    settings::Settings,
};

/// Refuses a build that would take a tag from an image which xtask did not build.
///
/// # Errors
/// When there is such a tag.
pub fn check_tags(settings: &Settings, facts: &BuildFacts) -> Result<(), Failure> {
    match facts.foreign_references.first() {
        None => Ok(()),
        Some(reference) => Err(refusal(settings, &facts.engine, reference)),
    }
}

/// The refusal to take the name of an image that xtask did not build.
pub fn refusal(settings: &Settings, engine: &EngineFacts, reference: &str) -> Failure {
    let program = &engine.engine.program;
    let version = &settings.version.value;
    Failure::new(format!(
        "`{reference}` exists already, and xtask did not build it: it has no label `{}`",
        label::IMAGE
    ))
    .hint(format!(
        "keep it under another name: `{program} tag {reference} localhost/kept:{version} && {program} image rm {reference}`"
    ))
    .hint("build another version: `--version dev-other`")
}
