//! What a login consists of.

use std::fmt;

use crate::base::secret::MASK;

/// A login, and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub login: Login,
    /// For messages: the path of a file, or the name of a variable.
    pub source: String,
}

/// What a registry, or its token server, accepts as proof of who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: String,
    },
    /// `user:password` in base64, as credential files hold it.
    EncodedPassword(String),
    /// Also called refresh token. The registry itself does not accept it, only its token server
    /// does. <https://distribution.github.io/distribution/spec/auth/oauth/>
    IdentityToken(String),
}

/// Without the secret.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Password { .. } => "Password",
            Self::EncodedPassword(_) => "EncodedPassword",
            Self::IdentityToken(_) => "IdentityToken",
        };
        write!(f, "{kind}({MASK})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let password = Login::Password {
            user: "me".into(),
            password: "marked".into(),
        };
        for login in [
            password,
            Login::EncodedPassword("marked".into()),
            Login::IdentityToken("marked".into()),
        ] {
            assert!(!format!("{login:?}").contains("marked"), "{login:?}");
        }
    }
}
