//! `docker-login`: signs in to the image's registry. The token is never an argument and never
//! shown; one of GitHub's goes to GitHub's registry only.

use std::time::Duration;

use anyhow::Result;

use super::{Context, Ran};
use crate::{
    cli::LoginArgs,
    credentials::{
        environment::{GITHUB_REGISTRY, token_variable, token_variables},
        files, find,
    },
    engine::{
        Engine,
        login::{self, Refusal},
    },
    env::Env,
    error::Failure,
    plan::{Cmd, Output, Plan, Stdin, Step},
    settings::Settings,
};

/// Where the token comes from, the first that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenFrom {
    /// `--password-stdin`.
    Stdin,
    Env(&'static str),
    /// `gh auth token`, where the GitHub CLI is installed and signed in.
    GitHubCli,
    /// Typed on the terminal, without an echo.
    Prompt,
}

impl TokenFrom {
    /// The command that gives it, for the line of a dry run.
    pub fn command(&self) -> String {
        match self {
            Self::Stdin | Self::Prompt => "cat".to_owned(),
            Self::Env(name) => format!("printenv {name}"),
            Self::GitHubCli => "gh auth token".to_owned(),
        }
    }
}

/// What was asked for, and what there is: enough to decide without any token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub registry: String,
    pub user: String,
    pub token: TokenFrom,
}

/// Whether the GitHub CLI can give a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitHubCli {
    SignedIn,
    Absent,
}

/// Decides on registry, user and the token's source.
///
/// # Errors
/// When there is no user, or no way to a token.
pub fn request(
    settings: &Settings,
    env: &Env,
    args: &LoginArgs,
    gh: GitHubCli,
) -> Result<Request, Failure> {
    let registry = args
        .registry
        .clone()
        .unwrap_or_else(|| settings.image.repository.registry().to_owned());
    let github = registry == GITHUB_REGISTRY;
    let configured = Some(settings.registry_user.as_str()).filter(|user| !user.is_empty());
    let user = args
        .username
        .as_deref()
        .or(configured)
        .or(env.get("GITHUB_ACTOR").filter(|_| github))
        .ok_or_else(|| {
            Failure::usage(format!("whose token for {registry}?"))
                .hint("name the user: `--username NAME`, or `registry.user` in `xtask.local.toml`")
        })?
        .to_owned();
    let token = match token_variable(env, &registry) {
        _ if args.password_stdin => TokenFrom::Stdin,
        Some(name) => TokenFrom::Env(name),
        None if github && gh == GitHubCli::SignedIn => TokenFrom::GitHubCli,
        None if env.stdin_tty => TokenFrom::Prompt,
        None => {
            return Err(Failure::usage(format!("there is no token for {registry}"))
                .hint(format!("set {}, or hand it in: `printenv MY_TOKEN | cargo xtask docker-login --password-stdin`", token_variables(&registry).join(" or "))));
        }
    };
    Ok(Request {
        registry,
        user,
        token,
    })
}

pub fn plan(engine: &Engine, request: &Request, secret: String) -> Plan {
    let stdin = Stdin {
        secret,
        from: request.token.command(),
    };
    let cmd = engine.login(&request.registry, &request.user, stdin);
    let say = format!("in to {} as {}", request.registry, request.user);
    Plan {
        steps: vec![Step::new(cmd, Output::Quiet).say("Signing", say)],
    }
}

pub fn run(cx: &Context, args: &LoginArgs) -> Result<()> {
    let request = request(cx.settings, cx.env, args, github_cli(cx))?;
    let (engine, _) = cx.probe().engine_and_others()?;
    let engine = engine.engine;
    if cx.dry_run {
        return cx
            .carry_out(&plan(&engine, &request, String::new()))
            .map(|_| ());
    }
    let secret = token(cx, &request)?;
    match cx.carry_out(&plan(&engine, &request, secret)) {
        Ok(Ran::Yes | Ran::No) => {}
        Err(error) => return Err(explain(error, &engine, &request)),
    }
    let files = files::of_engine(engine.kind, cx.env);
    let kept = match find::file_with_login(files, &request.registry) {
        None => "the engine's credential helper has it".to_owned(),
        Some(file) if files::is_lost_at_reboot(engine.kind, &file) => {
            format!("kept in {} until the next reboot", file.display())
        }
        Some(file) => format!("kept in {}", file.display()),
    };
    cx.ui.status(
        "Signed in",
        &format!("to {} as {}: {kept}", request.registry, request.user),
    );
    Ok(())
}

/// Asks for nothing but whether; the token itself is fetched when it is needed.
pub fn github_cli(cx: &Context) -> GitHubCli {
    let status = Cmd::new("gh").args(["auth", "status", "--hostname", "github.com"]);
    let signed_in = cx.probe().find("gh").is_some()
        && cx
            .exec
            .ask(&status, Duration::from_secs(5))
            .is_ok_and(|done| done.ok());
    if signed_in {
        GitHubCli::SignedIn
    } else {
        GitHubCli::Absent
    }
}

