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
    let related = related(cx.settings);
    let options = ClientOptions {
        access,
        login,
        insecure: &cx.settings.registry.insecure,
        related: related.as_ref(),
    };
    let repository = &cx.settings.image.repository;
    RegistryClient::new(cx.exec, cx.env, cx.ui, repository, options)
}

/// A repository of the same registry that may have the image's layers: the one that a mirror mirrors,
/// or that of the base image.
fn related(settings: &Settings) -> Option<Repository> {
    let base = settings.build.base_image.split('@').next()?;
    // A colon before the last slash belongs to the registry's port.
    let base = match base.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => base,
    };
    let target = &settings.image.repository;
    [
        Some(settings.configured_repository.clone()),
        Repository::parse(base).ok(),
    ]
    .into_iter()
    .flatten()
    .find(|other| other.registry() == target.registry() && other.path() != target.path())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    fn related_to(project: &str, mirror: Option<&str>) -> Option<String> {
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n{project}"),
            local: None,
        };
        let settings = Settings::resolve(&Arguments::default(), &Env::fake(&[]), &files).unwrap();
        let option = RepositoryOption {
            repository: mirror.map(str::to_owned),
        };
        let settings = with_repository(&settings, &option).unwrap();
        related(&settings).map(|found| found.as_str().to_owned())
    }

    #[test]
    fn layers_may_be_in_a_repository_of_the_same_registry() {
        let image = "[image]\nrepository = 'r.io:5000/a/b'\n";
        let with_base = |base: &str| format!("{image}[build]\nbase-image = '{base}'\n");
        assert_eq!(related_to(image, None), None);
        assert_eq!(
            related_to(image, Some("r.io:5000/mirror")).as_deref(),
            Some("r.io:5000/a/b")
        );
        assert_eq!(related_to(image, Some("s.io/mirror")), None);
        let pinned = format!("python:3@sha256:{}", "0".repeat(64));
        for form in ["python", "python:3", &pinned] {
            let project = with_base(&format!("r.io:5000/{form}"));
            assert_eq!(
                related_to(&project, None).as_deref(),
                Some("r.io:5000/python")
            );
        }
    }
}
