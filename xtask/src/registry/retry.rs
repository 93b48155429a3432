//! Sends requests, and retries them after transient failures.

use std::time::Duration;

use super::{
    request::Request,
    response::{NoResponse, Response},
};
use crate::{
    base::ui::human_time,
    exec::{Exec, Finished, NoAnswer},
};

/// How often a request is sent at most.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause that a registry may ask for with `Retry-After`.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// curl's exit codes for failures that may not happen again: no connection, or a lost one.
/// <https://curl.se/libcurl/c/libcurl-errors.html>
const CONNECTION_ERRORS: &[i32] = &[7, 16, 18, 28, 35, 52, 55, 56, 92];

/// The result of one attempt.
pub type Attempt = Result<Response, FailedAttempt>;

/// An attempt without a response.
pub struct FailedAttempt {
    why: NoResponse,
    /// Whether another attempt may help.
    retry: bool,
}

/// Sends a request until it succeeds, or another attempt would not help. `on_retry` gets a line
/// for people before each further attempt.
///
/// # Errors
/// When the last attempt has no response.
pub fn send(
    exec: &Exec,
    request: &Request,
    on_retry: impl FnMut(&str),
) -> Result<Response, NoResponse> {
    retry(exec, on_retry, || send_once(exec, request))
}

/// As [`send`], for an attempt that consists of several requests.
///
/// # Errors
/// When the last attempt has no response.
pub fn retry(
    exec: &Exec,
    mut on_retry: impl FnMut(&str),
    mut attempt: impl FnMut() -> Attempt,
) -> Result<Response, NoResponse> {
    let mut pause = FIRST_PAUSE;
    for number in 1..ATTEMPTS {
        let result = attempt();
        let (why, wait) = match &result {
            Ok(response) if response.is_transient_error() => {
                let seconds = response.header("retry-after");
                let seconds = seconds.and_then(|value| value.parse().ok());
                let wait = seconds.map_or(pause, Duration::from_secs);
                (response.error_text(), wait)
            }
            Err(FailedAttempt {
                why: NoResponse::Network(why),
                retry: true,
            }) => (why.clone(), pause),
            Ok(_) | Err(_) => return result.map_err(|failed| failed.why),
        };
        let wait = wait.min(MAX_PAUSE);
        on_retry(&format!(
            "{why}; trying again in {} ({number} of {})",
            human_time(wait),
            ATTEMPTS - 1
        ));
        exec.pause(wait).map_err(NoResponse::Interrupted)?;
        pause *= 2;
    }
    attempt().map_err(|failed| failed.why)
}

/// Sends a request once.
///
/// # Errors
/// When there is no response.
pub fn send_once(exec: &Exec, request: &Request) -> Attempt {
    // curl ends by itself; this is for the case that it does not.
    let time_limit = request.time_limit + Duration::from_secs(5);
    let done = exec.capture(&request.cmd(), time_limit).map_err(|why| {
        let (why, retry) = match why {
            NoAnswer::TimedOut(_) => (NoResponse::Network("no response in time".to_owned()), true),
            NoAnswer::NotStarted(_) => (NoResponse::CurlMissing, false),
            NoAnswer::Interrupted(signal) => (NoResponse::Interrupted(signal), false),
        };
        FailedAttempt { why, retry }
    })?;
    if !done.ok() {
        return Err(network_error(&done));
    }
    Response::parse(&done.stdout).ok_or_else(|| network_error(&done))
}

/// What `curl: (7) Failed to connect …` says.
fn network_error(done: &Finished) -> FailedAttempt {
    let line = done.first_error_line();
    let message = line
        .split_once(") ")
        .map_or(line.as_str(), |(_, rest)| rest);
    FailedAttempt {
        why: NoResponse::Network(message.to_owned()),
        retry: CONNECTION_ERRORS.contains(&done.code),
    }
}
