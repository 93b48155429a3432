//! `docker-login`: signs in to the image's registry. The token is never an argument and never shown. A
//! GitHub token goes only to GitHub's registry.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::Env, error::Failure},
    catalogue,
    commands::command::Command,
    config::files,
    credentials::{
        environment::{GITHUB_REGISTRY, Tokens},
        find::find,
        registry_name::Typed,
        stored::{self, Stored},
    },
    engine::{
        Engine,
        login::{self, LoginFailure},
    },
    facts::context::{Context, Ran},
    plan::{Cmd, Output, Plan, Stdin, Step},
    registry::address::Origin,
    release::destination,
    settings::{EngineChoice, Settings, resolve::Arguments},
};

/// How long the GitHub CLI may take to answer.
const GITHUB_CLI_LIMIT: Duration = Duration::from_secs(5);

/// Sign in to the image's registry
#[derive(Args, Clone, Debug)]
#[command(visible_alias = "login")]
pub struct DockerLogin {
    /// The registry [default: the image repository's]
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
    /// The user name [default: registry.user; for ghcr.io the GitHub actor]
    #[arg(long, short, value_name = "NAME")]
    username: Option<String>,
    /// Read the token from standard input
    #[arg(long)]
    password_stdin: bool,
}

/// Where the token comes from. The first that exists is used.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TokenSource {
    /// `--password-stdin`.
    Stdin,
    Env(&'static str),
    /// `gh auth token`, if the GitHub CLI is installed and signed in.
    GitHubCli,
    /// Typed on the terminal, without an echo.
    Prompt,
}

impl TokenSource {
    /// The command that prints the token, for the line of a dry run.
    fn command(&self) -> String {
        match self {
            Self::Stdin | Self::Prompt => "cat".to_owned(),
            Self::Env(name) => format!("printenv {name}"),
            Self::GitHubCli => "gh auth token".to_owned(),
        }
    }
}

/// A login: the registry, the user and the source of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LoginRequest {
    registry: String,
    /// The namespace that the login is for; empty for the whole registry.
    path: String,
    user: String,
    token: TokenSource,
    /// Whether `registry.insecure` names it.
    is_insecure: bool,
}

impl LoginRequest {
    /// What the login is for, as a name for the engine and for people.
    fn name(&self) -> String {
        let (registry, path) = (self.registry.clone(), self.path.clone());
        Typed { registry, path }.name()
    }
}

/// Whether the GitHub CLI can give a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GitHubCli {
    SignedIn,
    Unavailable,
}

/// Chooses the registry, the user and the token's source.
///
/// # Errors
/// When no user is known, and when there is no token.
fn login_request(
    settings: &Settings,
    env: &Env,
    args: &DockerLogin,
    gh: GitHubCli,
) -> Result<LoginRequest, Failure> {
    let typed = args.registry.as_deref();
    let Typed { registry, path } =
        Typed::parse(typed.unwrap_or(settings.image.repository.registry()));
    let github = registry == GITHUB_REGISTRY;
    let tokens = Tokens {
        env,
        registry: settings.configured_repository.registry(),
        user: &settings.registry.user,
    };
    let user = args
        .username
        .as_deref()
        .or(tokens.user(&registry))
        .ok_or_else(|| {
            Failure::usage(format!(
                "no user name for {registry}: pass `--username` or set `registry.user`"
            ))
            .hint("`registry.user` belongs in `xtask.local.toml`")
        })?
        .to_owned();
    let token = match tokens.variable(&registry) {
        _ if args.password_stdin => TokenSource::Stdin,
        Some(name) => TokenSource::Env(name),
        None if github && gh == GitHubCli::SignedIn => TokenSource::GitHubCli,
        None if env.stdin_tty => TokenSource::Prompt,
        None => {
            let refused = Failure::usage(format!("there is no token for {registry}"));
            let names = tokens.variables(&registry).join(" or ");
            let pass = "`printenv MY_TOKEN | cargo xtask docker-login";
            return Err(if names.is_empty() {
                refused.hint(format!(
                    "pass it: {pass} --registry {registry} --password-stdin`"
                ))
            } else {
                refused.hint(format!("set {names}, or pass it: {pass} --password-stdin`"))
            });
        }
    };
    Ok(LoginRequest {
        is_insecure: settings.registry.insecure.contains(&registry)
            || Origin::of_registry(&registry).is_some_and(|origin| origin.is_loopback()),
        registry,
        path,
        user,
        token,
    })
}

fn plan(engine: &Engine, request: &LoginRequest, secret: String) -> Plan {
    let stdin = Stdin {
        text: secret,
        source_command: request.token.command(),
    };
    let name = request.name();
    let cmd = engine.login(&name, &request.user, stdin, request.is_insecure);
    let say = format!("in to {name} as {}", request.user);
    vec![Step::new(cmd, Output::Quiet).status("Signing", say)].into()
}

