//! What reaches a build, and builds without xtask.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    engines::{Checkout, command_output, var},
    remote::needed,
};

/// Build arguments that shells, engines and lists of values treat specially.
const VALUES: [(&str, &str); 11] = [
    ("DOLLAR", "$HOME and ${HOME} and $(id)"),
    ("QUOTES", "it's \"quoted\""),
    ("COMMA", "a,b,c=d"),
    ("EQUALS", "a=b=c"),
    ("SPACES", "  two before, two after  "),
    ("DASH", "--no-such-flag"),
    ("PERCENT", "100% {{.Os}}"),
    ("EMPTY", ""),
    ("WIDE", "grün 日本"),
    ("BACKSLASH", "C:\\new\\table"),
    ("LINES", "first\nsecond"),
];

/// They arrive unchanged, and the image is in the engine's store, whatever builder is selected.
pub fn build_arguments(checkout: &Checkout) {
    let src = checkout.src();
    fs::create_dir(src.join("arguments")).unwrap();
    let mut dockerfile = "ARG PYTHON_IMAGE\nFROM ${PYTHON_IMAGE} AS runtime\n".to_owned();
    let mut settings =
        "schema = 1\n[build]\ndockerfile = 'arguments/Dockerfile'\ncontext = 'arguments'\n[build.args]\n"
            .to_owned();
    let mut expected = String::new();
    for (name, value) in VALUES {
        writeln!(dockerfile, "ARG {name}=default").unwrap();
        // The escapes of JSON are also those of TOML.
        let quoted = serde_json::to_string(value).unwrap();
        writeln!(settings, "{name} = {quoted}").unwrap();
        writeln!(expected, "{name}=[{value}\n]").unwrap();
    }
    let names = VALUES.map(|(name, _)| name).join(" ");
    writeln!(
        dockerfile,
        "RUN for name in {names}; do printf '%s=[' \"$name\"; printenv \"$name\"; printf ']\\n'; done > /arguments"
    )
    .unwrap();
    fs::write(src.join("arguments/Dockerfile"), dockerfile).unwrap();
    fs::write(src.join("xtask.local.toml"), settings).unwrap();
    let other = other_builder(checkout);
    let aliases = src.join("target/aliases").display().to_string();
    let mut selections = vec![vec![("BUILDX_BUILDER", "none-of-this-name")]];
    if let Some(config) = &other {
        selections.push(vec![
            ("BUILDX_CONFIG", config),
            ("BUILDX_BUILDER", OTHER_BUILDER),
        ]);
        // As after `docker buildx use` and `docker buildx install`.
        fs::create_dir_all(&aliases).unwrap();
        let alias = r#"{ "aliases": { "builder": "buildx" } }"#;
        fs::write(format!("{aliases}/config.json"), alias).unwrap();
        selections.push(vec![("BUILDX_CONFIG", config), ("DOCKER_CONFIG", &aliases)]);
    }
    for selected in selections {
        checkout.engine.run(&["image", "rm", &checkout.reference()]);
        let built = checkout.run_with(&["build-image", "--no-check"], &selected);
        assert_eq!(built.code, 0, "{built:?}");
    }
    let reference = checkout.reference();
    let run = ["run", "--rm", "--network", "none", &reference, "cat"];
    let found = checkout.engine.run(&[&run[..], &["/arguments"]].concat());
    assert_eq!(found.stdout, expected, "{found:?}");
}

/// Both engines get the same files, also where an ignore file is one that only one of them would read.
pub fn ignore_files(checkout: &Checkout) {
    let context = checkout.src().join("context");
    fs::create_dir(&context).unwrap();
    let write = |name: &str, text: &str| fs::write(context.join(name), text).unwrap();
    write(
        "Dockerfile",
        "ARG PYTHON_IMAGE\nFROM ${PYTHON_IMAGE} AS runtime\nCOPY . /context\n",
    );
    for name in ["first", "second", "secret"] {
        write(name, name);
    }
    let settings = "schema = 1\n[build]\ndockerfile = 'context/Dockerfile'\ncontext = 'context'\n";
    fs::write(checkout.src().join("xtask.local.toml"), settings).unwrap();
    let reference = checkout.reference();
    let files = || {
        checkout.ok(&["build-image", "--no-check"]);
        let list = ["run", "--rm", "--network", "none", &reference, "ls", "-A"];
        checkout.engine.run(&[&list[..], &["/context"]].concat())
    };
    write(".dockerignore", "*\n!first\n");
    assert_eq!(files().stdout, "first\n");
    write(".containerignore", "first\n"); // for Podman
    assert_eq!(files().stdout, "first\n");
    write("Dockerfile.dockerignore", "*\n!second\n"); // for BuildKit
    assert_eq!(files().stdout, "second\n");
}

/// A base image with the layout of Debian's packages: Python in /usr instead of /usr/local.
pub fn debians_layout(checkout: &Checkout) {
    let Some([base]) = needed(["XTASK_E2E_DEBIANS_BASE"]) else {
        return;
    };
    let env = [("XTASK_BUILD_BASE_IMAGE", &*base)];
    for line in [&["build-image", "--no-check"][..], &["test-image"]] {
        let done = checkout.run_with(line, &env);
        assert_eq!(done.code, 0, "{line:?}: {done:?}");
    }
}

const OTHER_BUILDER: &str = "somebody-elses";

/// Makes a builder of Docker that is another daemon. Returns the folder in which buildx finds it.
fn other_builder(checkout: &Checkout) -> Option<String> {
    if checkout.engine.program != "docker" {
        return None;
    }
    let [daemon] = needed(["XTASK_E2E_BUILDKIT_AMD64"])?;
    let config = checkout.src().join("target/buildx").display().to_string();
    let create = [
        "buildx",
        "create",
        "--use",
        "--driver",
        "remote",
        "--name",
        OTHER_BUILDER,
        &daemon,
    ];
    let env = [("BUILDX_CONFIG", config.as_str())];
    let mut command = checkout
        .engine
        .command_of(Path::new("docker"), &create, &env);
    let created = command_output(&command.output().unwrap());
    assert_eq!(created.code, 0, "{created:?}");
    Some(config)
}

/// The Dockerfile needs no xtask.
pub fn plain_build(checkout: &Checkout) {
    let base = format!(
        "PYTHON_IMAGE={}",
        var("XTASK_BUILD_BASE_IMAGE").expect("a base image")
    );
    let mut words = vec!["build", "--quiet", "--build-arg", &base];
    let (secret, network) = (var("XTASK_BUILD_SECRETS"), var("XTASK_BUILD_NETWORK"));
    if let Some(secret) = &secret {
        words.extend(["--secret", secret]);
    }
    if let Some(network) = &network {
        words.extend(["--network", network]);
    }
    let src = checkout.src();
    words.push(src.to_str().unwrap());
    let built = checkout.engine.run(&words);
    assert_eq!(built.code, 0, "{built:?}");
    let id = built.stdout.trim();
    let run = ["run", "--rm", "--network", "none", id, "python", "-c"];
    let done = checkout
        .engine
        .run(&[&run[..], &["import temporalio, worker"]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    checkout.engine.run(&["image", "rm", id]);
}
