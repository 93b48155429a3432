//! `up`: starts a Temporal server and a development stigmer-server if none answers, and the runner.

use anyhow::Result;
use clap::Args;

use crate::{
    base::{env::User, error::Failure},
    build::facts::BuildFacts,
    cli::{FlavourOption, VersionOption},
    commands::{
        build_image,
        command::Command,
        removal,
        run_local::{
            facts::StartedBy,
            start::{BACKGROUND, preview, start},
        },
        stack::{
            NAMESPACE, Names, Ports, SERVER_ADDRESS, Server, TASK_QUEUE, TEMPORAL_ADDRESS,
            TEMPORAL_TLS, belongs_to_stack, build_devserver_steps, devserver_image,
            find_devserver_image, origin_of_address, server, serves, show_logs_on_failure,
            temporal, wait_for_devserver, wait_for_temporal,
        },
    },
    engine::{Engine, EngineFacts, Location, container::Container, image::Image},
    facts::{
        context::{Context, refuse_foreign},
        environment::{RunnerEnv, read_env_file},
        host,
    },
    plan::{Output, Plan, Step},
    settings::{Network, Publish, Settings},
};

/// Start the whole stack: Temporal, a stigmer-server with a scripted model, and the runner
#[derive(Args, Clone, Debug)]
pub struct Up {
    #[command(flatten)]
    version: VersionOption,
    #[command(flatten)]
    flavour: FlavourOption,
}

/// The settings that the server shares with the runner: its flags and the runner's variables.
const SHARED_WITH_RUNNER: &[(&str, &str)] = &[
    ("--namespace", NAMESPACE),
    ("--runner-task-queue", TASK_QUEUE),
];

/// What the plans need to know.
struct UpFacts {
    build: BuildFacts,
    ports: Ports,
    /// The server's flags of [`SHARED_WITH_RUNNER`].
    shared: Vec<String>,
    /// Where the runner's variable is set that turns TLS on for Temporal; none if it is not.
    tls_from: Option<String>,
    /// Temporal's namespace, if the runner has one of its own.
    namespace: Option<String>,
    temporal: ServerFacts,
    server: ServerFacts,
    has_runner_image: bool,
    invoking_user: User,
}

/// The state of one server.
struct ServerFacts {
    /// Where its address comes from, for a message.
    origin: String,
    /// Whether something answers at its port, ours or not.
    answers: bool,
    /// The container of its name.
    container: Option<Container>,
    image: Option<Image>,
}

/// What `up` does with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Another program answers at the port. It is used as it is.
    Other,
    /// The container of an earlier `up` is used.
    Keep,
    Start,
}

impl ServerFacts {
    /// What becomes of the server that would run with this command.
    fn fate(&self, port: u16, command: &[String]) -> Fate {
        let running = self
            .container
            .as_ref()
            .filter(|found| found.state.running && !found.state.is_paused());
        match running {
            Some(ours) if serves(ours, port) => {
                let same_command = ours.config.cmd.as_ref().is_none_or(|cmd| cmd == command);
                let same_image = self
                    .image
                    .as_ref()
                    .is_none_or(|image| image.is_image_of(ours));
                if same_command && same_image {
                    Fate::Keep
                } else {
                    Fate::Start
                }
            }
            _ if self.answers => Fate::Other,
            _ => Fate::Start,
        }
    }
}

