//! Credential helpers: programs that keep logins, for example in the system's keychain.
//! <https://github.com/docker/docker-credential-helpers#usage>

use std::{path::Path, time::Duration};

use serde_json::Value;

use super::{login::Login, registry_name};
use crate::{
    base::{env::Env, secret::redact, ui::single_line},
    exec::{Exec, Finished, NoAnswer},
    plan::{Cmd, Stdin},
};

/// How long a helper may take. A keychain may ask the user for a password.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The user name by which a helper says that the secret is an identity token.
/// <https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>
const IDENTITY_TOKEN_USER: &str = "<token>";

/// What every helper prints if it has no login for a registry.
/// <https://github.com/docker/docker-credential-helpers/blob/master/credentials/error.go>
const NOT_FOUND: &str = "credentials not found";

/// What a helper answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Login(Login),
    NoLogin,
    NotInstalled,
    /// Why it gives no answer, in its own words if it has any.
    Failed(String),
}

/// Asks a helper for the login of a registry.
pub fn get(exec: &Exec, env: &Env, program: &str, registry: &str) -> Answer {
    let Ok(program) = which::which_in(program, env.path(), &env.cwd) else {
        return Answer::NotInstalled;
    };
    let ask = |name| read(&exec.capture(&get_cmd(&program, name), TIME_LIMIT));
    let answers = registry_name::all_for_helper(registry).into_iter().map(ask);
    let mut answers = answers.skip_while(|answer| *answer == Answer::NoLogin);
    answers.next().unwrap_or(Answer::NoLogin)
}

fn get_cmd(program: &Path, name: &str) -> Cmd {
    let mut cmd = Cmd::new(program.display().to_string()).arg("get");
    cmd.stdin = Some(Stdin {
        text: name.to_owned(),
        source_command: format!("echo {name}"),
    });
    cmd
}

fn read(answer: &Result<Finished, NoAnswer>) -> Answer {
    let finished = match answer {
        Ok(finished) => finished,
        // The command ends then, and says so.
        Err(NoAnswer::Interrupted(_)) => return Answer::NoLogin,
        Err(why) => return Answer::Failed(why.to_string()),
    };
    if finished.ok() {
        // The answer may have the secret, so it is not shown.
        return parse(&finished.stdout).unwrap_or_else(|| {
            Answer::Failed("its answer has no user name and secret".to_owned())
        });
    }
    if finished.stdout.to_lowercase().contains(NOT_FOUND) {
        return Answer::NoLogin;
    }
    // Helpers print their reason to standard output.
    let words = single_line(&finished.stdout);
    let words = if words.is_empty() {
        single_line(&finished.last_line())
    } else {
        words
    };
    Answer::Failed(redact(&words))
}

fn parse(answer: &str) -> Option<Answer> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let (user, password) = (text("Username")?, text("Secret")?);
    Some(Answer::Login(if user == IDENTITY_TOKEN_USER {
        Login::IdentityToken(password)
    } else {
        Login::Password { user, password }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::finished::answer;

    #[test]
    fn answers_are_parsed() {
        let login = |user: &str| {
            let text = format!(r#"{{"ServerURL":"r","Username":"{user}","Secret":"s"}}"#);
            read(&answer(0, &text, ""))
        };
        let password = Login::Password {
            user: "me".into(),
            password: "s".into(),
        };
        assert_eq!(login("me"), Answer::Login(password));
        let token = Login::IdentityToken("s".into());
        assert_eq!(login("<token>"), Answer::Login(token));
        let none = answer(1, "credentials not found in native keychain\n", "");
        assert_eq!(read(&none), Answer::NoLogin);
    }

    #[test]
    fn a_failure_is_told_in_the_helpers_words() {
        let failed = |code, stdout: &str, stderr: &str| match read(&answer(code, stdout, stderr)) {
            Answer::Failed(why) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            failed(1, "The keychain\nis locked\n", "x"),
            "The keychain is locked"
        );
        assert_eq!(failed(1, "", "Traceback\nNo account\n"), "No account");
        assert_eq!(failed(3, "", ""), "exit code 3");
        let broken = failed(0, r#"{"Secret":"marked"}"#, "");
        assert_eq!(broken, "its answer has no user name and secret");
        let late = read(&Err(NoAnswer::TimedOut(TIME_LIMIT)));
        assert_eq!(late, Answer::Failed("did not answer within 1m".to_owned()));
    }
}
