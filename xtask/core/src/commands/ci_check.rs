//! `ci-check`: what would keep a job from publishing, one line each, before it builds. It changes nothing: it
//! begins an upload and cancels it.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{engine_kind::EngineKind, env::Env, error::Failure, github},
    build::work_tree::{self, Uncommitted},
    cli::{JsonOption, RepositoryOption, VersionOption},
    commands::{
        command::Command,
        doctor,
        findings::{self, Finding, failure, from_error, from_failure, ok, warning},
    },
    credentials::{environment::GITHUB_REGISTRY, found::Found},
    engine::multiarch::{self, Builder},
    facts::{
        context::Context,
        git::{self, WorkTree},
    },
    oci::digest,
    registry::{authentication::Access, client::RegistryClient},
    release::{
        builder::{self, MultiarchFacts},
        client, destination,
        preflight::{self, Decision},
        sign::{Place, Signer, trust::Trust},
    },
    settings::{Cache, Settings, Sign},
};

/// Find out what would keep a job from publishing, before it builds
#[derive(Args, Clone, Debug)]
pub struct CiCheck {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    repository: RepositoryOption,
    #[command(flatten)]
    json: JsonOption,
}

impl Command for CiCheck {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let settings = &destination::with_repository(cx.settings, &self.repository)?;
        let built_for = cx.settings;
        let cx = &Context { settings, ..*cx };
        if cx.dry_run {
            return dry_run(cx);
        }
        let (settings, env) = (cx.settings, cx.env);
        let git = git::work_tree(cx.exec, &settings.root);
        let mut all = vec![ci_job(env), version(settings)];
        all.push(work_tree(settings, &git));
        if git.values.sha.is_some() {
            all.push(clone(git::tags(cx.exec, &settings.root).shallow));
        }
        let login = destination::find_login(cx);
        let registry = client::open_with(cx, Access::Push, login.clone())?;
        let push = permission(&registry, settings);
        cx.exec.fail_if_interrupted()?;
        let may_push = push.level == findings::Level::Ok;
        all.push(token(cx, &login, may_push));
        all.push(push);
        if may_push {
            for settings in &settings.released_together()? {
                let cx = &Context { settings, ..*cx };
                all.push(released(cx, &registry, &git));
            }
        }
        all.push(signing(cx, &git, Place::of(settings, built_for)));
        let secret = settings.refuse_secret_build_args().err();
        all.extend(secret.map(|why| findings::from_failure("build arguments", &why)));
        let engine = building(cx, &mut all);
        all.push(cache(settings, env, engine));
        cx.exec.fail_if_interrupted()?;
        findings::show(cx, self.json, &all)?;
        let failure_names = findings::failure_names(&all);
        if failure_names.is_empty() {
            return Ok(());
        }
        let names = failure_names.join(", ");
        Err(Failure::new(format!("publishing would fail: {names} (see above)")).into())
    }
}

/// The questions to the engines are commands. Those to the registry are not, so they are comments.
fn dry_run(cx: &Context) -> Result<()> {
    let settings = cx.settings;
    let repository = settings.image.repository.as_str();
    let text = doctor::version_questions().render()
        + &format!(
            "# ask whether {repository} may be pushed to: begin an upload and cancel it\n\
             # ask what {} names\n",
            settings.image.repository.tagged(&settings.own_tag())
        );
    Ok(cx.ui.print_plan(&text)?)
}

/// Whether this is a CI job. On another machine, the job's variables and permissions are unknown.
fn ci_job(env: &Env) -> Finding {
    let what = "CI";
    let get = |name: &str| env.get(name).unwrap_or("?");
    if github::is_active(env) {
        let (event, kind, name) = (
            get("GITHUB_EVENT_NAME"),
            get("GITHUB_REF_TYPE"),
            get("GITHUB_REF_NAME"),
        );
        ok(
            what,
            format!("GitHub Actions: {event} of the {kind} `{name}`"),
        )
    } else if env.get("CI").is_some() {
        ok(what, "another CI than GitHub Actions")
    } else {
        ok(what, "not a CI job: the findings are about this machine")
    }
}

fn version(settings: &Settings) -> Finding {
    let what = "version";
    match preflight::may_publish(settings) {
        Ok(()) => ok(
            what,
            format!(
                "{} (from {}), channel `{}`",
                settings.version.value, settings.version.origin, settings.channel.name
            ),
        ),
        Err(why) => from_failure(what, &why),
    }
}