impl UpFacts {
    fn gather(cx: &Context, names: &Names) -> Result<Self> {
        let settings = cx.settings;
        let file = read_env_file(settings, cx.env)?;
        let runner = RunnerEnv {
            settings,
            env: cx.env,
            file: file.as_ref(),
            scripted: &[],
        };
        let ports = Ports::of(&runner)?;
        let build = BuildFacts::gather(cx)?;
        let engine = &build.engine;
        let find = |reference: &str| -> Result<Option<Image>> {
            let found = cx.images_of(&engine.engine, &[reference])?;
            Ok(found.into_iter().next())
        };
        let container = |name: &str| -> Result<Option<Container>> {
            let container = cx.container_of(&engine.engine, name)?;
            if let Some(container) = &container {
                refuse_foreign(name, container)?;
            }
            Ok(container)
        };
        container(&names.runner)?;
        refuse_second_stack(cx, engine, names)?;
        let server = |name: &str, address: &str, port: u16, image: Option<Image>| {
            Ok::<_, anyhow::Error>(ServerFacts {
                origin: origin_of_address(&runner, address),
                // A server on this machine is useless to a container that cannot reach it.
                answers: engine.why_localhost_is_unreachable().is_none()
                    && !matches!(engine.location, Location::Remote(_))
                    && host::listens(&format!("localhost:{port}")),
                container: container(name)?,
                image,
            })
        };
        Ok(Self {
            temporal: server(
                &names.temporal,
                TEMPORAL_ADDRESS,
                ports.temporal,
                find(&settings.stack.temporal_image)?,
            )?,
            server: server(
                &names.server,
                SERVER_ADDRESS,
                ports.server,
                find_devserver_image(cx, engine)?,
            )?,
            has_runner_image: find(&cx.reference()?)?.is_some(),
            tls_from: runner
                .get(TEMPORAL_TLS)
                .filter(|(value, _)| is_on(value))
                .map(|(_, source)| runner.place_of(source)),
            namespace: runner.value(NAMESPACE).map(str::to_owned),
            shared: SHARED_WITH_RUNNER
                .iter()
                .filter_map(|(flag, name)| Some((flag, runner.value(name)?)))
                .flat_map(|(flag, value)| [(*flag).to_owned(), value.to_owned()])
                .collect(),
            invoking_user: cx.env.user,
            ports,
            build,
        })
    }

    fn temporal<'a>(&self, settings: &'a Settings, names: &'a Names) -> Server<'a> {
        let network = self.build.engine.network(&Network::Auto);
        let mut temporal = temporal(settings, &names.temporal, network, self.ports);
        if let Some(namespace) = &self.namespace {
            let flag = ["--namespace".to_owned(), namespace.clone()];
            temporal.command.extend(flag);
        }
        temporal.stack = Some(&names.runner);
        temporal
    }

    fn server<'a>(&self, image: &'a str, names: &'a Names) -> Server<'a> {
        let network = self.build.engine.network(&Network::Auto);
        let host = self.build.engine.host_name_on(&network);
        let mut server = server(&names.server, image, network, host, self.ports);
        server.command.extend(self.shared.iter().cloned());
        server.stack = Some(&names.runner);
        server
    }

    /// What becomes of Temporal and of the stigmer-server.
    fn fates(&self, settings: &Settings, names: &Names) -> (Fate, Fate) {
        let temporal = self.temporal(settings, names);
        // A running Temporal stays even if its image has changed: the executions are in its memory.
        let known = ServerFacts {
            image: None,
            origin: String::new(),
            container: self.temporal.container.clone(),
            ..self.temporal
        };
        let image = devserver_image(settings);
        let server = self.server(&image, names);
        (
            known.fate(self.ports.temporal, &temporal.command),
            self.server.fate(self.ports.server, &server.command),
        )
    }
}

/// Refuses a stack that runs in another engine: its servers have the ports, and its runner the task queue. An engine
/// that does not answer may have one, unless the stack is known to run in this engine.
fn refuse_second_stack(cx: &Context, ours: &EngineFacts, names: &Names) -> Result<()> {
    let mut silent = None;
    let mut runs_here = false;
    for name in [&names.runner, &names.server, &names.temporal] {
        let search = cx.search(name)?;
        let members = search.found.iter().filter(|(_, container)| {
            belongs_to_stack(cx.settings, container) && container.state.running
        });
        for (engine, _) in members {
            if engine.kind != ours.engine.kind {
                return Err(second_stack_failure(cx.settings, engine, name).into());
            }
            runs_here = true;
        }
        if !search.silent.is_empty() {
            silent.get_or_insert(search);
        }
    }
    match silent {
        Some(search) if runs_here => search.warn_of_silence(cx),
        Some(search) => search.fail_if_silent()?,
        None => {}
    }
    Ok(())
}

