//! What an image must look like to be published as a version.

use std::collections::BTreeMap;

use crate::{
    base::image::VERSION_LABEL,
    engine::label,
    facts::git::WorkTree,
    oci::verify::{Expected, ExpectedUser},
    settings::{RequiredUser, Settings},
};

/// The OCI's label for the commit.
pub const REVISION_LABEL: &str = "org.opencontainers.image.revision";
/// The OCI's label for the time of the commit.
pub const CREATED_LABEL: &str = "org.opencontainers.image.created";

/// The expectations of the settings. The commit counts if the work tree is clean.
pub fn expected(settings: &Settings, git: &WorkTree) -> Expected {
    let mut labels = BTreeMap::from([
        (VERSION_LABEL.to_owned(), settings.version.value.to_string()),
        (
            label::IMAGE.to_owned(),
            settings.image.repository.as_str().to_owned(),
        ),
    ]);
    if let (Some(sha), false) = (&git.values.sha, git.dirty) {
        labels.insert(REVISION_LABEL.to_owned(), sha.clone());
    }
    let mut absent_labels = Vec::new();
    match &settings.flavour {
        Some(flavour) => {
            labels.insert(label::FLAVOUR.to_owned(), flavour.name.clone());
        }
        None => absent_labels.push(label::FLAVOUR.to_owned()),
    }
    Expected {
        platforms: settings.platforms().to_vec(),
        labels,
        absent_labels,
        budget: settings.budget,
        user: match settings.require.user {
            RequiredUser::Any => ExpectedUser::Any,
            RequiredUser::NotRoot => ExpectedUser::NotRoot,
            RequiredUser::Uid(uid) => ExpectedUser::Uid(uid),
        },
        // A command of the configuration is a health check too.
        health_check: settings.require.health_check && settings.health.command.is_empty(),
    }
}