impl Command for DockerLogin {
    fn run(&self, cx: &Context) -> Result<()> {
        let request = login_request(cx.settings, cx.env, self, github_cli(cx))?;
        let (engine, _) = cx.engine_and_rejected()?;
        let engine = engine.engine;
        if cx.dry_run {
            let plan = plan(&engine, &request, String::new());
            return cx.run_or_print(&plan).map(|_| ());
        }
        let secret = token(cx, &request)?;
        match cx.run_or_print(&plan(&engine, &request, secret)) {
            Ok(Ran::Yes | Ran::No) => {}
            Err(error) => return Err(explain(error, &engine, &request)),
        }
        let stored = stored::find(engine.kind, cx.env, &request.registry, &request.path);
        let kept = match &stored {
            Some(stored) => stored.to_string(),
            None => format!("kept by {}", engine.kind),
        };
        cx.ui.status(
            "Signed in",
            &format!("to {} as {}: {kept}", request.name(), request.user),
        );
        if let Some(stored) = stored {
            warn_of_other_login(cx, &engine, &request, &stored);
        }
        Ok(())
    }
}

/// Warns if the next push finds another login first. It may be without the `--engine` of this run.
fn warn_of_other_login(cx: &Context, engine: &Engine, request: &LoginRequest, stored: &Stored) {
    let repository = &cx.settings.image.repository;
    let registry = &request.registry;
    let path = if registry == repository.registry() {
        repository.path()
    } else {
        &request.path
    };
    let choice = engine_without_flags(cx);
    let (tokens, engines) = (destination::tokens(cx), destination::engines(cx, choice));
    let found = find(cx.exec, tokens, &engines, registry, path);
    let Some(source) = found.credentials.map(|it| it.source) else {
        return;
    };
    let token = tokens.variable(registry);
    let is_same_token = token.is_some_and(|name| request.token == TokenSource::Env(name));
    if is_same_token || stored.is_source(&source) {
        return;
    }
    // A command that chooses an engine chooses the same one, and uses this login.
    let chooses_same = choice == EngineChoice::Auto && cx.settings.engine.prefer == choice;
    let who = if chooses_same && found.variable.is_none() {
        format!("a command that asks no engine, such as `push-archive`, uses for {registry}")
    } else {
        format!("a push to {registry} uses")
    };
    cx.ui
        .warn(&format!("{who} the login from {source}, not this one"));
    let hint = if let Some(name) = found.variable {
        format!("unset {name} to use the new login")
    } else if choice == EngineChoice::Only(engine.kind) {
        format!("remove the login from {source} to use the new one")
    } else {
        let program = engine.kind.program();
        let commands = if chooses_same {
            "such a command"
        } else {
            "each push"
        };
        format!("pass `--engine {program}` to {commands}, or remove the login from {source}")
    };
    cx.ui.hint(&hint);
}

/// The engine that the environment and the configuration choose.
fn engine_without_flags(cx: &Context) -> EngineChoice {
    let settings = files::find(&cx.env.cwd)
        .ok()
        .and_then(|files| Settings::resolve(&Arguments::default(), cx.env, &files).ok());
    settings.map_or(cx.settings.engine.prefer, |it| it.engine.prefer)
}

/// Asks whether the GitHub CLI is signed in, without fetching the token.
fn github_cli(cx: &Context) -> GitHubCli {
    let status = Cmd::new("gh").args(["auth", "status", "--hostname", "github.com"]);
    let signed_in = cx.find_program("gh").is_some()
        && cx
            .exec
            .capture(&status, GITHUB_CLI_LIMIT)
            .is_ok_and(|done| done.ok());
    if signed_in {
        GitHubCli::SignedIn
    } else {
        GitHubCli::Unavailable
    }
}

fn token(cx: &Context, request: &LoginRequest) -> Result<String> {
    let token = match &request.token {
        TokenSource::Stdin => std::io::read_to_string(std::io::stdin())?,
        TokenSource::Env(name) => destination::tokens(cx)
            .token(name)
            .unwrap_or_default()
            .to_owned(),
        TokenSource::GitHubCli => {
            let cmd = Cmd::new("gh").args(["auth", "token", "--hostname", "github.com"]);
            cx.exec
                .capture(&cmd, GITHUB_CLI_LIMIT)
                .map(|done| done.stdout)
                .unwrap_or_default()
        }
        TokenSource::Prompt => cx.exec.ask_secret(&format!(
            "token of {} for {}:",
            request.user, request.registry
        ))?,
    };
    let token = token.trim_end_matches(['\r', '\n']).to_owned();
    if token.is_empty() {
        return Err(Failure::usage("the token is empty").into());
    }
    Ok(token)
}

