//! `logout`: removes the logins for the image's registry that the engines keep.

use anyhow::Result;
use clap::Args;

use crate::{
    commands::command::Command,
    credentials::{
        find::find,
        registry_name::Typed,
        stored::{self, Stored},
    },
    engine::Engine,
    facts::context::{Context, Ran},
    plan::{Output, Plan, Step},
    release::destination,
    settings::Settings,
};

/// Sign out of the image's registry
#[derive(Args, Clone, Debug)]
pub struct Logout {
    /// The registry [default: the image repository's]
    #[arg(long, value_name = "HOST")]
    registry: Option<String>,
}

impl Logout {
    fn registry(&self, settings: &Settings) -> Typed {
        let default = settings.image.repository.registry();
        Typed::parse(self.registry.as_deref().unwrap_or(default))
    }
}

fn plan(engine: &Engine, registry: &str) -> Plan {
    let step = Step::new(engine.logout(registry), Output::Quiet);
    vec![step.status("Signing", format!("out of {registry} with {}", engine.kind))].into()
}

impl Command for Logout {
    fn run(&self, cx: &Context) -> Result<()> {
        let typed = self.registry(cx.settings);
        let name = &typed.name();
        let find = |kind| stored::find(kind, cx.env, &typed.registry, &typed.path);
        let kinds = destination::engines(cx, cx.settings.engine.prefer);
        let mut removed = false;
        for kind in &kinds {
            let engine = Engine {
                kind: *kind,
                program: kind.program().to_owned(),
            };
            // Podman's logout fails if it keeps no login. If both engines read the same file, the
            // login is gone after the first logout.
            let Some(kept) = find(*kind) else {
                continue;
            };
            if cx.find_program(kind.program()).is_none() {
                continue;
            }
            if cx.run_or_print(&plan(&engine, name))? == Ran::No {
                continue;
            }
            removed = true;
            report(cx, name, &kept, find(*kind));
        }
        if cx.dry_run {
            return Ok(());
        }
        if !removed {
            let nothing = format!("to remove: no engine keeps a login for {name}");
            cx.ui.status("Nothing", &nothing);
        }
        warn_of_other_login(cx, &typed);
        Ok(())
    }
}

fn report(cx: &Context, registry: &str, kept: &Stored, left: Option<Stored>) {
    match (kept, left) {
        // Only the helper knows whether it still keeps a login. `warn_of_other_login` asks it.
        (Stored::Helper(program), _) => cx.ui.status(
            "Signed out",
            &format!(
                "of {registry}: the credential helper `{program}` was told to remove the login"
            ),
        ),
        (Stored::File { path, .. }, None) => {
            let from = path.display();
            cx.ui
                .status("Signed out", &format!("of {registry}: removed from {from}"));
        }
        (Stored::File { .. }, Some(left)) => {
            cx.ui
                .warn(&format!("a login for {registry} is still {left}"));
        }
    }
}

/// Warns if a push would still find a login.
fn warn_of_other_login(cx: &Context, typed: &Typed) {
    let repository = &cx.settings.image.repository;
    let registry = &typed.registry;
    let path = if registry == repository.registry() {
        repository.path()
    } else {
        &typed.path
    };
    let tokens = destination::tokens(cx);
    let kinds = destination::engines(cx, cx.settings.engine.prefer);
    let found = find(cx.exec, tokens, &kinds, registry, path);
    let Some(source) = found.credentials.map(|it| it.source) else {
        return;
    };
    cx.ui.warn(&format!(
        "a push to {registry} still finds a login, from {source}"
    ));
    cx.ui.hint(&match found.variable {
        Some(name) => format!("unset {name}"),
        None => format!("remove the login from {source}"),
    });
}

#[cfg(test)]
impl crate::commands::testing::Examples for Logout {
    fn examples(
        machine: &crate::commands::testing::Machine,
    ) -> Vec<crate::commands::testing::Example> {
        machine.examples(&["logout"], |command: &Self, settings, _| {
            Ok(plan(
                &machine.engine().engine,
                &command.registry(settings).name(),
            ))
        })
    }
}
