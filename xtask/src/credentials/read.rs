//! Reading a file that another program wrote, and the reason why it cannot be read.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::found::Problem;
use crate::{
    base::{env::User, ui::single_line},
    plan::quote_for_shell,
};

/// The text of a file; `None` if there is no such file.
///
/// # Errors
/// The problem, with the command that mends it.
pub fn text(path: &Path, user: User) -> Result<Option<Vec<u8>>, Problem> {
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
            Err(unreadable(path, why, user))
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

fn unreadable(path: &Path, why: Unreadable, user: User) -> Problem {
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
            (
                format!("permission denied, {it} belongs to {whose}"),
                format!(
                    "make it yours: `sudo chown {recursive}{uid}:{gid} {}`",
                    quoted(&culprit)
                ),
            )
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
    use crate::base::env::Env;

    #[test]
    fn a_file_that_may_not_be_read_is_reported_with_its_owner() {
        let user = Env::fake(&[]).user;
        let file = Path::new("/home/me/.docker/config.json");
        let is = |culprit: &str, owner, what: &str, fix: &str| {
            let why = Unreadable::NotPermitted(Some((culprit.into(), owner)));
            let problem = unreadable(file, why, user);
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
            "/home/me/.docker/config.json",
            1001,
            "its permissions do not let its owner read it",
            "permit it: `chmod u+rwX /home/me/.docker/config.json`",
        );
    }

    #[test]
    fn a_folder_is_a_problem_and_a_missing_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let user = Env::fake(&[]).user;
        let path = folder.path().display();
        let problem = text(folder.path(), user).unwrap_err();
        assert_eq!(
            problem.what,
            format!("{path} cannot be read: it is a folder")
        );
        assert_eq!(problem.fix, format!("remove the folder: `rmdir {path}`"));
        assert_eq!(text(&folder.path().join("none"), user), Ok(None));
        fs::write(folder.path().join("file"), "x").unwrap();
        assert_eq!(text(&folder.path().join("file/none"), user), Ok(None));
    }
}