fn token(cx: &Context, request: &Request) -> Result<String> {
    let token = match &request.token {
        TokenFrom::Stdin => std::io::read_to_string(std::io::stdin())?,
        TokenFrom::Env(name) => cx.env.get(name).unwrap_or_default().to_owned(),
        TokenFrom::GitHubCli => {
            let cmd = Cmd::new("gh").args(["auth", "token", "--hostname", "github.com"]);
            cx.exec
                .ask(&cmd, Duration::from_secs(5))
                .map(|done| done.stdout)
                .unwrap_or_default()
        }
        TokenFrom::Prompt => rpassword::prompt_password(format!(
            "token of {} for {}: ",
            request.user, request.registry
        ))?,
    };
    let token = token.trim_end_matches(['\r', '\n']).to_owned();
    if token.is_empty() {
        return Err(Failure::usage("the token is empty").into());
    }
    Ok(token)
}

/// The engine's words were shown; this says what they mean and what to do.
fn explain(error: anyhow::Error, engine: &Engine, request: &Request) -> anyhow::Error {
    let Some(failure) = error.downcast_ref::<Failure>() else {
        return error;
    };
    let registry = &request.registry;
    let meant = |message: String| Failure::new(message).code(failure.exit_code());
    let Some(refusal) = login::refusal(failure.said()) else {
        return error;
    };
    let explained = match refusal {
        Refusal::WrongToken => {
            let refused = meant(format!("{registry} does not take this token of {}", request.user));
            if registry == GITHUB_REGISTRY {
                refused
                    .hint("a new one that may push: `gh auth refresh --scopes write:packages`, or https://github.com/settings/tokens with `write:packages`")
                    .hint("in GitHub Actions: `permissions: packages: write`, and `GITHUB_TOKEN` in the step's `env`")
            } else {
                refused.hint("check the user's name, and make a new token where this one was made")
            }
        }
        Refusal::Unreachable => meant(format!("{registry} cannot be reached"))
            .hint("check the name and the network; behind a proxy, the engine's daemon needs its address too"),
        Refusal::PlainHttp => {
            meant(format!("{registry} speaks plain HTTP, and {} wants TLS", engine.kind)).hint(engine.allow_plain_http(registry))
        }
        Refusal::Certificate => meant(format!("the certificate of {registry} is not trusted"))
            .hint(format!("give the engine its CA: /etc/docker/certs.d/{registry}/ca.crt or /etc/containers/certs.d/{registry}/ca.crt")),
        Refusal::Helper => meant("the credential helper does not work, so nothing was kept".to_owned())
            .hint("remove `credsStore` or `credHelpers` from the engine's config.json, or install the helper it names"),
    };
    explained.more(refusal.code()).into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        config::Files,
    };

    fn decide(
        line: &[&str],
        env: &Env,
        gh: GitHubCli,
        repository: &str,
    ) -> Result<Request, Failure> {
        let cli = Cli::try_parse_from(["xtask", "docker-login"].iter().chain(line)).unwrap();
        let files = Files {
            root: "/src".into(),
            project: format!("schema = 1\n[image]\nrepository = '{repository}'\n"),
            local: None,
        };
        let settings = Settings::resolve(&cli, env, &files)?;
        let Command::DockerLogin(args) = &cli.command else {
            unreachable!()
        };
        request(&settings, env, args, gh)
    }

    #[test]
    fn in_ci_everything_is_in_the_environment() {
        let env = Env::fake(&[("GITHUB_ACTOR", "me"), ("GITHUB_TOKEN", "t")]);
        let decided = decide(&[], &env, GitHubCli::Absent, "ghcr.io/x/y").unwrap();
        assert_eq!(
            decided,
            Request {
                registry: "ghcr.io".into(),
                user: "me".into(),
                token: TokenFrom::Env("GITHUB_TOKEN")
            }
        );
    }

    #[test]
    fn githubs_token_and_user_go_nowhere_else() {
        let env = Env::fake(&[("GITHUB_ACTOR", "me"), ("GITHUB_TOKEN", "t")]);
        let elsewhere = |line: &[&str]| {
            decide(line, &env, GitHubCli::SignedIn, "registry.example.com/x").unwrap_err()
        };
        assert_eq!(
            elsewhere(&[]).to_string(),
            "whose token for registry.example.com?"
        );
        assert_eq!(
            elsewhere(&["-u", "me"]).to_string(),
            "there is no token for registry.example.com"
        );
    }

    #[test]
    fn the_tokens_source_is_the_first_that_there_is() {
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
            TokenFrom::Stdin
        );
        assert_eq!(
            from(&[], &env, GitHubCli::SignedIn).unwrap(),
            TokenFrom::Env("GITHUB_TOKEN")
        );
        assert_eq!(
            from(&[], &bare, GitHubCli::SignedIn).unwrap(),
            TokenFrom::GitHubCli
        );
        assert_eq!(
            from(&[], &terminal, GitHubCli::Absent).unwrap(),
            TokenFrom::Prompt
        );
        assert!(from(&[], &bare, GitHubCli::Absent).is_err());
    }
}
