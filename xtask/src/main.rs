//! `xtask`: all commands, with an HTTP client for those that speak to a registry.

mod http;
mod tls;

use std::{process::ExitCode, sync::Arc};

fn main() -> ExitCode {
    xtask_core::run(Some(|servers| Arc::new(http::Http::new(servers))))
}