fn work_tree(settings: &Settings, git: &WorkTree) -> Finding {
    let what = "work tree";
    match work_tree::check(settings, git, Uncommitted::Refused) {
        Err(why) => from_failure(what, &why),
        Ok(()) => ok(what, "in the state that the channel requires"),
    }
}

/// If the registry lists no tags, git's tags are the list of released versions.
fn clone(shallow: bool) -> Finding {
    let what = "clone";
    if shallow {
        warning(
            what,
            "shallow, so git does not know all tags: xtask cannot publish to a registry that does not list its tags",
            "`git fetch --tags --unshallow`; in GitHub Actions `fetch-depth: 0` for actions/checkout",
        )
    } else {
        ok(what, "complete, with all tags")
    }
}

fn permission(registry: &RegistryClient, settings: &Settings) -> Finding {
    let what = "permission";
    match registry.check_push() {
        Ok(()) => ok(
            what,
            format!("{} can be pushed to", settings.image.repository.as_str()),
        ),
        Err(why) => from_error(what, &why),
    }
}

/// Where the token comes from. Not every registry needs one.
fn token(cx: &Context, login: &Found, may_push: bool) -> Finding {
    let what = "token";
    let registry = cx.settings.image.repository.registry();
    let tokens = destination::tokens(cx);
    let (found, is_enough) = match &login.credentials {
        Some(found) => (format!("from {}", found.source), true),
        None if may_push => (format!("none, and {registry} needs none"), true),
        None => (format!("none for {registry}"), false),
    };
    if !login.problems.is_empty() {
        let problems: Vec<_> = login.problems.iter().map(|it| it.what.as_str()).collect();
        let (problems, fixes) = (problems.join("; "), login.fixes().join("; "));
        return if is_enough {
            warning(what, format!("{found}; {problems}"), fixes)
        } else {
            failure(what, problems, fixes)
        };
    }
    if is_enough {
        return ok(what, found);
    }
    if let Some(name) = tokens.variable(registry) {
        return failure(
            what,
            format!("{name} is set, but its user name is not"),
            "set the user name: `registry.user` in xtask.toml, or XTASK_REGISTRY_USER",
        );
    }
    let fix = if github::is_active(cx.env) && registry == GITHUB_REGISTRY {
        "`GITHUB_TOKEN: ${{ github.token }}` in the step's `env`".to_owned()
    } else {
        let command = format!("`{}`", login.sign_in);
        match tokens.variables(registry).join(" or ").as_str() {
            "" => command,
            names => format!("{command}, or {names}"),
        }
    };
    failure(what, found, fix)
}

fn released(cx: &Context, registry: &RegistryClient, git: &WorkTree) -> Finding {
    let what = "release";
    let settings = cx.settings;
    let tag = settings.own_tag();
    if settings.version.value.semver().is_none() {
        return ok(
            what,
            format!(
                "`{tag}` is not a release: publishing it again may move its tag to another image"
            ),
        );
    }
    let released = match preflight::released(settings, registry, git, None) {
        Ok(released) => released,
        Err(why) => return from_error(what, &why),
    };
    match preflight::decide(released.as_ref(), None, false) {
        Decision::Publish => match preflight::released_versions(cx, registry, git) {
            Ok(_) => ok(what, format!("{tag} is not released yet")),
            Err(why) => from_error(what, &why),
        },
        Decision::Resume(released) => ok(
            what,
            format!(
                "{tag} is released from this commit already ({}): a run completes only what is missing",
                digest::short(&released.manifest.digest())
            ),
        ),
        Decision::Replace(released) | Decision::Refuse(released) => from_failure(
            what,
            &preflight::already_released_failure(settings, released, None),
        ),
    }
}

fn signing(cx: &Context, git: &WorkTree, place: Place) -> Finding {
    let what = "signing";
    match Signer::for_signing(cx, &git.values, place) {
        Err(why) => from_error(what, &why),
        Ok(None) if cx.settings.channel.sign == Sign::Keyless => {
            ok(what, "none: a mirror is signed only with a key")
        }
        Ok(None) => ok(what, "none: the channel does not sign"),
        Ok(Some(signer)) => match &signer.trust {
            Trust::Key { private, .. } => ok(what, format!("cosign, with the key `{private}`")),
            Trust::Keyless { identity, .. } => job_identity(cx.env, identity),
        },
    }
}

