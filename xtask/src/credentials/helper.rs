//! Credential helpers: programs that keep logins, for example in the system's keychain.
//! <https://github.com/docker/docker-credential-helpers#usage>

use std::time::Duration;

use serde_json::Value;

use super::{config_file::DOCKER_HUB, login::Login};
use crate::{
    exec::Exec,
    plan::{Cmd, Stdin},
};

const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The user name by which a helper says that the secret is an identity token.
/// <https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol>
const IDENTITY_TOKEN_USER: &str = "<token>";

/// The login for a registry, if the helper works and has one.
pub fn get(exec: &Exec, program: &str, registry: &str) -> Option<Login> {
    let server = match registry {
        "docker.io" => DOCKER_HUB,
        registry => registry,
    };
    let mut cmd = Cmd::new(program).arg("get");
    cmd.stdin = Some(Stdin {
        secret: server.to_owned(),
        source_command: format!("echo {server}"),
    });
    parse(&exec.capture(&cmd, TIME_LIMIT).ok()?.stdout)
}

fn parse(answer: &str) -> Option<Login> {
    let answer: Value = serde_json::from_str(answer).ok()?;
    let text = |name: &str| answer[name].as_str().map(str::to_owned);
    let (user, password) = (text("Username")?, text("Secret")?);
    Some(if user == IDENTITY_TOKEN_USER {
        Login::IdentityToken(password)
    } else {
        Login::Password { user, password }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_parsed() {
        let answer = |user: &str| {
            parse(&format!(
                r#"{{"ServerURL":"r","Username":"{user}","Secret":"s"}}"#
            ))
        };
        let password = Login::Password {
            user: "me".into(),
            password: "s".into(),
        };
        assert_eq!(answer("me"), Some(password));
        assert_eq!(answer("<token>"), Some(Login::IdentityToken("s".into())));
        assert_eq!(parse("credentials not found in native keychain"), None);
    }
}
