//! `doctor`: everything that can be wrong, one line each, with the fix.

use std::path::Path;

use anyhow::Result;
use clap::Args;

use crate::{
    base::{
        engine_kind::EngineKind,
        env::{Env, Os},
        error::Failure,
        image::human_bytes,
        secret,
    },
    build::work_tree,
    catalogue,
    cli::JsonOption,
    commands::{
        command::Command,
        findings::{self, Finding, failure, ok, warning},
        run_local::{
            facts::engines_that_run,
            mounts::{folder_steps, mount},
            warnings::{STOP_STIGMER_CLI, how_to_start},
        },
    },
    credentials::find::find,
    engine::{
        EngineFacts, Location,
        container::{Container, STIGMER_CLI_CONTAINER},
        detect,
        diagnosis::EndpointEnv,
    },
    exec::NoAnswer,
    facts::{
        context::Context,
        environment::{RunnerEnv, env_file_warnings, read_env_file},
        git,
        host::{self, Folder},
        model::Model,
    },
    plan::{Cmd, Output, Plan, Step},
    release::destination,
    settings::EngineChoice,
};

/// Find out what is wrong with engines, ports, folders and settings
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    #[command(flatten)]
    json: JsonOption,
}

/// The free space that a build may need, in bytes.
const ENOUGH_FREE: u64 = 5_000_000_000;

/// The commands that find out which engines are installed.
pub fn version_questions() -> Plan {
    let question =
        |kind: &EngineKind| Step::new(detect::version_cmd(kind.program()), Output::Result);
    EngineKind::ALL
        .iter()
        .map(question)
        .collect::<Vec<_>>()
        .into()
}

impl Command for Doctor {
    fn run(&self, cx: &Context) -> Result<()> {
        if cx.dry_run {
            return cx.run_or_print(&version_questions()).map(|_| ());
        }
        let mut findings = vec![ok(
            "configuration",
            format!("{} is valid", cx.settings.root.join("xtask.toml").display()),
        )];
        let engine = engines(cx, &mut findings);
        if let Some(engine) = &engine {
            findings.push(endpoint(engine, cx.env));
            findings.push(builder(cx, engine));
            findings.push(emulation(engine));
            findings.extend(disk(cx, engine));
            findings.extend(workspace(cx, engine));
            findings.push(credentials(cx, engine));
            findings.extend(stigmer_cli(cx));
        }
        findings.extend(environment(cx));
        findings.push(git(cx));
        findings.push(proxy_and_ca(cx));
        if cx.env.os == Os::Linux {
            let state = if host::selinux_enforcing() {
                "enforcing: bind mounts get `:z`"
            } else {
                "not enforcing"
            };
            findings.push(ok("SELinux", state));
        }
        // A question that a signal interrupted has no answer.
        cx.exec.fail_if_interrupted()?;
        findings::show(cx, self.json, &findings)?;
        if findings::failure_names(&findings).is_empty() {
            Ok(())
        } else {
            Err(Failure::new("something is broken: see above").into())
        }
    }
}

/// Which engine is chosen and why, and why others were passed over.
fn engines(cx: &Context, findings: &mut Vec<Finding>) -> Option<EngineFacts> {
    match cx.engine_and_rejected() {
        Ok((engine, rejected)) => {
            for other in &rejected {
                findings.push(warning(
                    "engine",
                    format!("{} {}", other.program, other.why),
                    catalogue::find_in_output(&other.why).map_or_else(
                        || "only if you need it: install or start it".to_owned(),
                        |known| {
                            format!("only if you need it: `cargo xtask explain {}`", known.code)
                        },
                    ),
                ));
            }
            let origin = cx
                .settings
                .layer
                .get("engine.prefer")
                .map(|prefer| prefer.origin.to_string());
            let why = match cx.settings.engine.prefer {
                EngineChoice::Auto => "the first that answers".to_owned(),
                EngineChoice::Only(_) => {
                    format!("asked for by {}", origin.unwrap_or_default())
                }
            };
            findings.push(ok(
                "engine",
                format!("{} for {} ({why})", engine.describe(), engine.platform),
            ));
            Some(engine)
        }
        Err(error) => {
            let fix = error.hint_lines().join("; ");
            findings.push(failure("engine", error.to_string().replace('\n', ";"), fix));
            None
        }
    }
}

fn endpoint(engine: &EngineFacts, env: &Env) -> Finding {
    let place = match &engine.location {
        Location::Host => "this machine".to_owned(),
        Location::VirtualMachine => "a virtual machine on this one".to_owned(),
        Location::Remote(endpoint) => endpoint.clone(),
    };
    match engine.endpoint_env(env) {
        EndpointEnv::Unset if engine.why_localhost_is_unreachable().is_some() => warning(
            "endpoint",
            format!(
                "{place}; {}",
                engine.why_localhost_is_unreachable().unwrap_or_default()
            ),
            "use rootful Docker or rootless Podman, or see https://docs.docker.com/engine/security/rootless/tips/",
        ),
        EndpointEnv::Unset => ok("endpoint", place),
        EndpointEnv::Used(from) => ok("endpoint", format!("{place}, by {from}")),
        EndpointEnv::Ineffective(how, fix) => warning("endpoint", format!("{place}; {how}"), fix),
    }
}

