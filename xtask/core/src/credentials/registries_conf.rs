//! The credential helpers that Podman's `registries.conf` names for all registries.
//! <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>

use std::{
    fs,
    path::{Path, PathBuf},
};

use toml::de::{DeTable, DeValue};

use super::{found::Problem, read};
use crate::base::env::Env;

/// The name that stands for the credential files in the list of helpers.
pub const FILES: &str = "containers-auth.json";

const SYSTEM: &str = "/etc/containers/registries.conf";

const KEY: &str = "credential-helpers";

/// The helpers in their order, and the file that names them. None by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Helpers {
    pub names: Vec<String>,
    pub file: PathBuf,
}

/// Reads the helpers. A file that cannot be read is a problem, and counts as missing.
pub fn helpers(env: &Env, problems: &mut Vec<Problem>) -> Helpers {
    let user = env
        .home()
        .map(|home| home.join(".config/containers/registries.conf"));
    let mut files = Vec::new();
    let mut folders = Vec::new();
    // With a file of the user's own, the system's are not read.
    let user_only = env.get("CONTAINERS_REGISTRIES_CONF").is_none()
        && user.as_ref().is_some_and(|file| file.exists());
    match (env.get("CONTAINERS_REGISTRIES_CONF"), &user) {
        (Some(file), _) => files.push(PathBuf::from(file)),
        (None, Some(file)) if user_only => files.push(file.clone()),
        (None, _) => files.push(PathBuf::from(SYSTEM)),
    }
    if !user_only {
        folders.push(PathBuf::from(format!("{SYSTEM}.d")));
    }
    folders.extend(user.map(|file| file.with_extension("conf.d")));
    files.extend(folders.iter().flat_map(|folder| drop_ins(folder)));
    last_list(&files, env, problems)
}

/// The list of the last file that has one: it replaces those before it.
fn last_list(files: &[PathBuf], env: &Env, problems: &mut Vec<Problem>) -> Helpers {
    let mut last = Helpers::default();
    for file in files {
        let names = match read::text(file, env) {
            Ok(text) => text.map(|text| parse(&text)).transpose(),
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        match names {
            Ok(Some(Some(names))) => {
                let file = file.clone();
                last = Helpers { names, file };
            }
            Ok(Some(None) | None) => {}
            Err(why) => problems.push(read::broken(&file.display().to_string(), &why)),
        }
    }
    last
}

fn parse(text: &[u8]) -> Result<Option<Vec<String>>, String> {
    let text = String::from_utf8_lossy(text);
    let conf = DeTable::parse(&text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{} at line {line} column {column}", error.message())
    })?;
    let Some(value) = conf.get_ref().get(KEY) else {
        return Ok(None);
    };
    let names = value.get_ref().as_array().and_then(|items| {
        let name = |item: &toml::Spanned<DeValue>| item.get_ref().as_str().map(str::to_owned);
        items.iter().map(name).collect::<Option<Vec<_>>>()
    });
    names
        .map(Some)
        .ok_or_else(|| format!("`{KEY}` is not a list of texts"))
}

/// The files of a folder whose names end with `.conf`, in the order of their names.
fn drop_ins(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "conf"))
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_file_replaces_the_systems_and_drop_ins_replace_both() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join(".config/containers");
        fs::create_dir_all(home.join("registries.conf.d")).unwrap();
        let env = |vars: &[(&str, &str)]| {
            let home = ("HOME", folder.path().to_str().unwrap());
            Env::fake(&[&[home], vars].concat())
        };
        let mut problems = Vec::new();
        let write = |name: &str, text: &str| {
            fs::write(home.join(name), text).unwrap();
            home.join(name)
        };
        let user = write(
            "registries.conf",
            "credential-helpers = ['a']\n[[registry]]\nprefix='x'\n",
        );
        let is = |found: Helpers, names: &[&str], file: &Path| {
            assert_eq!(
                (found.names.join(" "), found.file.as_path()),
                (names.join(" "), file)
            );
        };
        is(helpers(&env(&[]), &mut problems), &["a"], &user);
        let named = write(
            "other",
            "credential-helpers = ['b', 'containers-auth.json']\n",
        );
        let vars = [("CONTAINERS_REGISTRIES_CONF", named.to_str().unwrap())];
        is(helpers(&env(&vars), &mut problems), &["b", FILES], &named);

        write("registries.conf.d/1.conf", "credential-helpers = ['c']\n");
        let last = write("registries.conf.d/2.conf", "credential-helpers = ['d']\n");
        write("registries.conf.d/3.conf", "short-name-mode = 'disabled'\n");
        write("registries.conf.d/4.other", "credential-helpers = ['e']\n");
        is(helpers(&env(&vars), &mut problems), &["d"], &last);
        assert_eq!(problems, []);

        write(
            "registries.conf.d/5.conf",
            "a = 1\ncredential-helpers = [\n",
        );
        is(helpers(&env(&[]), &mut problems), &["d"], &last);
        let what = &problems[0].what;
        assert!(
            what.contains("5.conf cannot be read: ") && what.contains(" at line 2 column "),
            "{what}"
        );
    }
}
