//! Sending requests. The connections are made by the program that has an HTTP client: see [`Transport`].

use std::sync::Arc;

use super::{
    request::Request,
    response::{NoResponse, ResponseHead},
    servers::Servers,
};
use crate::{
    base::error::Failure,
    exec::{Exec, StopWatch},
};

/// An HTTP client, which keeps its connections and uses them again.
///
/// This package has none, because most commands send no request, and TLS takes long to compile. The package `xtask`
/// implements it.
pub trait Transport: Send + Sync {
    /// Sends a request once, and returns the response's head. Redirects are not followed.
    ///
    /// # Errors
    /// When there is no response.
    fn send(&self, request: &Request) -> Result<ResponseHead, NoResponse>;

    /// Ends the requests in progress.
    fn shut_down(&self);
}

/// Makes a transport. No connection is made before the first request.
pub type NewTransport = fn(Arc<Servers>) -> Arc<dyn Transport>;

/// The error of a command that sends requests, in the program without an HTTP client.
pub fn no_http_client() -> Failure {
    Failure::new("this program has no HTTP client, which the command needs").hint(
        "install the program that has one, and run the command with it: `cargo install --locked --path xtask`",
    )
}

/// A transport whose requests end after a signal.
pub(super) struct InterruptibleTransport {
    exec: Exec,
    transport: Arc<dyn Transport>,
    _watch: StopWatch,
}

impl InterruptibleTransport {
    pub fn new(exec: &Exec, transport: Arc<dyn Transport>) -> Self {
        let to_end = Arc::clone(&transport);
        Self {
            exec: exec.clone(),
            transport,
            _watch: exec.when_stopped(move || to_end.shut_down()),
        }
    }

    /// As [`Transport::send`].
    pub fn send(&self, request: &Request) -> Result<ResponseHead, NoResponse> {
        let done = self.transport.send(request);
        match self.exec.stop_signal() {
            Some(signal) => Err(NoResponse::Interrupted(signal)),
            None => done,
        }
    }
}
