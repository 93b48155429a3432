//! Signing in to a real registry with a password.

use std::{io::Write as _, path::Path};

use crate::engines::{Checkout, CommandOutput, command_output, var};

/// The correct token is stored. A wrong token and an unreachable registry have different errors.
pub fn login(checkout: &Checkout) {
    let (Some(registry), Some(user), Some(password)) = (
        var("XTASK_E2E_AUTH_REGISTRY"),
        var("XTASK_E2E_AUTH_USER"),
        var("XTASK_E2E_AUTH_PASSWORD"),
    ) else {
        let required = var("XTASK_E2E_REQUIRE");
        assert!(
            required.is_none(),
            "a registry is required, and XTASK_E2E_AUTH_REGISTRY is not set"
        );
        let _ = writeln!(std::io::stderr(), "skipped: no registry with a password");
        return;
    };
    // The person's own credentials do not change.
    let kept = checkout.src().join("auth");
    checkout.make_folder(&kept);
    let file = kept.join("config.json");
    let files = [
        ("DOCKER_CONFIG", kept.to_str().unwrap()),
        ("REGISTRY_AUTH_FILE", file.to_str().unwrap()),
    ];
    let login = |registry: &str, token: &str| -> CommandOutput {
        let args = [
            "docker-login",
            "--registry",
            registry,
            "--username",
            &user,
            "--password-stdin",
        ];
        let mut child = checkout.command_with_input(&args, &files).spawn().unwrap();
        // A login that fails early does not read its input.
        let _ = writeln!(child.stdin.take().unwrap(), "{token}");
        command_output(&child.wait_with_output().unwrap())
    };

    let wrong = login(&registry, "marked-wrong");
    assert_ne!(wrong.code, 0);
    let message = format!("error: {registry} refuses this token of {user}\nhint: ");
    assert!(wrong.stderr.contains(&message), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("marked-wrong"), "{}", wrong.stderr);

    let dead = login("127.0.0.1:1", &password);
    assert_ne!(dead.code, 0);
    assert!(
        dead.stderr
            .contains("error: 127.0.0.1:1 cannot be reached\n"),
        "{}",
        dead.stderr
    );

    let right = login(&registry, &password);
    assert_eq!(right.code, 0, "{}", right.stderr);
    let place = format!("to {registry} as {user}: kept in {}", file.display());
    assert!(right.stderr.contains(&place), "{}", right.stderr);
    assert!(!right.stderr.contains(&password), "{}", right.stderr);
    assert!(Path::new(&file).is_file());

    let out = || checkout.run_with(&["logout", "--registry", &registry], &files);
    let removed = format!("of {registry}: removed from {}", file.display());
    let first = out();
    assert_eq!(first.code, 0, "{}", first.stderr);
    assert!(first.stderr.contains(&removed), "{}", first.stderr);
    let second = out();
    assert_eq!(second.code, 0, "{}", second.stderr);
    assert!(second.stderr.contains("Nothing"), "{}", second.stderr);
}
