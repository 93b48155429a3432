//! The registry that an image is published to, and the credentials for it.

use crate::{
    base::{error::Failure, image::Repository},
    cli::RepositoryOption,
    credentials::{files, find::find, login::Credentials},
    facts::context::Context,
    registry::client::RegistryClient,
    release::paths,
    settings::Settings,
};

/// The settings for publishing the same image to another repository. The image's labels keep naming
/// the repository that it was built for: a mirror holds the same image, digest for digest.
///
/// # Errors
/// When the text is not a repository.
pub fn with_repository(
    settings: &Settings,
    option: &RepositoryOption,
) -> Result<Settings, Failure> {
    let mut settings = settings.clone();
    if let Some(text) = &option.repository {
        settings.image.repository = Repository::parse(text)
            .map_err(|why| Failure::usage(format!("`--repository {text}` {why}")))?;
    }
    Ok(settings)
}

/// The registry of the configured repository.
pub fn registry<'a>(cx: &'a Context) -> RegistryClient<'a> {
    let scratch = cx.settings.root.join(paths::FOLDER);
    let repository = &cx.settings.image.repository;
    RegistryClient::new(cx.exec, cx.ui, repository, credentials(cx), &scratch)
}

/// The credentials for the configured repository: those of the engines' clients, else those of the
/// environment.
pub fn credentials(cx: &Context) -> Option<Credentials> {
    let repository = &cx.settings.image.repository;
    let files = files::of_all_engines(cx.env);
    let user = &cx.settings.registry.user;
    find(cx.exec, cx.env, &files, repository, user)
}
