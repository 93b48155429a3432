//! Where an image is published to, and the credentials for it.

use crate::{
    base::{engine_kind::EngineKind, error::Failure, image::Repository},
    cli::RepositoryOption,
    credentials::{environment::Tokens, find::find, found::Found},
    facts::context::Context,
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
        registry: cx.settings.configured_repository.registry(),
        user: &cx.settings.registry.user,
    }
}

/// The engines whose logins are used for a choice: the engine that is set. With `auto`, a command that asks no engine
/// uses the logins of all that are installed. If none is, a login can still be where a client keeps it.
pub fn engines(cx: &Context, choice: EngineChoice) -> Vec<EngineKind> {
    let kinds = choice.candidates();
    let is_installed = |kind: &&EngineKind| cx.find_program(kind.program()).is_some();
    let installed: Vec<_> = kinds.iter().filter(is_installed).copied().collect();
    if installed.is_empty() {
        kinds
    } else {
        installed
    }
}