fn second_stack_failure(settings: &Settings, engine: &Engine, name: &str) -> Failure {
    let kind = engine.kind;
    Failure::new(format!("the stack runs in {kind} already: `{name}`")).hint(format!(
        "continue there: `cargo xtask up --engine {}{}`; or remove it first: `cargo xtask down`",
        kind.program(),
        settings.given_version_options()
    ))
}

/// Refuses a network of the runner from which it cannot reach the servers. They listen on the loopback only,
/// so that no other machine can use them.
fn check_network(settings: &Settings, facts: &UpFacts, names: &Names) -> Result<(), Failure> {
    let engine = &facts.build.engine;
    let network = &settings.run.network;
    let uses_others = facts.fates(settings, names) == (Fate::Other, Fate::Other);
    if uses_others || engine.reaches_servers_on(network) {
        return Ok(());
    }
    let options = settings.given_version_options();
    if let Location::Remote(endpoint) = &engine.location {
        let why = format!(
            "the engine is on another machine ({endpoint}), whose containers cannot reach the servers of `up` here"
        );
        return Err(Failure::usage(why).hint(format!(
            "run `cargo xtask up{options}` on that machine, or choose an engine of this one"
        )));
    }
    let why = format!(
        "the runner on the network `{}` could not reach the servers of `up`, which listen on the loopback only",
        network.word()
    );
    Err(Failure::usage(why).hint(format!("give the runner the host's network: `XTASK_RUN_NETWORK=auto cargo xtask up{options}`, or `run.network = \"auto\"` in `xtask.local.toml`")))
}

/// Refuses TLS for the runner if `up` starts Temporal. The runner would wait for Temporal for ever. A key alone does not
/// turn TLS on for a server of this machine.
fn check_tls(settings: &Settings, facts: &UpFacts, names: &Names) -> Result<(), Failure> {
    let (temporal, _) = facts.fates(settings, names);
    match &facts.tls_from {
        Some(place) if temporal != Fate::Other => Err(Failure::usage(format!(
            "`{TEMPORAL_TLS}` in {place} turns TLS on, which the Temporal of `up` does not have"
        ))
        .hint(format!(
            "leave it out for this command: `{TEMPORAL_TLS}=false cargo xtask up{}`",
            settings.given_version_options()
        ))),
        _ => Ok(()),
    }
}

/// Whether the worker takes the value of a variable for true.
fn is_on(value: &str) -> bool {
    ["1", "on", "t", "true", "y", "yes"].contains(&value.trim().to_lowercase().as_str())
}

/// Pulls and builds the images that are needed. The stigmer-server's image is built even if it
/// exists, because only the build shows whether the sources have changed. It is not built if `up`
/// uses a server that it did not start.
///
/// # Errors
/// When an image cannot be planned.
fn plan_images(settings: &Settings, facts: &UpFacts, names: &Names) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    let engine = &facts.build.engine;
    let (temporal, server) = facts.fates(settings, names);
    if temporal == Fate::Start && facts.temporal.image.is_none() {
        let image = &settings.stack.temporal_image;
        let pull = Step::new(engine.engine.pull(image), Output::Progress);
        plan.push(pull.status("Pulling", image.as_str()));
    }
    if server != Fate::Other {
        plan.steps
            .extend(build_devserver_steps(settings, &facts.build)?);
    }
    if !facts.has_runner_image && settings.channel.publish != Publish::Yes {
        let defaults = build_image::BuildImage::default();
        let build = build_image::plan(settings, &facts.build, &defaults)?;
        plan.steps.extend(build.steps);
    }
    Ok(plan)
}

