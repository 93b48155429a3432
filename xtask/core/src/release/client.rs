//! The client of the repository that an image is published to. A command that imports this file needs an HTTP client,
//! and the row of the command in the table says so.

use super::destination::find_login;
use crate::{
    base::{error::Failure, image::Repository},
    credentials::found::Found,
    facts::context::Context,
    registry::{
        authentication::Access,
        client::{ClientOptions, RegistryClient},
    },
    settings::Settings,
};

/// The client of the repository. Warns of places where a login could not be looked for.
///
/// # Errors
/// When this program has no HTTP client.
pub fn open<'a>(cx: &'a Context, access: Access) -> Result<RegistryClient<'a>, Failure> {
    let found = find_login(cx);
    found.warn(cx.ui);
    open_with(cx, access, found)
}

/// The client of the repository, with the login that was found.
///
/// # Errors
/// When this program has no HTTP client.
pub fn open_with<'a>(
    cx: &'a Context,
    access: Access,
    login: Found,
) -> Result<RegistryClient<'a>, Failure> {
    let transport = cx.transport()?;
    let related = related(cx.settings);
    let options = ClientOptions {
        access,
        login,
        transport,
        insecure: &cx.settings.registry.insecure,
        related: related.as_ref(),
    };
    let repository = &cx.settings.image.repository;
    Ok(RegistryClient::new(
        cx.exec, cx.env, cx.ui, repository, options,
    ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::env::Env, cli::RepositoryOption, config::files::Files,
        release::destination::with_repository, settings::resolve::Arguments,
    };

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
