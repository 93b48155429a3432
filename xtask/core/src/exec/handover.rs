//! Hands a command over to the program with an HTTP client. `cargo xtask` starts the program without one, because it
//! compiles faster and most commands send no request.

use std::{os::unix::process::CommandExt as _, path::Path};

use crate::base::{env::Env, error::Failure};

/// Whether `cargo run` sets a variable to describe the program that it runs. If the second Cargo got them, it would
/// compile crates again whose build scripts read them, such as ring.
fn describes_this_program(variable: &str) -> bool {
    let is_of_package = |start: &&str| variable.starts_with(*start);
    variable == "OUT_DIR" || ["CARGO_MANIFEST_", "CARGO_PKG_"].iter().any(is_of_package)
}

/// Replaces this process by `xtask` with the same arguments. Cargo compiles it first. Returns only if that fails;
/// `None` if Cargo did not start this process.
///
/// <https://doc.rust-lang.org/cargo/reference/environment-variables.html>
#[allow(clippy::disallowed_methods)] // duct cannot replace the process
pub fn to_xtask(env: &Env) -> Option<Failure> {
    let is_ours = env.get("CARGO_PKG_NAME") == Some(env!("CARGO_PKG_NAME"));
    let (true, Some(cargo), Some(core)) =
        (is_ours, env.get("CARGO"), env.get("CARGO_MANIFEST_DIR"))
    else {
        return None;
    };
    let mut command = std::process::Command::new(cargo);
    command
        .args(["run", "--quiet", "--bin", "xtask", "--manifest-path"])
        .arg(Path::new(core).with_file_name("Cargo.toml"))
        .arg("--")
        .args(env.args.iter().skip(1));
    for name in env.names().filter(|name| describes_this_program(name)) {
        command.env_remove(name);
    }
    let error = command.exec();
    Some(Failure::new(format!("cannot start `{cargo}`: {error}")).code(127))
}
