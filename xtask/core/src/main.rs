//! `cargo xtask` without an HTTP client.

#![cfg_attr(fuzzing, no_main, allow(unsafe_code))] // libFuzzer has its own `main`, and the macro exports a symbol for C

/// Runs the command.
#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    xtask_core::run(None)
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| xtask_core::fuzz::check(input));