/// Starts the servers that do not run, and waits until they answer. Replaces a server of `up` that
/// runs from an old image or with other arguments.
fn plan_servers(settings: &Settings, facts: &UpFacts, names: &Names) -> Plan {
    let engine = &facts.build.engine;
    let mut plan = Plan::default();
    let (temporal, server) = facts.fates(settings, names);
    if temporal == Fate::Start {
        let what = format!(
            "Temporal on localhost:{} ({}), where none answers",
            facts.ports.temporal, facts.temporal.origin
        );
        let server = facts.temporal(settings, names);
        start_server(&mut plan, settings, facts, &facts.temporal, &server, what);
    }
    // An earlier `up` may have ended before its server was ready.
    if temporal != Fate::Other {
        let image = facts.temporal.image.as_ref();
        let program = image.and_then(|image| image.config.entrypoint.clone());
        let program = program.unwrap_or_else(|| vec!["temporal".to_owned()]);
        let wait = wait_for_temporal(engine, &names.temporal, &program, facts.ports);
        plan.push(wait);
    }
    if server == Fate::Start {
        let what = format!(
            "a stigmer-server on localhost:{} ({}), where none answers",
            facts.ports.server, facts.server.origin
        );
        let image = devserver_image(settings);
        let server = facts.server(&image, names);
        start_server(&mut plan, settings, facts, &facts.server, &server, what);
    }
    if server != Fate::Other {
        plan.push(wait_for_devserver(engine, &names.server, facts.ports));
    }
    plan
}

/// Starts a server in the place of its earlier container.
fn start_server(
    plan: &mut Plan,
    settings: &Settings,
    facts: &UpFacts,
    state: &ServerFacts,
    server: &Server,
    what: String,
) {
    let engine = &facts.build.engine;
    let mut what = what;
    if let Some(old) = &state.container {
        if old.state.running {
            what = format!("the newest {}", server.name);
        }
        let grace = settings.run.stop_grace;
        let steps = removal::steps(&engine.engine, server.name, server.name, old, grace);
        plan.steps.extend(steps);
    }
    let start = Step::new(server.run(engine, facts.invoking_user), Output::Quiet);
    plan.push(start.status("Starting", what));
}

/// Says which servers are used as they are.
fn tell_found(cx: &Context, facts: &UpFacts, names: &Names) {
    let (temporal, server) = facts.fates(cx.settings, names);
    let ports = facts.ports;
    for (fate, what, port, state) in [
        (temporal, "Temporal", ports.temporal, &facts.temporal),
        (server, "stigmer-server", ports.server, &facts.server),
    ] {
        let whose = match fate {
            Fate::Start => continue,
            Fate::Keep => "`up` started it before",
            Fate::Other => "`up` did not start it",
        };
        let found = format!("{what} on localhost:{port} ({}): {whose}", state.origin);
        cx.ui.status("Found", &found);
    }
}

impl Command for Up {
    fn version(&self) -> Option<&str> {
        self.version.get()
    }

    fn flavour(&self) -> Option<&str> {
        self.flavour.get()
    }

    fn run(&self, cx: &Context) -> Result<()> {
        let settings = cx.settings;
        let names = Names::for_runner(&settings.run.container);
        let mut facts = UpFacts::gather(cx, &names)?;
        check_network(settings, &facts, &names)?;
        check_tls(settings, &facts, &names)?;
        cx.run_or_print(&plan_images(settings, &facts, &names)?)?;
        // The build decides whether a server that runs is replaced.
        update_images(cx, &mut facts)?;
        tell_found(cx, &facts, &names);
        let servers = plan_servers(settings, &facts, &names);
        let engine = &facts.build.engine;
        let containers = [names.temporal.as_str(), names.server.as_str()];
        show_logs_on_failure(cx, engine, &containers, cx.run_or_print(&servers))?;
        let has_own_server = facts.fates(settings, &names).1 != Fate::Other;
        let started_by = StartedBy::Up { has_own_server };
        if cx.dry_run {
            return preview(cx, started_by);
        }
        start(cx, BACKGROUND, started_by)?;
        cx.ui.hint(&next(settings, has_own_server));
        Ok(())
    }
}

