//! A unit for Quadlet, with which systemd runs containers of Podman 4.4 and newer.
//! <https://docs.podman.io/en/v4.4/markdown/podman-systemd.unit.5.html>

use std::time::Duration;

use crate::{
    base::env::User,
    commands::export::runner::Runner,
    engine::{
        EngineFacts,
        run::{Identity, options},
    },
    settings::{Network, Restart},
};

/// The oldest Podman with Quadlet.
pub const FIRST_PODMAN: (u32, u32) = (4, 4);

/// What systemd waits for `podman` after the container's own grace.
const MORE_TIME: Duration = Duration::from_secs(10);
/// What systemd waits until the container has started. Podman may pull the image first, and systemd's default of 90
/// seconds would end the pull.
const START_TIME: Duration = Duration::from_secs(15 * 60);
/// What systemd waits before it restarts the container. It gives up after five starts in ten seconds. With its default
/// pause of 100 ms, a container that fails at once reaches that limit.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Makes the unit of the runner. What Quadlet of Podman 4.4 has no key for is an option of `podman run`.
pub fn unit(runner: &Runner, engine: &EngineFacts, user: User) -> String {
    let settings = runner.settings;
    let run = &settings.run;
    let title = match settings.image.title.as_str() {
        "" => run.container.as_str(),
        title => title,
    };
    let mut unit = Unit::default();
    unit.section("Unit");
    unit.set("Description", title.replace('%', "%%"));
    // A system's services wait for the network. A user's cannot, and systemd ignores the lines.
    unit.set("Wants", "network-online.target");
    unit.set("After", "network-online.target");
    unit.section("Container");
    unit.set_or_pass("Image", None, runner.image);
    unit.set_or_pass("ContainerName", Some("--name"), &run.container);
    identity(&mut unit, &engine.identity(&run.user, user));
    match engine.network(&run.network) {
        Network::Host => unit.set("Network", "host"),
        // `.network` is the end of the name of another unit.
        Network::Named(name) if name.ends_with(".network") => unit.pass("--network", &name),
        Network::Named(name) => unit.set_or_pass("Network", Some("--network"), &name),
        Network::Auto | Network::Bridge => {}
    }
    for port in runner.published_ports(engine) {
        unit.set("PublishPort", port);
    }
    for (volume, mount) in runner.volumes().zip(runner.mounts) {
        if mount.host.ends_with(".volume") {
            unit.pass("--volume", &volume);
        } else {
            unit.set_or_pass("Volume", Some("--volume"), &volume);
        }
    }
    for (name, value) in &runner.variables.shown {
        unit.set("Environment", word(&format!("{name}={value}")));
    }
    if let Some(file) = runner.env_file {
        unit.set("EnvironmentFile", word(&file.path));
    }
    hardening(&mut unit, runner);
    // Podman would pass the proxies of systemd's environment, with their passwords.
    unit.pass("--http-proxy", "false");
    if !run.command.is_empty() {
        let words: Vec<_> = run.command.iter().map(|it| word(it)).collect();
        unit.set("Exec", words.join(" "));
    }
    unit.section("Service");
    let restart = match run.restart {
        Restart::No => "no",
        Restart::OnFailure => "on-failure",
        Restart::UnlessStopped => "always",
    };
    unit.set("Restart", restart);
    if run.restart != Restart::No {
        unit.set("RestartSec", seconds(RESTART_PAUSE));
    }
    unit.set("TimeoutStartSec", seconds(START_TIME));
    let stop = run.stop_grace + MORE_TIME;
    unit.set("TimeoutStopSec", seconds(stop));
    unit.section("Install");
    unit.set("WantedBy", "default.target");
    unit.text
}

fn seconds(time: Duration) -> String {
    time.as_secs().to_string()
}

fn identity(unit: &mut Unit, identity: &Identity) {
    if let Some((user, group)) = identity.user.as_deref().and_then(|it| it.split_once(':')) {
        unit.set("User", user);
        unit.set("Group", group);
    }
    if let Some(userns) = &identity.userns {
        unit.pass("--userns", userns);
    }
}

/// The options of `run-local`, those that Quadlet has keys for as keys.
fn hardening(unit: &mut Unit, runner: &Runner) {
    let run = &runner.settings.run;
    let hardening = &run.hardening;
    unit.set("ReadOnly", hardening.read_only.to_string());
    unit.set("RunInit", hardening.init.to_string());
    unit.set("NoNewPrivileges", hardening.no_new_privileges.to_string());
    for capability in &hardening.drop_capabilities {
        unit.set("DropCapability", word(capability));
    }
    let mut rest = hardening.clone();
    (rest.read_only, rest.init, rest.no_new_privileges) = (false, false, false);
    rest.drop_capabilities.clear();
    let words = options(&run.limits, &rest, run.stop_grace);
    let mut words = words.iter();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        unit.pass(option, value);
    }
}

/// The text of a unit.
#[derive(Default)]
struct Unit {
    text: String,
}

impl Unit {
    fn section(&mut self, name: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(&format!("[{name}]\n"));
    }

    fn set(&mut self, key: &str, value: impl AsRef<str>) {
        self.text.push_str(&format!("{key}={}\n", value.as_ref()));
    }

    /// Passes an option to `podman run`.
    fn pass(&mut self, option: &str, value: &str) {
        self.set("PodmanArgs", word(&format!("{option}={value}")));
    }

    /// Sets a key that Quadlet reads up to the end of the line, without quotes. A value that such a key cannot
    /// have is passed with the option.
    fn set_or_pass(&mut self, key: &str, option: Option<&str>, value: &str) {
        let fits =
            value == value.trim() && !value.ends_with('\\') && !value.contains(char::is_control);
        match option {
            Some(option) if !fits => self.pass(option, value),
            _ => self.set(key, literal(value)),
        }
    }
}

/// systemd replaces `%` and a letter, and `$NAME`. It makes one character of two.
fn literal(text: &str) -> String {
    text.replace('%', "%%").replace('$', "$$")
}

/// A quoted word, with the escape sequences of systemd.
/// <https://www.freedesktop.org/software/systemd/man/latest/systemd.syntax.html#Quoting>
fn word(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in literal(text).chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_reads_is_escaped() {
        for (text, written) in [
            ("plain", r#""plain""#),
            ("100%", r#""100%%""#),
            ("%h $HOME ${X}", r#""%%h $$HOME $${X}""#),
            (r#"a"b'c"#, r#""a\"b'c""#),
            (r"back\slash\", r#""back\\slash\\""#),
            ("two\nlines\t", r#""two\nlines\x09""#),
            ("ä", r#""ä""#),
            ("", r#""""#),
        ] {
            assert_eq!(word(text), written);
        }
    }

    #[test]
    fn what_does_not_fit_into_a_line_is_an_option() {
        let written = |value: &str| {
            let mut unit = Unit::default();
            unit.set_or_pass("Volume", Some("--volume"), value);
            unit.text
        };
        assert_eq!(written("/my %h:/x"), "Volume=/my %%h:/x\n");
        assert_eq!(written("/a\nb:/x"), "PodmanArgs=\"--volume=/a\\nb:/x\"\n");
        assert_eq!(written("/a:/x\\"), "PodmanArgs=\"--volume=/a:/x\\\\\"\n");
        assert_eq!(written(" /a:/x"), "PodmanArgs=\"--volume= /a:/x\"\n");
    }
}
