//! Looking for a login.

use std::path::{Path, PathBuf};

use super::{
    config_file::ConfigFile,
    environment, helper,
    login::{Credentials, Login},
};
use crate::{
    base::{env::Env, image::Repository},
    exec::Exec,
};

/// The login for a repository: from the first file that has one, itself or in a credential helper,
/// or else from the environment. The user, who may be empty, belongs to a token in the environment.
pub fn find(
    exec: &Exec,
    env: &Env,
    files: &[PathBuf],
    repository: &Repository,
    user: &str,
) -> Option<Credentials> {
    let in_files = files.iter().find_map(|file| {
        Some(Credentials {
            login: stored(exec, file, repository)?,
            source: file.display().to_string(),
        })
    });
    in_files.or_else(|| environment::login(env, repository.registry(), user))
}

fn stored(exec: &Exec, file: &Path, repository: &Repository) -> Option<Login> {
    let file = ConfigFile::open(file)?;
    let registry = repository.registry();
    file.login(registry, repository.path())
        .or_else(|| helper::get(exec, &file.helper(registry)?, registry))
}

/// The first of the files that has a login for a registry in itself.
pub fn file_with_login(files: Vec<PathBuf>, registry: &str) -> Option<PathBuf> {
    files
        .into_iter()
        .find(|file| ConfigFile::open(file).is_some_and(|it| it.login(registry, "").is_some()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_read_in_their_order_and_before_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let files = [
            folder.path().join("missing.json"),
            write("broken.json", "{"),
            write("other.json", r#"{"auths":{"quay.io":{"auth":"quay"}}}"#),
            write("first.json", r#"{"auths":{"ghcr.io":{"auth":"first"}}}"#),
            write("second.json", r#"{"auths":{"ghcr.io":{"auth":"second"}}}"#),
        ];
        let env = Env::fake(&[("REGISTRY_TOKEN", "t")]);
        let repository = Repository::parse("ghcr.io/a/b").unwrap();
        let found = |files: &[PathBuf]| find(&Exec::silent(), &env, files, &repository, "me");
        let credentials = found(&files).unwrap();
        assert_eq!(credentials.login, Login::EncodedPassword("first".into()));
        assert_eq!(credentials.source, files[3].display().to_string());
        assert_eq!(found(&files[..3]).unwrap().source, "REGISTRY_TOKEN");

        let holds = |registry| file_with_login(files.to_vec(), registry);
        assert_eq!(holds("ghcr.io").as_ref(), Some(&files[3]));
        assert_eq!(holds("docker.io"), None);
    }
}