/// What to do with the stack. For a server that `up` did not start, `ask` builds an image of the
/// development server, so the hint names the version.
fn next(settings: &Settings, has_own_server: bool) -> String {
    let version = if has_own_server {
        String::new()
    } else {
        settings.given_version_option()
    };
    format!(
        "next: `cargo xtask ask{version} \"write a haiku into haiku.txt\"`, and `cargo xtask down`"
    )
}

/// Looks the images up again, because the plan may have pulled or built them.
fn update_images(cx: &Context, facts: &mut UpFacts) -> Result<()> {
    if cx.dry_run {
        return Ok(());
    }
    let engine: &EngineFacts = &facts.build.engine;
    let temporal = &[&cx.settings.stack.temporal_image];
    facts.temporal.image = cx.images_of(&engine.engine, temporal)?.into_iter().next();
    facts.server.image = find_devserver_image(cx, engine)?;
    Ok(())
}

#[cfg(test)]
impl crate::commands::testing::Examples for Up {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        let missing = || ServerFacts {
            origin: "the default".to_owned(),
            answers: false,
            container: None,
            image: None,
        };
        machine.rendered_examples(&["up --version dev-me"], |_: &Self, settings, _| {
            let names = Names::for_runner(&settings.run.container);
            let facts = UpFacts {
                build: machine.build_facts(),
                ports: Ports::DEFAULT,
                shared: vec!["--namespace".to_owned(), "mine".to_owned()],
                tls_from: None,
                namespace: Some("mine".to_owned()),
                temporal: missing(),
                server: missing(),
                has_runner_image: true,
                invoking_user: machine.user,
            };
            let images = plan_images(settings, &facts, &names)?.render();
            Ok(images + &plan_servers(settings, &facts, &names).render())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(status: &str, cmd: &[&str], image: &str) -> Container {
        let json = serde_json::json!({
            "Image": image,
            "State": { "Status": status, "Running": status == "running" },
            "Config": { "Cmd": cmd },
        });
        serde_json::from_value(json).unwrap()
    }

    fn fate(answers: bool, container: Option<Container>) -> Fate {
        let image = serde_json::json!({ "Id": "sha256:new" });
        let state = ServerFacts {
            origin: String::new(),
            answers,
            container,
            image: Some(serde_json::from_value(image).unwrap()),
        };
        let command = ["serve", "--port", "7234"].map(str::to_owned);
        state.fate(7234, &command)
    }

    #[test]
    fn a_server_of_ours_is_replaced_if_it_is_not_the_newest() {
        let same = ["serve", "--port", "7234"];
        assert_eq!(
            fate(true, Some(container("running", &same, "new"))),
            Fate::Keep
        );
        // With rootless Docker, the ports of the containers are not ports of this machine.
        assert_eq!(
            fate(false, Some(container("running", &same, "sha256:new"))),
            Fate::Keep
        );
        assert_eq!(
            fate(true, Some(container("running", &same, "old"))),
            Fate::Start
        );
        let other = ["serve", "--port", "7234", "--namespace", "n"];
        assert_eq!(
            fate(true, Some(container("running", &other, "new"))),
            Fate::Start
        );
    }

    #[test]
    fn a_server_that_answers_is_used() {
        assert_eq!(fate(true, None), Fate::Other);
        assert_eq!(fate(false, None), Fate::Start);
        let elsewhere = ["serve", "--port", "9000"];
        for status in ["running", "exited"] {
            let ours = || Some(container(status, &elsewhere, "new"));
            assert_eq!(fate(true, ours()), Fate::Other, "{status}");
            assert_eq!(fate(false, ours()), Fate::Start, "{status}");
        }
    }
}