/// A keyless signature has the identity of the job, which GitHub confirms.
/// <https://docs.github.com/actions/concepts/security/openid-connect>
fn job_identity(env: &Env, expected: &str) -> Finding {
    let what = "signing";
    let asked = [
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    ];
    let missing = asked.iter().find(|name| env.get(name).is_none());
    match missing {
        None => match job_workflow(env) {
            Some(job) if job != expected => warning(
                what,
                format!("this job signs as {job}, and `sign.identity` expects {expected}"),
                "run the workflow and tag that `sign.identity` names, or change it (a reusable workflow signs with its own name)",
            ),
            _ => ok(what, format!("cosign, as {expected}")),
        },
        Some(_) if env.get("SIGSTORE_ID_TOKEN").is_some() => {
            ok(what, "cosign, with the identity of SIGSTORE_ID_TOKEN")
        }
        Some(name) if github::is_active(env) => failure(
            what,
            format!("the job has no identity token: {name} is not set"),
            "`permissions: id-token: write` for the job",
        ),
        Some(_) if env.get("CI").is_some() => warning(
            what,
            "SIGSTORE_ID_TOKEN is not set: cosign has to find the job's identity token itself, as it does on Buildkite",
            "in GitLab CI: `id_tokens: { SIGSTORE_ID_TOKEN: { aud: sigstore } }` for the job",
        ),
        Some(_) => warning(
            what,
            "no identity token of a job: cosign opens a browser to sign in, and the identity is not that of `sign.identity`",
            "publish in CI, or sign with a key: `sign = \"key\"` in the channel",
        ),
    }
}

/// The identity of a workflow of GitHub Actions, as a certificate has it.
fn job_workflow(env: &Env) -> Option<String> {
    let workflow = env.get("GITHUB_WORKFLOW_REF")?;
    let server = env.get("GITHUB_SERVER_URL").unwrap_or("https://github.com");
    Some(format!("{server}/{workflow}"))
}

/// The builder. It may be missing: a job that merges archives from other machines builds nothing.
fn building(cx: &Context, all: &mut Vec<Finding>) -> Option<EngineKind> {
    let what = "builder";
    let facts = match MultiarchFacts::gather(cx) {
        Ok(facts) => facts,
        Err(why) => {
            let found = from_error(what, &why);
            let fix = found.fix.unwrap_or_default();
            all.push(warning(
                what,
                found.detail,
                format!(
                    "not needed to publish parts that other machines built (`--merge`); otherwise {fix}"
                ),
            ));
            return None;
        }
    };
    let engine = &facts.build.engine;
    let problem =
        Some(doctor::builder(cx, engine)).filter(|found| found.level != findings::Level::Ok);
    all.push(problem.unwrap_or_else(|| {
        match builder::multiarch_options(cx.settings, &facts, None) {
            Err(why) => from_failure(what, &why),
            Ok(multi) => {
                let name = match multi.builder {
                    Builder::EngineDefault => "its own builder".to_owned(),
                    Builder::Existing(name) => format!("the builder `{name}`"),
                    Builder::Create(_, name) => {
                        format!("the builder `{name}`, which is created first")
                    }
                    Builder::Nodes(nodes) => {
                        let at: Vec<_> = nodes.iter().map(|node| node.endpoint.as_str()).collect();
                        format!("the machines of build.nodes: {}", at.join(", "))
                    }
                };
                ok(what, format!("{}, {name}", engine.describe()))
            }
        }
    }));
    all.push(doctor::emulation(engine));
    Some(engine.engine.kind)
}

fn cache(settings: &Settings, env: &Env, engine: Option<EngineKind>) -> Finding {
    let what = "cache";
    match settings.build.cache {
        Cache::None => ok(what, "none: the builder keeps its own"),
        Cache::Local => ok(what, "a folder of this machine"),
        Cache::Registry => ok(what, "in the registry"),
        Cache::GitHub => {
            if let Some(kind) = engine
                && !multiarch::supports_github_cache(kind)
            {
                return warning(
                    what,
                    format!("{kind} has no support for GitHub's cache, and builds without it"),
                    "`build.cache = \"registry\"`",
                );
            }
            let missing = builder::missing_github_cache_variables(env);
            if missing.is_empty() {
                return ok(what, "GitHub Actions'");
            }
            warning(
                what,
                format!(
                    "GitHub's cache cannot be used: a `run:` step does not get {}",
                    missing.join(", ")
                ),
                "expose them in an earlier step: `actions/github-script`, see docs/publishing.md",
            )
        }
    }
}

#[cfg(test)]
impl crate::commands::testing::Examples for CiCheck {}
