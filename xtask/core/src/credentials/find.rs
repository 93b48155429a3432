//! Looking for a login.

use super::{
    config_file::ConfigFile,
    environment::Tokens,
    found::{Found, Problem},
    helper::{self, Answer},
    login::{Credentials, Login},
    places::{Place, of_engines},
    read, registries_conf, registry_name,
};
use crate::{base::engine_kind::EngineKind, exec::Exec};

/// Looks for the login for a repository: `path` in `registry`. The path is empty for the registry as a whole. A token
/// in the environment comes first, because it was set for this run. Then come the places of the engines, in their
/// order. A place that cannot be read becomes a problem of the result, and the search goes on.
pub fn find(
    exec: &Exec,
    tokens: Tokens,
    kinds: &[EngineKind],
    registry: &str,
    path: &str,
) -> Found {
    let mut search = Search {
        exec,
        tokens,
        registry,
        path,
        found: Found {
            sign_in: sign_in(tokens, registry),
            in_ci: in_ci(tokens, registry),
            ..Found::default()
        },
    };
    if let Some(credentials) = tokens.login(registry) {
        search.found.variable = Some(credentials.source.clone());
        search.found.credentials = Some(credentials);
        return search.found;
    }
    search.found.problems.extend(tokens.problem(registry));
    search.found.looked_in = tokens.describe(registry);
    let helpers = if kinds.contains(&EngineKind::Podman) {
        registries_conf::helpers(tokens.env, &mut search.found.problems)
    } else {
        registries_conf::Helpers::default()
    };
    for place in of_engines(kinds, tokens.env, &helpers) {
        let found = search.look(&place);
        if found.is_some() {
            search.found.credentials = found;
            search.found.variable = match place {
                Place::Variable(name) => Some(name.to_owned()),
                Place::File(_) | Place::Helper { .. } => None,
            };
            break;
        }
    }
    search.found
}

/// The command that stores a login. Without an option it is for the configured registry.
fn sign_in(tokens: Tokens, registry: &str) -> String {
    let command = "cargo xtask docker-login";
    if registry_name::is_same(registry, tokens.registry) {
        command.to_owned()
    } else {
        format!("{command} --registry {registry}")
    }
}

fn in_ci(tokens: Tokens, registry: &str) -> &'static str {
    match tokens.variables(registry)[..] {
        [] => "in CI: set DOCKER_AUTH_CONFIG to the text of a `config.json` with the login",
        ["REGISTRY_TOKEN", ..] => {
            "in CI: set REGISTRY_TOKEN (on GitHub, `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`)"
        }
        _ => "in CI on GitHub: set `GITHUB_TOKEN: ${{ github.token }}` in the step's `env`",
    }
}

struct Search<'a> {
    exec: &'a Exec,
    tokens: Tokens<'a>,
    registry: &'a str,
    path: &'a str,
    found: Found,
}