/// A question without an answer is a finding too.
fn no_answer(what: &'static str, cmd: &Cmd, why: &NoAnswer) -> Finding {
    warning(
        what,
        format!("`{}` {why}", cmd.summary()),
        "run `cargo xtask doctor` again; if the question fails again, restart the engine",
    )
}

/// The program that builds: `BuildKit` through buildx, or Buildah.
pub fn builder(cx: &Context, engine: &EngineFacts) -> Finding {
    let Some(version) = engine.engine.builder_version() else {
        return ok("builder", "a part of the engine");
    };
    match cx.ask(&version) {
        Ok(answer) if answer.ok() => ok("builder", answer.stdout.trim()),
        Ok(_) => failure(
            "builder",
            "buildx is missing or broken, and the legacy builder cannot build this image",
            catalogue::hints_for_code("buildx-missing").join("; "),
        ),
        Err(why) => no_answer("builder", &version, &why),
    }
}

/// Emulation is needed to run images of another platform, not to build them.
pub fn emulation(engine: &EngineFacts) -> Finding {
    let what = "emulation";
    let (other, handler) = match engine.platform.arch.as_str() {
        "amd64" => ("arm64", "qemu-aarch64"),
        _ => ("amd64", "qemu-x86_64"),
    };
    let state = std::fs::read_to_string(Path::new("/proc/sys/fs/binfmt_misc").join(handler))
        .unwrap_or_default();
    let enabled = state.lines().next() == Some("enabled");
    let inside = state
        .lines()
        .any(|line| line.starts_with("flags:") && line.contains('F'));
    match (&engine.location, enabled, inside) {
        (Location::VirtualMachine | Location::Remote(_), ..) => ok(
            what,
            "not checked: the engine is on another machine; builds need no emulation",
        ),
        (Location::Host, true, true) => ok(what, format!("{other} images can run here")),
        (Location::Host, true, false) => warning(
            what,
            format!(
                "{handler} is registered without the flag F, so it does not work in containers"
            ),
            "install `qemu-user-static` and `binfmt-support`",
        ),
        (Location::Host, false, _) => ok(
            what,
            format!(
                "{other} images cannot run here; building them needs no emulation (cargo xtask build-image --platform linux/{other})"
            ),
        ),
    }
}

/// The free space on the disk of the engine's images.
fn disk(cx: &Context, engine: &EngineFacts) -> Option<Finding> {
    if engine.location != Location::Host {
        return None;
    }
    let root = match cx.ask(&engine.engine.storage_root()) {
        Ok(root) => root.stdout.trim().to_owned(),
        Err(why) => return Some(no_answer("disk", &engine.engine.storage_root(), &why)),
    };
    let df = Cmd::new("df").args(["-Pk", &root]);
    let free = match cx.ask(&df) {
        Ok(free) => free,
        Err(why) => return Some(no_answer("disk", &df, &why)),
    };
    let free = free
        .stdout
        .lines()
        .nth(1)?
        .split_whitespace()
        .nth(3)?
        .parse::<u64>()
        .ok()?
        * 1024;
    let detail = format!("{} free at {root}", human_bytes(free));
    Some(if free >= ENOUGH_FREE {
        ok("disk", detail)
    } else {
        warning(
            "disk",
            detail,
            "free some: `cargo xtask clean --all` removes our images",
        )
    })
}

/// The environment file, and whether something listens at each address.
fn environment(cx: &Context) -> Vec<Finding> {
    let file = match read_env_file(cx.settings, cx.env) {
        Ok(file) => file,
        Err(error) => return vec![findings::from_failure("env file", &error)],
    };
    let runner = RunnerEnv {
        settings: cx.settings,
        env: cx.env,
        file: file.as_ref(),
        scripted: &[],
    };
    let warnings = file.iter().flat_map(env_file_warnings);
    let warnings = warnings.map(|why| warning("env file", why, "write plain `NAME=value` lines"));
    let addresses = runner.addresses().into_iter();
    let ports = addresses.map(|(name, value)| {
        let address = host::describe_address(value);
        if host::host_and_port(value).is_none() {
            let hint = if name.ends_with("_URL") {
                format!("set `{name}` to `http://HOST:PORT`")
            } else {
                format!("set `{name}` to `HOST:PORT`")
            };
            warning("port", format!("{name} is {address}"), hint)
        } else if host::listens(value) {
            ok("port", format!("{address} answers ({name})"))
        } else {
            let hint = how_to_start(name, cx.settings);
            warning(
                "port",
                format!("nothing listens at {address} ({name})"),
                hint,
            )
        }
    });
    warnings.chain(ports).collect()
}

