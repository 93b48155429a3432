//! Repeats requests after failures that may pass by themselves.

use std::time::{Duration, SystemTime};

use super::response::{NoResponse, Response};
use crate::{base::ui::human_time, exec::Exec};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 5;
/// The same, if the host's name cannot be resolved, or its proxy not be reached, and never could: the name may be
/// misspelled.
const ATTEMPTS_TO_CONNECT: u32 = 3;
/// The pause before the second attempt. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a registry may ask for with `Retry-After`.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// A larger number of seconds is a time since 1970, which some registries send.
const LONGEST_DELAY: u64 = 1_000_000_000;

/// Makes attempts until one succeeds, or another would not help. `may_pass` tells whether the same
/// request can succeed later although it got this response. Before each further attempt, `on_retry`
/// gets a line to show.
///
/// # Errors
/// When the last attempt has no response.
pub fn retry(
    exec: &Exec,
    is_known_host: bool,
    may_pass: impl Fn(&Response) -> bool,
    mut on_retry: impl FnMut(&str),
    mut attempt: impl FnMut() -> Result<Response, NoResponse>,
) -> Result<Response, NoResponse> {
    let attempts_to_connect = if is_known_host {
        ATTEMPTS
    } else {
        ATTEMPTS_TO_CONNECT
    };
    let mut pause = FIRST_PAUSE;
    let mut number = 1;
    loop {
        let result = attempt();
        let (why, wait, attempts) = match &result {
            Ok(response) if may_pass(response) => {
                let wait = response.header("retry-after");
                let wait = wait.and_then(|value| delay(value, SystemTime::now()));
                (response.error_text(), wait.unwrap_or(pause), ATTEMPTS)
            }
            Err(NoResponse::Network(why)) => (why.clone(), pause, ATTEMPTS),
            Err(NoResponse::UnknownHost(host)) => {
                (cannot_resolve(host), pause, attempts_to_connect)
            }
            Err(NoResponse::Proxy {
                address,
                why,
                may_pass: true,
            }) => (
                format!("the proxy {address}: {why}"),
                pause,
                attempts_to_connect,
            ),
            Ok(_) | Err(_) => return result,
        };
        if number >= attempts {
            return result;
        }
        let wait = wait.min(MAX_PAUSE);
        on_retry(&format!(
            "{why}; trying again in {} ({number} of {})",
            human_time(wait),
            attempts - 1
        ));
        exec.pause(wait).map_err(NoResponse::Interrupted)?;
        pause *= 2;
        number += 1;
    }
}

pub fn cannot_resolve(host: &str) -> String {
    format!("the name `{host}` cannot be resolved")
}

/// How long to wait according to a `Retry-After` header: a number of seconds, or a time.
/// <https://www.rfc-editor.org/rfc/rfc9110#name-retry-after>
fn delay(value: &str, now: SystemTime) -> Option<Duration> {
    let until = match value.trim().parse() {
        Ok(seconds) if seconds < LONGEST_DELAY => return Some(Duration::from_secs(seconds)),
        Ok(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?,
        Err(_) => httpdate::parse_http_date(value.trim()).ok()?,
    };
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_may_be_a_number_or_a_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_746_136_930);
        let seconds = |value| delay(value, now).map(|delay| delay.as_secs());
        assert_eq!(seconds("3"), Some(3));
        assert_eq!(seconds("1746136938"), Some(8));
        assert_eq!(seconds("Thu, 01 May 2025 22:02:13 GMT"), Some(3));
        assert_eq!(seconds("Thu, 01 May 2025 21:00:00 GMT"), Some(0));
        assert_eq!(seconds("soon"), None);
        assert_eq!(seconds("99999999999999999999"), None);
    }

    #[test]
    fn a_name_that_was_never_resolved_gets_fewer_attempts() {
        let attempts = |is_known_host| {
            let mut count = 0;
            let unknown = || {
                count += 1;
                Err(NoResponse::UnknownHost("r.lan".into()))
            };
            let done = retry(
                &Exec::silent(),
                is_known_host,
                Response::is_transient_error,
                |_| {},
                unknown,
            );
            assert!(done.is_err());
            count
        };
        assert_eq!(attempts(false), ATTEMPTS_TO_CONNECT);
        // A name that could be resolved before will be found again.
        assert_eq!(attempts(true), ATTEMPTS);
    }

    #[test]
    fn a_refusal_is_not_repeated() {
        let mut count = 0;
        let refusal = || {
            count += 1;
            let status = 413;
            Ok(Response {
                status,
                ..Response::default()
            })
        };
        let done = retry(
            &Exec::silent(),
            true,
            Response::is_transient_error,
            |_| {},
            refusal,
        )
        .unwrap();
        assert_eq!((done.status, count), (413, 1));
    }
}
