//! Reading a file that another program wrote, and the reason why it cannot be read.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::found::Problem;
use crate::{
    base::{env::Env, ui::single_line},
    plan::quote_for_shell,
};

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// The problem, with the command that mends it.
pub fn text(path: &Path, env: &Env) -> Result<Option<Vec<u8>>, Problem> {
    match fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => {
            let why = match error.kind() {
                ErrorKind::IsADirectory => Unreadable::Folder,
                ErrorKind::PermissionDenied => Unreadable::NotPermitted(owner(path)),
                _ => Unreadable::Other(error.to_string()),
            };
            Err(unreadable(path, why, env))
        }
    }
}

/// A file, or the text of a variable, that does not have the format that it should have.
pub fn broken(name: &str, why: &str) -> Problem {
    Problem {
        what: format!("{name} cannot be read: {}", single_line(why)),
        fix: format!("correct {name}, or remove it"),
    }
}

enum Unreadable {
    Folder,
    /// The file or folder that may not be read, and the id of the user to whom it belongs.
    NotPermitted(Option<(PathBuf, u32)>),
    Other(String),
}

/// A file, or else the folder that hides it, and its owner.
fn owner(path: &Path) -> Option<(PathBuf, u32)> {
    let visible = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|it| (path.to_owned(), it.uid()))
    };
    path.ancestors().find_map(visible)
}

fn unreadable(path: &Path, why: Unreadable, env: &Env) -> Problem {
    let user = env.user;
    let quoted = |path: &Path| quote_for_shell(&path.display().to_string());
    let (why, fix) = match why {
        Unreadable::Folder => (
            "it is a folder".to_owned(),
            format!("remove the folder: `rmdir {}`", quoted(path)),
        ),
        Unreadable::NotPermitted(Some((culprit, owner))) if owner == user.euid => (
            "its permissions do not let its owner read it".to_owned(),
            format!("permit it: `chmod u+rwX {}`", quoted(&culprit)),
        ),
        Unreadable::NotPermitted(Some((culprit, owner))) => {
            let it = if culprit == path {
                "it".to_owned()
            } else {
                culprit.display().to_string()
            };
            let whose = match owner {
                0 => "root".to_owned(),
                id => format!("the user with the id {id}"),
            };
            let recursive = if culprit == path { "" } else { "-R " };
            let (uid, gid) = (user.uid, user.gid);
            let home = env.home();
            let is_in_home = home.is_some_and(|home| culprit != home && culprit.starts_with(home));
            let fix = if culprit == path || is_in_home {
                format!(
                    "make it yours: `sudo chown {recursive}{uid}:{gid} {}`",
                    quoted(&culprit)
                )
            } else {
                // The folder has other files too.
                "name a file that you may read: `DOCKER_CONFIG` or `REGISTRY_AUTH_FILE`".to_owned()
            };
            (format!("permission denied, {it} belongs to {whose}"), fix)
        }
        Unreadable::NotPermitted(None) => (
            "permission denied".to_owned(),
            format!("look whose it is: `sudo ls -ld {}`", quoted(path)),
        ),
        Unreadable::Other(why) => (why, format!("look at it: `ls -l {}`", quoted(path))),
    };
    Problem {
        what: format!("{} cannot be read: {why}", path.display()),
        fix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_may_not_be_read_is_reported_with_its_owner() {
        let env = Env::fake(&[("HOME", "/home/me")]);
        let file = Path::new("/home/me/.docker/config.json");
        let is = |culprit: &str, owner, what: &str, fix: &str| {
            let why = Unreadable::NotPermitted(Some((culprit.into(), owner)));
            let problem = unreadable(file, why, &env);
            let what = format!("/home/me/.docker/config.json cannot be read: {what}");
            assert_eq!((problem.what, problem.fix.as_str()), (what, fix));
        };
        is(
            "/home/me/.docker/config.json",
            0,
            "permission denied, it belongs to root",
            "make it yours: `sudo chown 1001:1001 /home/me/.docker/config.json`",
        );
        is(
            "/home/me/.docker",
            7,
            "permission denied, /home/me/.docker belongs to the user with the id 7",
            "make it yours: `sudo chown -R 1001:1001 /home/me/.docker`",
        );
        is(
            "/home/me",
            0,
            "permission denied, /home/me belongs to root",
            "name a file that you may read: `DOCKER_CONFIG` or `REGISTRY_AUTH_FILE`",
        );
        is(
            "/home/me/.docker/config.json",
            1001,
            "its permissions do not let its owner read it",
            "permit it: `chmod u+rwX /home/me/.docker/config.json`",
        );
    }

    #[test]
    fn a_folder_is_a_problem_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::fake(&[]);
        let path = folder.path().display();
        let problem = text(folder.path(), &env).unwrap_err();
        assert_eq!(
            problem.what,
            format!("{path} cannot be read: it is a folder")
        );
        assert_eq!(problem.fix, format!("remove the folder: `rmdir {path}`"));
        assert_eq!(text(&folder.path().join("none"), &env), Ok(None));
        fs::write(folder.path().join("file"), "x").unwrap();
        assert_eq!(text(&folder.path().join("file/none"), &env), Ok(None));
    }
}