/// Explains a failure whose output the engine has shown already.
fn explain(error: anyhow::Error, engine: &Engine, request: &LoginRequest) -> anyhow::Error {
    let Some(failure) = error.downcast_ref::<Failure>() else {
        return error;
    };
    let registry = &request.registry;
    let explained = |message: String| Failure::new(message).code(failure.exit_code());
    let Some(refusal) = login::login_failure(failure.output()) else {
        return error;
    };
    let failure = match refusal {
        LoginFailure::InvalidToken => {
            let refused = explained(format!("{registry} refuses this token of {}", request.user));
            if registry == GITHUB_REGISTRY {
                refused
                    .hint("get a token that may push: `gh auth refresh --scopes write:packages`, or https://github.com/settings/tokens with `write:packages`")
                    .hint("set `permissions: packages: write` in GitHub Actions, and `GITHUB_TOKEN` in the step's `env`")
            } else {
                refused.hint("check the user name, and create a new token")
            }
        }
        LoginFailure::Unreachable => explained(format!("{registry} cannot be reached"))
            .hint("check the name and the network; behind a proxy, the engine's daemon needs its address too"),
        LoginFailure::PlainHttp => {
            explained(format!("{registry} speaks plain HTTP, and {} requires TLS", engine.kind)).hint(engine.allow_plain_http(registry))
        }
        LoginFailure::UntrustedCertificate => explained(format!("the certificate of {registry} is not trusted"))
            .hint(format!("give the engine its CA: /etc/docker/certs.d/{registry}/ca.crt or /etc/containers/certs.d/{registry}/ca.crt")),
        LoginFailure::CredentialHelper => explained("the credential helper does not work, so the login was not kept".to_owned())
            .hint("remove `credsStore` or `credHelpers` from the engine's config.json, or install the helper it names"),
    };
    failure.hint(catalogue::explain_hint(refusal.code())).into()
}

#[cfg(test)]
impl crate::commands::testing::Examples for DockerLogin {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let line = "docker-login --username me";
        machine.examples(&[line], |command: &Self, settings, env| {
            let request = login_request(settings, env, command, GitHubCli::SignedIn)?;
            let secret = crate::commands::testing::SECRET.to_owned();
            Ok(plan(&machine.engine().engine, &request, secret))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{commands::testing::parse, config::files::Files};

    fn decide(
        line: &[&str],
        env: &Env,
        gh: GitHubCli,
        repository: &str,
    ) -> Result<LoginRequest, Failure> {
        let line = ["docker-login"].iter().chain(line).copied();
        let command: DockerLogin = parse(line);
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n[image]\nrepository = '{repository}'\n"),
            local: None,
        };
        let settings = Settings::resolve(&Arguments::default(), env, &files)?;
        login_request(&settings, env, &command, gh)
    }

    #[test]
    fn in_ci_everything_is_in_the_environment() {
        let env = Env::fake(&[("GITHUB_ACTOR", "me"), ("GITHUB_TOKEN", "t")]);
        let decided = decide(&[], &env, GitHubCli::Unavailable, "ghcr.io/x/y").unwrap();
        assert_eq!(
            decided,
            LoginRequest {
                registry: "ghcr.io".into(),
                path: String::new(),
                user: "me".into(),
                token: TokenSource::Env("GITHUB_TOKEN"),
                is_insecure: false,
            }
        );
    }

    #[test]
    fn podman_signs_in_to_a_registry_without_tls_if_it_is_configured() {
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n[registry]\ninsecure = ['r.lan:5000']\n".into(),
            local: None,
        };
        let env = Env::fake(&[]);
        let settings = Settings::resolve(&Arguments::default(), &env, &files).unwrap();
        for (registry, expected) in [("r.lan:5000", true), ("r.lan", false)] {
            let line = [
                "docker-login",
                "-u",
                "me",
                "--password-stdin",
                "--registry",
                registry,
            ];
            let command: DockerLogin = parse(line);
            let request = login_request(&settings, &env, &command, GitHubCli::Unavailable);
            assert_eq!(request.unwrap().is_insecure, expected, "{registry}");
        }
    }

    #[test]
    fn githubs_token_and_user_go_nowhere_else() {
        let env = Env::fake(&[("GITHUB_ACTOR", "me"), ("GITHUB_TOKEN", "t")]);
        let elsewhere = |line: &[&str]| {
            decide(line, &env, GitHubCli::SignedIn, "registry.example.com/x").unwrap_err()
        };
        assert_eq!(
            elsewhere(&[]).to_string(),
            "no user name for registry.example.com: pass `--username` or set `registry.user`"
        );
        assert_eq!(
            elsewhere(&["-u", "me"]).to_string(),
            "there is no token for registry.example.com"
        );
    }

    #[test]
    fn the_first_available_token_source_is_used() {
        let bare = Env::fake(&[]);
        let mut terminal = bare.clone();
        terminal.stdin_tty = true;
        let from = |line: &[&str], env: &Env, gh| {
            decide(&[&["-u", "me"], line].concat(), env, gh, "ghcr.io/x/y")
                .map(|decided| decided.token)
        };
        let env = Env::fake(&[("GITHUB_TOKEN", "t")]);
        assert_eq!(
            from(&["--password-stdin"], &env, GitHubCli::SignedIn).unwrap(),
            TokenSource::Stdin
        );
        assert_eq!(
            from(&[], &env, GitHubCli::SignedIn).unwrap(),
            TokenSource::Env("GITHUB_TOKEN")
        );
        assert_eq!(
            from(&[], &bare, GitHubCli::SignedIn).unwrap(),
            TokenSource::GitHubCli
        );
        assert_eq!(
            from(&[], &terminal, GitHubCli::Unavailable).unwrap(),
            TokenSource::Prompt
        );
        assert!(from(&[], &bare, GitHubCli::Unavailable).is_err());
    }
}
