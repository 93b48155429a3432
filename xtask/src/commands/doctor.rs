//! `doctor`: everything that can be wrong, one line each, with the fix.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{
    Context,
    findings::{self, Finding, failure, ok, warning},
    run_local::environment::{addresses, env_file},
};
use crate::{
    catalogue,
    cli::JsonArgs,
    credentials::{config_file::ConfigFile, files},
    engine::{EngineFacts, Kind, Place, detect, diagnosis::EndpointEnv},
    env::{Env, Os},
    error::Failure,
    exec::Finished,
    image::human_bytes,
    plan::{Cmd, Output, Plan, Step},
    probe::{self, Folder},
    secret,
    settings::Prefer,
};

/// Less than this free, and a build may fail in its middle.
const WANTED_FREE: u64 = 5_000_000_000;

pub fn run(cx: &Context, args: &JsonArgs) -> Result<()> {
    if cx.dry_run {
        let steps =
            Kind::ALL.map(|kind| Step::new(detect::version_cmd(kind.program()), Output::Result));
        return cx
            .carry_out(&Plan {
                steps: steps.to_vec(),
            })
            .map(|_| ());
    }
    let mut findings = vec![ok(
        "configuration",
        format!(
            "{} reads well",
            cx.settings.root.join("xtask.toml").display()
        ),
    )];
    let engine = engines(cx, &mut findings);
    if let Some(engine) = &engine {
        findings.push(endpoint(engine, cx.env));
        findings.extend(builder(cx, engine));
        findings.push(emulation(engine));
        findings.extend(disk(cx, engine));
        findings.extend(workspace(cx, engine));
        findings.push(credentials(cx, engine));
    }
    findings.extend(ports(cx));
    findings.push(git(cx));
    findings.push(proxy_and_ca(cx));
    if cx.env.os == Os::Linux {
        let state = if probe::selinux_enforcing() {
            "enforcing: bind mounts get `:z`"
        } else {
            "not enforcing"
        };
        findings.push(ok("SELinux", state));
    }
    findings::show(cx, args.json, &findings)?;
    if findings::broken(&findings).is_empty() {
        Ok(())
    } else {
        Err(Failure::new("something is broken: see above").into())
    }
}

