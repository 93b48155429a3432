//! The registry that an image is published to, and the credentials for it.

use crate::{
    base::{engine_kind::EngineKind, error::Failure, image::Repository},
    cli::RepositoryOption,
    credentials::{environment::Tokens, find::find, found::Found},
    facts::context::Context,
    registry::{
        authentication::Access,
        client::{ClientOptions, RegistryClient},
    },
    settings::{EngineChoice, Settings},
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

/// The registry of the repository. Warns of places where a login could not be looked for.
pub fn registry<'a>(cx: &'a Context, access: Access) -> RegistryClient<'a> {
    let found = find_login(cx);
    found.warn(cx.ui);
    registry_with(cx, access, found)
}

/// The registry of the repository, with the login that was found.
pub fn registry_with<'a>(cx: &'a Context, access: Access, login: Found) -> RegistryClient<'a> {
    let options = ClientOptions {
        access,
        login,
        insecure: &cx.settings.registry.insecure,
        related: None,
    };
    let repository = &cx.settings.image.repository;
    RegistryClient::new(cx.exec, cx.env, cx.ui, repository, options)
}

/// Looks for the login for the repository.
pub fn find_login(cx: &Context) -> Found {
    let repository = &cx.settings.image.repository;
    let (registry, path) = (repository.registry(), repository.path());
    find(
        cx.exec,
        tokens(cx),
        &engines(cx, cx.settings.engine.prefer),
        registry,
        path,
    )
}

/// The tokens in the environment.
pub fn tokens<'a>(cx: &'a Context) -> Tokens<'a> {
    Tokens {
        env: cx.env,
        registry: &cx.settings.configured_registry,
        user: &cx.settings.registry.user,
    }
}

/// The engines whose logins are used for a choice: the engine that is set. With `auto`, a publication need not ask
/// any engine, so the logins of all are used, first those of the engines that are installed.
pub fn engines(cx: &Context, choice: EngineChoice) -> Vec<EngineKind> {
    let mut kinds = choice.candidates();
    kinds.sort_by_key(|kind| cx.find_program(kind.program()).is_none());
    kinds
}