impl Search<'_> {
    fn look(&mut self, place: &Place) -> Option<Credentials> {
        match place {
            Place::File(file) => match read::text(file, self.tokens.env) {
                Ok(Some(text)) => self.parsed(&file.display().to_string(), &text),
                Ok(None) => self.nothing(&file.display().to_string(), "does not exist"),
                Err(problem) => self.problem(problem),
            },
            Place::Variable(name) => match self.tokens.env.get(name) {
                Some(text) => self.parsed(name, text.as_bytes()),
                None => self.nothing(name, "not set"),
            },
            Place::Helper { program, named_in } => {
                let source = format!("{program} (credential-helpers in {})", named_in.display());
                let found = self.ask(program, &source);
                found.or_else(|| self.nothing(&source, "has no login"))
            }
        }
    }

    /// A credential file, or the text of one. Its helper comes first, as with Docker.
    fn parsed(&mut self, name: &str, text: &[u8]) -> Option<Credentials> {
        let file = match ConfigFile::parse(text) {
            Ok(file) => file,
            Err(why) => return self.problem(read::broken(name, &why)),
        };
        if let Some(helper) = file.helper(self.registry) {
            let source = format!("{} ({} in {name})", helper.program, helper.key);
            let found = self.ask(&helper.program, &source);
            if found.is_some() {
                return found;
            }
        }
        match file.login(self.registry, self.path) {
            Ok(Some(login)) => Some(credentials(login, name)),
            Ok(None) => self.nothing(name, &format!("has no login for {}", self.registry)),
            Err(why) => self.problem(read::broken(name, &why)),
        }
    }

    fn ask(&mut self, program: &str, source: &str) -> Option<Credentials> {
        let (what, verb) = match helper::get(self.exec, self.tokens.env, program, self.registry) {
            Answer::Login(login) => return Some(credentials(login, source)),
            Answer::NoLogin => return None,
            Answer::NotInstalled => (format!("{source} is not installed"), "install"),
            Answer::Failed(why) => (format!("{source} fails: {why}"), "repair or unlock"),
        };
        let fix =
            format!("{verb} the credential helper `{program}`, or remove the line that names it");
        self.problem(Problem { what, fix })
    }

    fn nothing(&mut self, name: &str, state: &str) -> Option<Credentials> {
        self.found.looked_in.push(format!("{name}: {state}"));
        None
    }

    fn problem(&mut self, problem: Problem) -> Option<Credentials> {
        self.found.looked_in.push(problem.what.clone());
        self.found.problems.push(problem);
        None
    }
}

