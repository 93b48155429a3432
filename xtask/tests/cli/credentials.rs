//! Where a login is found: in the places in which Docker's client and containers/image look. The registry
//! refuses every login, and the error names where it is from.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, process::Stdio};

use crate::{
    registry::fake::{Auth, FakeRegistry, Oddities},
    sandbox::{
        CommandOutput, PROJECT, Sandbox, docker_down, docker_version, image, podman_version,
    },
};

const LOGIN: &str = r#"{"auths":{"ghcr.io":{"auth":"bWU6cHc="}}}"#;
const DOCKER: &str = "home/.docker/config.json";
const PODMAN: &str = "home/.config/containers/auth.json";

/// A sandbox whose registry demands a login and refuses each.
fn registry() -> Sandbox {
    let registry = FakeRegistry::start(Oddities {
        auth: Auth::Refusing,
        ..Oddities::default()
    });
    registry.serve_sandbox(Sandbox::new(PROJECT))
}

fn write(sandbox: &Sandbox, name: &str, text: &str) {
    let path = sandbox.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A credential helper in PATH that reads its input and runs this script.
fn helper(sandbox: &Sandbox, name: &str, script: &str) {
    let name = format!("bin/docker-credential-{name}");
    write(
        sandbox,
        &name,
        &format!("#!/bin/sh\nread -r server\n{script}\n"),
    );
    fs::set_permissions(sandbox.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
}

const KNOWN: &str = "echo '{\"Username\":\"me\",\"Secret\":\"marked-secret\"}'";

fn verify(sandbox: &Sandbox, more: &[&str]) -> CommandOutput {
    let output = sandbox.run(&[&["verify-image", "--version", "1.2.3"], more].concat());
    assert_eq!(output.code, 1, "{output:?}");
    assert!(!format!("{output:?}").contains("marked"), "{output:?}");
    output
}

/// Where the login is from that the registry refuses.
fn source(sandbox: &Sandbox, more: &[&str]) -> String {
    let output = verify(sandbox, more);
    let (_, rest) = output
        .stderr
        .split_once("error: ghcr.io rejects the credentials from ")
        .unwrap_or_else(|| panic!("{output:?}"));
    rest.split(": status 401").next().unwrap().to_owned()
}

#[test]
fn the_chosen_engine_decides_where_to_look_first() {
    let sandbox = registry();
    write(&sandbox, DOCKER, LOGIN);
    write(&sandbox, PODMAN, LOGIN);
    let docker = format!("/{DOCKER}");
    let podman = format!("/{PODMAN}");
    assert_eq!(source(&sandbox, &["--engine", "docker"]), docker);
    assert_eq!(source(&sandbox, &["--engine", "podman"]), podman);
    assert_eq!(source(&sandbox, &[]), docker, "Docker comes first");
    let sandbox = sandbox.engine("podman", &[podman_version()]);
    assert_eq!(source(&sandbox, &[]), podman, "only Podman is installed");
    fs::remove_file(sandbox.path(PODMAN)).unwrap();
    assert_eq!(source(&sandbox, &[]), docker, "Podman reads it too");
    let file = sandbox.path("home/mine.json");
    let sandbox = sandbox.env("REGISTRY_AUTH_FILE", file.to_str().unwrap());
    write(&sandbox, "home/mine.json", LOGIN);
    assert_eq!(source(&sandbox, &[]), "/home/mine.json");
    fs::remove_file(sandbox.path("home/mine.json")).unwrap();
    let none = verify(&sandbox, &[]);
    let exclusive = "error: not signed in to ghcr.io";
    assert!(none.stderr.starts_with(exclusive), "{none:?}");
    let docker_again = source(&sandbox, &["--engine", "docker"]);
    assert_eq!(docker_again, docker);
}

#[test]
fn what_is_given_for_this_run_comes_before_a_stored_login() {
    let sandbox = registry().env("DOCKER_AUTH_CONFIG", LOGIN);
    write(&sandbox, DOCKER, LOGIN);
    assert_eq!(source(&sandbox, &[]), "DOCKER_AUTH_CONFIG");
    let sandbox = sandbox
        .env("REGISTRY_TOKEN", "marked-token")
        .env("XTASK_REGISTRY_USER", "me");
    assert_eq!(source(&sandbox, &[]), "REGISTRY_TOKEN");
    let hint = "hint: set a new login in REGISTRY_TOKEN, or unset it to use a stored one: `cargo xtask docker-login`\n";
    let output = verify(&sandbox, &[]);
    assert!(output.stderr.contains(hint), "{output:?}");
}

#[test]
fn the_token_of_the_configured_registry_goes_to_no_other_host() {
    let sandbox = registry()
        .env("REGISTRY_TOKEN", "marked-token")
        .env("XTASK_REGISTRY_USER", "me");
    let output = verify(&sandbox, &["--repository", "mirror.example/x/y"]);
    let error = "error: not signed in to mirror.example, which is needed to read mirror.example/x/y\n  \
         REGISTRY_TOKEN: only for ghcr.io\n  \
         DOCKER_AUTH_CONFIG: not set\n";
    assert!(output.stderr.starts_with(error), "{}", output.stderr);
    let hint = "hint: sign in: `cargo xtask docker-login --registry mirror.example`\n\
         hint: in CI: set DOCKER_AUTH_CONFIG to the text of a `config.json` with the login\n";
    assert!(output.stderr.contains(hint), "{}", output.stderr);
    let output = sandbox.run(&["docker-login", "--registry", "mirror.example"]);
    assert_eq!(
        output.stderr,
        "error: there is no token for mirror.example\n\
         hint: pass it: `printenv MY_TOKEN | cargo xtask docker-login --registry mirror.example --password-stdin`\n"
    );
}

#[test]
fn a_helper_is_asked_before_the_login_in_its_file() {
    let sandbox = registry();
    let stale =
        r#"{"credHelpers":{"ghcr.io":"fresh"},"auths":{"ghcr.io":{"auth":"b2xkOm9sZA=="}}}"#;
    write(&sandbox, DOCKER, stale);
    helper(&sandbox, "fresh", KNOWN);
    let found = format!("docker-credential-fresh (credHelpers in /{DOCKER})");
    assert_eq!(source(&sandbox, &["--engine", "docker"]), found);
}

#[test]
fn the_helpers_of_registries_conf_are_podmans() {
    let sandbox = registry();
    let conf = "home/.config/containers/registries.conf";
    write(&sandbox, conf, "credential-helpers = [\"all\"]\n");
    helper(&sandbox, "all", KNOWN);
    let found = format!("docker-credential-all (credential-helpers in /{conf})");
    assert_eq!(source(&sandbox, &["--engine", "podman"]), found);
    let none = verify(&sandbox, &["--engine", "docker"]);
    assert!(none.stderr.starts_with("error: not signed in"), "{none:?}");
}

#[test]
fn a_login_that_cannot_be_read_is_told_with_the_reason() {
    let sandbox = registry();
    let broken = "{\n  \"auths\": { \"ghcr.io\": { \"auth\": \"bWU6bWFya2Vk\" }, }\n}\n";
    write(&sandbox, DOCKER, broken);
    let output = verify(&sandbox, &["--engine", "docker"]);
    let reason = format!("/{DOCKER} cannot be read: trailing comma at line 2 column 53");
    let fix = format!("hint: correct /{DOCKER}, or remove it\n");
    let expected = format!(
        "warning: {reason}\n{fix}\
         error: no login for ghcr.io could be read, which is needed to read ghcr.io/x/y\n  \
         REGISTRY_TOKEN, GITHUB_TOKEN, GH_TOKEN: not set\n  \
         DOCKER_AUTH_CONFIG: not set\n  \
         {reason}\n{fix}\
         hint: sign in: `cargo xtask docker-login --engine docker`\n"
    );
    assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
    assert!(
        output
            .stderr
            .ends_with("hint: see `cargo xtask explain login-unreadable`\n")
    );

    // The next place is tried.
    write(&sandbox, PODMAN, LOGIN);
    let output = verify(&sandbox, &[]);
    let next =
        format!("warning: {reason}\n{fix}error: ghcr.io rejects the credentials from /{PODMAN}");
    assert!(output.stderr.starts_with(&next), "{}", output.stderr);
}

/// Docker is installed, and its daemon does not run.
#[test]
fn a_command_that_chose_an_engine_uses_its_login() {
    let sandbox = registry()
        .engine("docker", &[docker_down("")])
        .engine("podman", &[podman_version(), image()]);
    write(&sandbox, DOCKER, LOGIN);
    write(&sandbox, PODMAN, LOGIN);
    let push = ["push-image", "--version", "dev-me", "--no-build"];
    let output = sandbox.run(&push);
    let refused = format!("error: ghcr.io rejects the credentials from /{PODMAN}: ");
    assert!(output.stderr.contains(&refused), "{output:?}");
    // This command asks no engine.
    assert_eq!(source(&sandbox, &[]), format!("/{DOCKER}"));
    let sandbox = registry()
        .engine("docker", &[docker_down("")])
        .engine("podman", &can_sign_in(podman_version()));
    write(&sandbox, DOCKER, LOGIN);
    write(&sandbox, PODMAN, LOGIN);
    let output = sign_in(&sandbox, &[]);
    let warning = format!(
        "warning: a command that asks no engine, such as `push-archive`, uses for ghcr.io the login from /{DOCKER}, not this one\n\
         hint: pass `--engine podman` to such a command, or remove the login from /{DOCKER}\n"
    );
    assert!(output.stderr.ends_with(&warning), "{output:?}");
}

/// A sandbox whose registry accepts one login, and holds nothing.
fn accepting_registry() -> Sandbox {
    let registry = FakeRegistry::start(Oddities {
        auth: Auth::Basic,
        ..Oddities::default()
    });
    registry.serve_sandbox(Sandbox::new(PROJECT))
}

/// Go's decoder of base64 ignores line breaks, so Docker and Podman accept such a file.
#[test]
fn a_login_may_have_line_breaks() {
    let nothing = "error: there is no `ghcr.io/x/y:1.2.3`\n";
    let sandbox = accepting_registry();
    let login = r#"{"auths":{"ghcr.io":{"auth":"bWU6bWFya2Vk\r\nLXBhc3N3b3Jk\n"}}}"#;
    write(&sandbox, DOCKER, login);
    let output = verify(&sandbox, &["--engine", "docker"]);
    assert!(output.stderr.starts_with(nothing), "{output:?}");
}

/// As `docker-login` takes it.
#[test]
fn a_token_may_end_with_a_line_break() {
    let sandbox = accepting_registry()
        .env("REGISTRY_TOKEN", "marked-password\r\n")
        .env("XTASK_REGISTRY_USER", "me");
    let output = verify(&sandbox, &[]);
    let nothing = "error: there is no `ghcr.io/x/y:1.2.3`\n";
    assert!(output.stderr.starts_with(nothing), "{output:?}");
    // One that has nothing else counts as not set.
    let sandbox = sandbox.env("REGISTRY_TOKEN", "\n");
    let output = verify(&sandbox, &[]);
    assert!(
        output.stderr.starts_with("error: not signed in to ghcr.io"),
        "{output:?}"
    );
}

#[test]
fn a_login_that_cannot_be_decoded_is_told_and_the_next_place_is_tried() {
    for (auth, why) in [
        ("marked-no-base64!", "is not base64"),
        // `marked`, without a colon.
        ("bWFya2Vk", "has no `:` between user and password"),
    ] {
        let sandbox = accepting_registry();
        write(&sandbox, DOCKER, &LOGIN.replace("bWU6cHc=", auth));
        write(
            &sandbox,
            PODMAN,
            &LOGIN.replace("bWU6cHc=", "bWU6bWFya2VkLXBhc3N3b3Jk"),
        );
        let output = verify(&sandbox, &[]);
        let expected = format!(
            "warning: /{DOCKER} cannot be read: the `auth` of ghcr.io {why}\n\
             hint: correct /{DOCKER}, or remove it\n\
             error: there is no `ghcr.io/x/y:1.2.3`\n"
        );
        assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
    }
}

#[test]
fn a_credential_file_may_be_a_folder_by_mistake() {
    let sandbox = registry();
    fs::create_dir_all(sandbox.path(DOCKER)).unwrap();
    let output = verify(&sandbox, &["--engine", "docker"]);
    let expected = format!(
        "warning: /{DOCKER} cannot be read: it is a folder\n\
         hint: remove the folder: `rmdir /{DOCKER}`\n"
    );
    assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
}

#[test]
fn a_locked_keychain_is_told_in_the_helpers_words() {
    let sandbox = registry().engine("docker", &[docker_version()]);
    let store = r#"{"auths":{"ghcr.io":{}},"credsStore":"locked"}"#;
    write(&sandbox, DOCKER, store);
    helper(
        &sandbox,
        "locked",
        "echo 'keychain cannot be accessed: unlock it'\nexit 1",
    );
    let words = format!(
        "docker-credential-locked (credsStore in /{DOCKER}) fails: keychain cannot be accessed: unlock it"
    );
    let output = verify(&sandbox, &["--engine", "docker"]);
    let hint = "hint: repair or unlock the credential helper `docker-credential-locked`, or remove the line that names it\n";
    let expected = format!("warning: {words}\n{hint}error: no login for ghcr.io could be read");
    assert!(output.stderr.starts_with(&expected), "{}", output.stderr);
    for command in ["doctor", "ci-check"] {
        let output = sandbox.run(&[command, "--engine", "docker"]);
        assert!(output.stdout.contains(&words), "{command}: {output:?}");
    }
}

/// Signs in with a token on standard input.
fn sign_in(sandbox: &Sandbox, args: &[&str]) -> CommandOutput {
    let args = [
        &["docker-login", "--username", "me", "--password-stdin"],
        args,
    ]
    .concat();
    let mut command = sandbox.command(&args);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    writeln!(child.stdin.take().unwrap(), "marked-token").unwrap();
    sandbox.command_output(&child.wait_with_output().unwrap())
}

fn can_sign_in(version: serde_json::Value) -> [serde_json::Value; 2] {
    let login = serde_json::json!({ "args": "login", "read_stdin": true });
    [version, login]
}

#[test]
fn signing_in_names_the_file_that_was_written() {
    let sandbox = registry().engine("docker", &can_sign_in(docker_version()));
    let sandbox = sandbox.env("XTASK_IMAGE_REPOSITORY", "docker.io/x/y");
    let hub = LOGIN.replace("ghcr.io", "https://index.docker.io/v1/");
    write(&sandbox, DOCKER, &hub);
    let output = sign_in(&sandbox, &[]);
    let line = format!("Signed in to docker.io as me: kept in /{DOCKER}\n");
    assert!(output.stderr.ends_with(&line), "{output:?}");
    let output = verify(&sandbox, &[]);
    let used = format!("error: docker.io rejects the credentials from /{DOCKER}: ");
    assert!(output.stderr.starts_with(&used), "{output:?}");
}

#[test]
fn signing_in_warns_if_another_login_comes_first() {
    let sandbox = registry()
        .engine("docker", &can_sign_in(docker_version()))
        .engine("podman", &can_sign_in(podman_version()));
    write(&sandbox, DOCKER, LOGIN);
    write(&sandbox, PODMAN, LOGIN);
    let output = sign_in(&sandbox, &["--engine", "podman"]);
    // The sandbox is in a folder for temporary files, which a reboot may empty.
    let warning = format!(
        "kept in /{PODMAN} until the next reboot\n\
         warning: a push to ghcr.io uses the login from /{DOCKER}, not this one\n\
         hint: pass `--engine podman` to each push, or remove the login from /{DOCKER}\n"
    );
    assert!(output.stderr.ends_with(&warning), "{output:?}");
    let sandbox = sandbox.env("XTASK_ENGINE", "podman");
    let output = sign_in(&sandbox, &[]);
    let line = format!("kept in /{PODMAN} until the next reboot\n");
    assert!(output.stderr.ends_with(&line), "{output:?}");
    let sandbox = sandbox
        .env("GH_TOKEN", "marked-other")
        .env("GITHUB_ACTOR", "me");
    let output = sign_in(&sandbox, &[]);
    let warning = format!(
        "kept in /{PODMAN} until the next reboot\n\
         warning: a push to ghcr.io uses the login from GH_TOKEN, not this one\n\
         hint: unset GH_TOKEN to use the new login\n"
    );
    assert!(output.stderr.ends_with(&warning), "{output:?}");
}

#[test]
fn signing_in_says_which_variable_hides_the_login() {
    let sandbox = registry().engine("docker", &can_sign_in(docker_version()));
    write(&sandbox, DOCKER, LOGIN);
    let sandbox = sandbox.env("DOCKER_AUTH_CONFIG", LOGIN);
    for args in [&[][..], &["--engine", "docker"]] {
        let output = sign_in(&sandbox, args);
        let warning = "warning: a push to ghcr.io uses the login from DOCKER_AUTH_CONFIG, not this one\n\
             hint: unset DOCKER_AUTH_CONFIG to use the new login\n";
        assert!(output.stderr.ends_with(warning), "{output:?}");
    }
    let sandbox = registry().env("DOCKER_AUTH_CONFIG", LOGIN);
    let output = sandbox.run(&["logout"]);
    let warning = "from DOCKER_AUTH_CONFIG\nhint: unset DOCKER_AUTH_CONFIG\n";
    assert!(output.stderr.ends_with(warning), "{output:?}");
}

#[test]
fn the_registry_may_be_named_as_in_a_credential_file() {
    for (typed, name, entry) in [
        ("r.io/team/", "r.io/team", "r.io/team"),
        ("https://r.io/", "r.io", "r.io"),
        ("https://r.io/v2/", "r.io", "https://r.io/v1/"),
        (
            "https://index.docker.io/v1/",
            "docker.io",
            "https://index.docker.io/v1/",
        ),
    ] {
        let sandbox = registry().engine("docker", &can_sign_in(docker_version()));
        write(&sandbox, DOCKER, &LOGIN.replace("ghcr.io", entry));
        let output = sign_in(&sandbox, &["--registry", typed]);
        let line = format!("Signed in to {name} as me: kept in /{DOCKER}\n");
        assert!(output.stderr.ends_with(&line), "{output:?}");
        let login = format!("docker login --username me --password-stdin {name}");
        assert_eq!(sandbox.calls().last(), Some(&login));
        let sandbox = registry();
        write(&sandbox, DOCKER, &LOGIN.replace("ghcr.io", entry));
        client(&sandbox, "docker", DOCKER);
        let output = sandbox.run(&["logout", "--registry", typed]);
        let line = format!("of {name}: removed from /{DOCKER}\n");
        assert!(output.stderr.contains(&line), "{output:?}");
    }
}

/// A client in PATH that removes the login from its file, as `docker logout` and `podman logout` do.
fn client(sandbox: &Sandbox, name: &str, file: &str) {
    let (calls, file) = (sandbox.path("bin/calls"), sandbox.path(file));
    let script = format!(
        "#!/bin/sh\necho \"{name} $*\" >> '{}'\n[ \"$1\" != logout ] || echo '{{}}' > '{}'\n",
        calls.display(),
        file.display()
    );
    let name = format!("bin/{name}");
    write(sandbox, &name, &script);
    fs::set_permissions(sandbox.path(&name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn logout_removes_what_each_engine_keeps_and_names_what_remains() {
    let sandbox = Sandbox::new(PROJECT);
    client(&sandbox, "docker", DOCKER);
    client(&sandbox, "podman", PODMAN);
    let nothing = sandbox.run(&["logout"]);
    assert_eq!(
        (nothing.code, nothing.stderr.as_str()),
        (
            0,
            "     Nothing to remove: no engine keeps a login for ghcr.io\n"
        )
    );
    assert!(sandbox.calls().is_empty());

    write(&sandbox, DOCKER, LOGIN);
    write(&sandbox, PODMAN, LOGIN);
    let dry = sandbox.run(&["logout", "--dry-run"]);
    assert_eq!(dry.stdout, "docker logout ghcr.io\npodman logout ghcr.io\n");
    let one = sandbox.run(&["logout", "--engine", "docker"]);
    assert_eq!(one.code, 0);
    assert!(
        one.stderr
            .contains("removed from /home/.docker/config.json\n"),
        "{one:?}"
    );
    assert_eq!(sandbox.calls(), ["docker logout ghcr.io"]);
    let both = sandbox.run(&["logout"]);
    assert!(
        both.stderr
            .contains("removed from /home/.config/containers/auth.json\n"),
        "{both:?}"
    );
    assert!(!both.stderr.contains("warning"), "{both:?}");
    assert_eq!(sandbox.calls()[1..], ["podman logout ghcr.io"]);

    // A helper keeps the login, and so does a variable.
    write(&sandbox, DOCKER, r#"{"credsStore":"box"}"#);
    helper(&sandbox, "box", KNOWN);
    client(&sandbox, "docker", "home/unused");
    let helped = sandbox.run(&["logout"]);
    assert_eq!(helped.code, 0, "{helped:?}");
    assert!(
        helped.stderr.contains("`docker-credential-box` was told"),
        "{helped:?}"
    );
    let remains = "warning: a push to ghcr.io still finds a login, from docker-credential-box";
    assert!(helped.stderr.contains(remains), "{helped:?}");
    let sandbox = sandbox
        .env("REGISTRY_TOKEN", "marked-token")
        .env("XTASK_REGISTRY_USER", "me");
    let variable = sandbox.run(&["logout"]);
    assert!(
        variable
            .stderr
            .ends_with("from REGISTRY_TOKEN\nhint: unset REGISTRY_TOKEN\n"),
        "{variable:?}"
    );
    assert!(!variable.stderr.contains("marked"), "{variable:?}");
}