/// Which engine is chosen and why, and what the other candidates say.
fn engines(cx: &Context, findings: &mut Vec<Finding>) -> Option<EngineFacts> {
    match cx.probe().engine_and_others() {
        Ok((engine, passed_over)) => {
            for other in &passed_over {
                findings.push(warning(
                    "engine",
                    format!("{} {}", other.program, other.why),
                    catalogue::find(&other.why).map_or_else(
                        || "nothing to do if you don't use it".to_owned(),
                        |known| {
                            format!(
                                "nothing to do if you don't use it; else `cargo xtask explain {}`",
                                known.code
                            )
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
                Prefer::Auto => "the first that answers".to_owned(),
                Prefer::Docker | Prefer::Podman => {
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
    let place = match &engine.place {
        Place::Here => "this machine".to_owned(),
        Place::Vm => "a virtual machine on this one".to_owned(),
        Place::Remote(endpoint) => endpoint.clone(),
    };
    match engine.endpoint_env(env) {
        EndpointEnv::Silent if engine.hides_this_machine().is_some() => warning(
            "endpoint",
            format!(
                "{place}; {}",
                engine.hides_this_machine().unwrap_or_default()
            ),
            "use rootful Docker or rootless Podman, or see https://docs.docker.com/engine/security/rootless/tips/",
        ),
        EndpointEnv::Silent => ok("endpoint", place),
        EndpointEnv::Taken(from) => ok("endpoint", format!("{place}, by {from}")),
        EndpointEnv::Misleading(how, fix) => warning("endpoint", format!("{place}; {how}"), fix),
    }
}

fn ask(cx: &Context, cmd: &Cmd) -> Option<Finished> {
    cx.exec
        .ask(cmd, cx.settings.engine.timeout.max(Duration::from_secs(5)))
        .ok()
}

/// What builds: `BuildKit` through buildx, or Buildah.
pub fn builder(cx: &Context, engine: &EngineFacts) -> Option<Finding> {
    let Some(version) = engine.engine.builder_version() else {
        return Some(ok("builder", "a part of the engine"));
    };
    let answer = ask(cx, &version)?;
    Some(if answer.ok() {
        ok("builder", answer.stdout.trim())
    } else {
        failure(
            "builder",
            "buildx is missing or broken, and the legacy builder cannot build this image",
            catalogue::hints_of("buildx-missing").join("; "),
        )
    })
}

/// Only for running foreign images: building needs none.
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
    match (&engine.place, enabled, inside) {
        (Place::Vm | Place::Remote(_), ..) => {
            ok(what, "the engine's machine has it or not; builds need none")
        }
        (Place::Here, true, true) => ok(what, format!("{other} images can run here")),
        (Place::Here, true, false) => warning(
            what,
            format!(
                "{handler} is registered without the flag F, so it does not work in containers"
            ),
            "install `qemu-user-static` and `binfmt-support`",
        ),
        (Place::Here, false, _) => ok(
            what,
            format!(
                "{other} images cannot run here; building them needs none (cargo xtask build-image --platform linux/{other})"
            ),
        ),
    }
}

/// Free space where the engine keeps its images.
fn disk(cx: &Context, engine: &EngineFacts) -> Option<Finding> {
    if engine.place != Place::Here {
        return None;
    }
    let root = ask(cx, &engine.engine.storage_root())?;
    let root = root.stdout.trim().to_owned();
    let free = ask(cx, &Cmd::new("df").args(["-Pk", &root]))?;
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
    Some(if free >= WANTED_FREE {
        ok("disk", detail)
    } else {
        warning(
            "disk",
            detail,
            "free some: `cargo xtask clean --all` removes our images",
        )
    })
}

fn ports(cx: &Context) -> Vec<Finding> {
    let file = match env_file(cx.settings, cx.env) {
        Ok(file) => file,
        Err(error) => {
            return vec![failure(
                "env file",
                error.to_string(),
                error.hint_lines().join("; "),
            )];
        }
    };
    let found = addresses(cx.settings, cx.env, file.as_ref())
        .into_iter()
        .filter_map(|(name, value)| {
            let (host, port) = probe::host_and_port(value)?;
            Some(if probe::listens(value) {
                ok("port", format!("{host}:{port} answers ({name})"))
            } else {
                warning(
                    "port",
                    format!("nothing listens at {host}:{port} ({name})"),
                    super::run_local::how_to_start(name),
                )
            })
        });
    found.collect()
}

/// Whether the mounted folders can be written by the container.
fn workspace(cx: &Context, engine: &EngineFacts) -> Vec<Finding> {
    let what = "workspace";
    let mounts = cx
        .settings
        .run
        .volumes
        .iter()
        .map(|volume| super::run_local::mounts::mount(volume, cx.settings, cx.env));
    mounts
        .filter_map(|mount| match mount {
            Err(error) => Some(failure(
                what,
                error.to_string(),
                error.hint_lines().join("; "),
            )),
            Ok(mount) => mount.folder.clone().map(|folder| {
                let steps =
                    super::run_local::mounts::folder_steps(&mount, cx.settings, cx.env, engine);
                match (steps, folder) {
                    (Err(error), _) => {
                        failure(what, error.to_string(), error.hint_lines().join("; "))
                    }
                    (Ok(_), Folder::Missing) => ok(what, format!("{} will be created", mount.host)),
                    (Ok(_), Folder::Other) => {
                        ok(what, format!("{} is a file, mounted as it is", mount.host))
                    }
                    (Ok(_), Folder::There { .. }) => ok(
                        what,
                        format!("{} can be written by the container", mount.host),
                    ),
                }
            }),
        })
        .collect()
}

/// Whether the registry of the image is signed in to; building and running need none.
fn credentials(cx: &Context, engine: &EngineFacts) -> Finding {
    let what = "credentials";
    let repository = &cx.settings.image.repository;
    let registry = repository.registry();
    let files = files::of_engine(engine.engine.kind, cx.env);
    let file = files.iter().find_map(|file| ConfigFile::open(file));
    if let Some(program) = file.as_ref().and_then(|file| file.helper(registry)) {
        return match cx.probe().find(&program) {
            Some(_) => ok(what, format!("kept by `{program}`")),
            None => warning(
                what,
                format!(
                    "the credential helper `{program}` is not installed, and pulls will fail with it"
                ),
                "remove its line (`credsStore` or `credHelpers`) from the engine's config.json, or install it",
            ),
        };
    }
    if file.is_some_and(|file| file.login(registry, repository.path()).is_some()) {
        ok(what, format!("there are some for {registry}"))
    } else {
        ok(
            what,
            format!("none for {registry}: enough to build and run"),
        )
    }
}

fn git(cx: &Context) -> Finding {
    let git = probe::git(cx.exec, &cx.settings.root);
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
            "this is no git work tree, or git is not installed",
            "images get no `revision` label; clone the repository to have one",
        ),
    }
}

/// Behind a proxy that has its own certificate, a build needs to know it.
fn proxy_and_ca(cx: &Context) -> Finding {
    let what = "proxy and CA";
    let names = [
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
    ];
    let proxy = names.iter().find(|name| cx.env.get(name).is_some());
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
    let proxy = match proxy {
        Some(name) => {
            let value = cx.env.get(name).unwrap_or_default();
            let shown = if secret::looks_like_secret(value) {
                secret::MASK
            } else {
                value
            };
            format!("{name}={shown}")
        }
        None => "no proxy".to_owned(),
    };
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