fn credentials(login: Login, source: &str) -> Credentials {
    Credentials {
        login,
        source: source.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::base::env::Env;

    /// A home folder with files and credential helpers.
    struct Home(tempfile::TempDir);

    impl Home {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn write(self, name: &str, text: &str) -> Self {
            let path = self.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        /// A credential helper that reads its input and runs this script.
        fn helper(self, name: &str, script: &str) -> Self {
            use std::os::unix::fs::PermissionsExt as _;
            let name = format!("docker-credential-{name}");
            let script = format!("#!/bin/sh\nread -r server\n{script}\n");
            let home = self.write(&name, &script);
            fs::set_permissions(home.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
            home
        }

        fn find(&self, kinds: &[EngineKind], vars: &[(&str, &str)]) -> Found {
            let home = self.0.path().to_str().unwrap();
            let config = self.path("no.conf");
            let own = [
                ("HOME", home),
                ("PATH", home),
                ("CONTAINERS_REGISTRIES_CONF", config.to_str().unwrap()),
            ];
            let env = Env::fake(&[&own, vars].concat());
            let tokens = Tokens {
                env: &env,
                registry: "r.io",
                user: "me",
            };
            find(&Exec::silent(), tokens, kinds, "r.io", "a/b")
        }

        /// Where the login is from, without the path of the home folder.
        fn source(&self, kinds: &[EngineKind], vars: &[(&str, &str)]) -> String {
            self.shown(&self.find(kinds, vars).credentials.unwrap().source)
        }

        fn shown(&self, text: &str) -> String {
            text.replace(self.0.path().to_str().unwrap(), "~")
        }
    }

    const DOCKER: &[EngineKind] = &[EngineKind::Docker];
    const PODMAN: &[EngineKind] = &[EngineKind::Podman];
    const CONFIG: &str = ".docker/config.json";
    const LOGIN: &str = r#"{"auths":{"r.io":{"auth":"bWU6eA=="}}}"#;
    const TOKEN: (&str, &str) = ("REGISTRY_TOKEN", "t");

    #[test]
    fn what_is_given_for_this_run_comes_before_files() {
        let home = Home::new().write(CONFIG, LOGIN);
        let variable = ("DOCKER_AUTH_CONFIG", LOGIN);
        for kinds in [DOCKER, PODMAN] {
            assert_eq!(home.source(kinds, &[]), format!("~/{CONFIG}"));
            assert_eq!(home.source(kinds, &[variable]), "DOCKER_AUTH_CONFIG");
            assert_eq!(home.source(kinds, &[variable, TOKEN]), "REGISTRY_TOKEN");
        }
    }

    #[test]
    fn each_engine_has_its_own_first_file() {
        let podmans = ".config/containers/auth.json";
        let home = Home::new().write(CONFIG, LOGIN).write(podmans, LOGIN);
        assert_eq!(home.source(DOCKER, &[]), format!("~/{CONFIG}"));
        assert_eq!(home.source(PODMAN, &[]), format!("~/{podmans}"));
    }

    #[test]
    fn a_helper_comes_before_the_login_in_its_file() {
        let text = r#"{"credHelpers":{"r.io":"h"},"auths":{"r.io":{"auth":"bWU6c3RhbGU="}}}"#;
        let login = r#"echo '{"Username":"me","Secret":"fresh"}'"#;
        let home = Home::new().write(CONFIG, text).helper("h", login);
        let source = format!("docker-credential-h (credHelpers in ~/{CONFIG})");
        assert_eq!(home.source(DOCKER, &[]), source);
        let nothing = "echo 'credentials not found in native keychain'\nexit 1";
        let home = home.helper("h", nothing);
        assert_eq!(home.source(DOCKER, &[]), format!("~/{CONFIG}"));
        assert_eq!(home.find(DOCKER, &[]).problems, []);
    }

    #[test]
    fn a_helper_that_fails_is_a_problem_in_its_own_words() {
        let text = r#"{"credsStore":"h","auths":{"r.io":{}}}"#;
        let home = Home::new().write(CONFIG, text);
        let what = |home: &Home| {
            let found = home.find(DOCKER, &[]);
            assert_eq!(found.credentials, None);
            home.shown(&found.problems[0].what)
        };
        let source = format!("docker-credential-h (credsStore in ~/{CONFIG})");
        assert_eq!(what(&home), format!("{source} is not installed"));
        let home = home.helper("h", "echo 'The keychain is locked'\nexit 1");
        assert_eq!(
            what(&home),
            format!("{source} fails: The keychain is locked")
        );
        let message = home
            .find(DOCKER, &[])
            .not_signed_in("r.io", "push to", "r.io/a/b");
        assert_eq!(
            home.shown(&message),
            format!(
                "no login for r.io could be read, which is needed to push to r.io/a/b\n  \
                 REGISTRY_TOKEN: not set\n  \
                 DOCKER_AUTH_CONFIG: not set\n  \
                 {source} fails: The keychain is locked\n  \
                 ~/{CONFIG}: has no login for r.io"
            )
        );
    }

    #[test]
    fn a_helper_of_registries_conf_is_asked() {
        let login = r#"echo "{\"Username\":\"$server\",\"Secret\":\"s\"}""#;
        let home = Home::new().helper("h", login);
        let home = home.write("registries.conf", "credential-helpers = ['h']\n");
        let conf = home.path("registries.conf");
        let vars = [("CONTAINERS_REGISTRIES_CONF", conf.to_str().unwrap())];
        let found = home.find(PODMAN, &vars).credentials.unwrap();
        let source = "docker-credential-h (credential-helpers in ~/registries.conf)";
        assert_eq!(home.shown(&found.source), source);
        let login = Login::Password {
            user: "r.io".into(),
            password: "s".into(),
        };
        assert_eq!(found.login, login);
        assert_eq!(home.find(DOCKER, &vars).credentials, None);
    }

    #[test]
    fn a_broken_place_is_told_and_the_next_one_is_tried() {
        let broken = "{\n  \"auths\": {},\n}\n";
        let podmans = ".config/containers/auth.json";
        let home = Home::new().write(podmans, broken).write(CONFIG, LOGIN);
        let found = home.find(PODMAN, &[("DOCKER_AUTH_CONFIG", "[]")]);
        assert!(found.credentials.is_some());
        let problems: Vec<_> = found
            .problems
            .iter()
            .map(|it| home.shown(&it.what))
            .collect();
        let file = format!("~/{podmans} cannot be read: trailing comma at line 3 column 1");
        assert_eq!(
            problems,
            [
                "DOCKER_AUTH_CONFIG cannot be read: it is not a JSON object".to_owned(),
                file
            ]
        );
        assert_eq!(
            found.problems[0].fix,
            "correct DOCKER_AUTH_CONFIG, or remove it"
        );
    }
}