/// How the container can use the mounted folders.
fn workspace(cx: &Context, engine: &EngineFacts) -> Vec<Finding> {
    let what = "workspace";
    let mounts = cx.settings.mounts().into_iter();
    let mounts = mounts.map(|volume| mount(&volume, cx.settings, cx.env));
    mounts
        .filter_map(|mount| match mount {
            Err(error) => Some(failure(
                what,
                error.to_string(),
                error.hint_lines().join("; "),
            )),
            Ok(mount) => mount.folder.clone().map(|folder| {
                let steps = folder_steps(&mount, cx.settings, cx.env, engine);
                match (steps, folder) {
                    (Err(error), _) => {
                        failure(what, error.to_string(), error.hint_lines().join("; "))
                    }
                    (Ok(_), Folder::Missing | Folder::DanglingLink { .. }) => {
                        ok(what, format!("{} will be created", mount.host))
                    }
                    (Ok(_), Folder::Other) => ok(
                        what,
                        format!("{} is a file, which is mounted as it is", mount.host),
                    ),
                    (Ok(_), Folder::Exists { .. }) if mount.is_read_only() => {
                        ok(what, format!("{} is mounted read-only", mount.host))
                    }
                    (Ok(_), Folder::Exists { .. }) => ok(
                        what,
                        format!("{} can be written by the container", mount.host),
                    ),
                }
            }),
        })
        .collect()
}

/// Whether there is a login for the image's registry. Building and running need none.
fn credentials(cx: &Context, engine: &EngineFacts) -> Finding {
    let what = "credentials";
    let repository = &cx.settings.image.repository;
    let registry = repository.registry();
    let kinds = [engine.engine.kind];
    let tokens = destination::tokens(cx);
    let login = find(cx.exec, tokens, &kinds, registry, repository.path());
    let found = match &login.credentials {
        Some(found) => format!("for {registry}, from {}", found.source),
        None => format!("none for {registry}; building and running need none"),
    };
    if login.problems.is_empty() {
        return ok(what, found);
    }
    let problems: Vec<_> = login.problems.iter().map(|it| it.what.as_str()).collect();
    let detail = format!("{}; {found}", problems.join("; "));
    warning(what, detail, login.fixes().join("; "))
}

/// Whether the stigmer CLI's runner is there, which also takes executions.
fn stigmer_cli(cx: &Context) -> Option<Finding> {
    if !Model::is_used_by(cx.settings) {
        return None;
    }
    let engines = engines_that_run(
        cx,
        STIGMER_CLI_CONTAINER,
        None,
        Container::is_of_stigmer_cli,
    );
    (!engines.is_empty()).then(|| warning(
            "stigmer CLI",
            "its runner `stigmer-agent-runner` runs: a runner of yours with the same task queue shares the executions with it",
            STOP_STIGMER_CLI,
        ))
}

fn git(cx: &Context) -> Finding {
    let git = git::work_tree(cx.exec, &cx.settings.root);
    if let Some((why, fix)) = work_tree::untrusted(cx.settings, &git) {
        return warning("git", why, format!("images get no `revision` label; {fix}"));
    }
    match git.values.sha {
        Some(sha) => {
            let state = if git.dirty {
                ", with uncommitted changes"
            } else {
                ""
            };
            ok("git", format!("{}{state}", sha.get(..12).unwrap_or(&sha)))
        }
        None => warning(
            "git",
            "this is not a git work tree, or git is not installed",
            "images get no `revision` label; clone the repository to have one",
        ),
    }
}

/// Whether builds get the CA of a proxy that intercepts TLS.
fn proxy_and_ca(cx: &Context) -> Finding {
    let what = "proxy and CA";
    let names = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let proxies: Vec<_> = names
        .iter()
        .filter_map(|name| Some((*name, cx.env.get(name)?)))
        .collect();
    let silent = proxies.iter().find(|(_, address)| !host::listens(address));
    let own_ca = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "NODE_EXTRA_CA_CERTS",
    ]
    .iter()
    .find_map(|name| cx.env.get(name).map(|file| (*name, file)));
    let has_secret = cx
        .settings
        .build
        .secrets
        .iter()
        .any(|secret| secret.id == "ca");
    let proxy = match silent.or(proxies.first()) {
        Some((name, value)) => {
            let shown = if secret::looks_like_secret(value) {
                secret::MASK
            } else {
                value
            };
            format!("{name}={shown}")
        }
        None => "no proxy".to_owned(),
    };
    if silent.is_some() {
        return warning(
            what,
            format!("{proxy}: nothing answers there"),
            catalogue::hints_for_code("proxy-unreachable").join("; "),
        );
    }
    match (own_ca, has_secret) {
        (_, true) => ok(
            what,
            format!("{proxy}; builds get the CA bundle of the secret `ca`"),
        ),
        (Some((name, file)), false) => warning(
            what,
            format!("{proxy}; your programs trust {name}={file}, builds don't"),
            format!(
                "if downloads fail in builds, put into xtask.local.toml: `[build]` `secrets = [\"id=ca,src={file}\"]`"
            ),
        ),
        (None, false) => ok(what, format!("{proxy}; no CA bundle of your own")),
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for Doctor {}
