//! A plan as a POSIX script, for who has no xtask. What the plan was made of is asked for again
//! when the script runs, or the script refuses: it does nothing that xtask would not.

use std::fmt::Write as _;

use crate::{
    engine::label,
    plan::{EnvValue, OnFailure, Output, Plan, Step, When, quote},
};

/// A script to be.
#[derive(Clone, Debug)]
pub struct Script {
    /// The call it stands for, and what made it.
    pub made_of: String,
    pub plan: Plan,
    /// The engine's program.
    pub program: String,
    /// The checkout.
    pub root: String,
    /// Why each variable of the environment must be set.
    pub needs: Vec<(String, String)>,
    /// The user whose ids and folders are in it.
    pub uid: Option<u32>,
    /// The commit whose names are in it.
    pub commit: Option<String>,
    /// Words that are found out when it runs, and how a shell says them.
    pub words: Vec<(String, &'static str)>,
    /// Lines that find them out.
    pub finds: Vec<&'static str>,
    /// What must be there before anything is done.
    pub before: Vec<Must>,
    /// What must be there in the end.
    pub after: Vec<Must>,
    /// The result, printed at the end.
    pub result: Option<String>,
}

impl Script {
    /// A plan with nothing around it.
    pub fn of(made_of: String, plan: Plan, program: &str, root: &str) -> Self {
        Self {
            made_of,
            plan,
            program: program.to_owned(),
            root: root.to_owned(),
            needs: Vec::new(),
            uid: None,
            commit: None,
            words: Vec::new(),
            finds: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            result: None,
        }
    }
}

/// What must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Must {
    /// An image; the words for when it is not.
    Image(String, String),
    /// No image of somebody else's by this name: a build would take it away.
    FreeTag(String),
    /// A container of ours.
    Container(String),
    /// A container whose check passes within so many seconds.
    Healthy {
        name: String,
        check: Vec<String>,
        seconds: u64,
    },
}

const DIE: &str = r#"die() { printf 'error: %s\n' "$*" >&2; exit 1; }
"#;
const SAY: &str = r#"say() { printf '%s\n' "$*" >&2; }
"#;

impl Script {
    /// The whole text.
    pub fn render(&self) -> String {
        let body = self.body();
        let mut out = format!(
            "#!/bin/sh\n# {}\n# What was configured, set and there when it was made is in it: make it anew when that changes.\nset -eu\n\n{DIE}",
            self.made_of.replace('\n', " ")
        );
        if body.contains("say ") {
            out.push_str(SAY);
        }
        if body.contains("if there ") || body.contains("\nthere ") {
            out.push_str(&self.there());
        }
        if body.contains("\nfree ") {
            out.push_str(&self.free());
        }
        out.push('\n');
        out + &body
    }

    fn body(&self) -> String {
        let mut steps = String::new();
        for must in &self.before {
            steps += &self.must(must);
        }
        for same in self.plan.steps.chunk_by(|a, b| a.when == b.when) {
            steps += &self.steps(same);
        }
        for must in &self.after {
            steps += &self.must(must);
        }
        if let Some(result) = &self.result {
            let _ = writeln!(steps, "printf '%s\\n' {}", quote(result));
        }
        self.head(&steps) + &steps
    }

    /// What must be so for the steps to be right.
    fn head(&self, steps: &str) -> String {
        let mut out = String::new();
        if let Some(uid) = self.uid {
            let _ = writeln!(
                out,
                "[ \"$(id -u)\" = {uid} ] || die 'this was made for the user {uid}, whose ids and folders are in it'"
            );
        }
        for (name, why) in &self.needs {
            let why = quote(&format!("{name}: {why}"));
            let _ = if is_variable(name) {
                writeln!(out, "[ -n \"${{{name}+set}}\" ] || die {why}")
            } else {
                // A shell hands it on and cannot say its name.
                writeln!(out, "printenv {} >/dev/null || die {why}", quote(name))
            };
        }
        let finds = self.finds.join("\n");
        let uses_root = [steps, &finds]
            .iter()
            .any(|text| text.contains("\"$root\""));
        if uses_root || self.commit.is_some() {
            let _ = writeln!(
                out,
                "# The checkout; another is the first argument.\nroot={}\n\
                 [ \"$#\" -eq 0 ] || root=$(cd -- \"$1\" && pwd)\n\
                 [ -f \"$root\"/xtask.toml ] || die \"there is no checkout in $root\"",
                quote(&self.root)
            );
        }
        if let Some(commit) = &self.commit {
            let _ = writeln!(
                out,
                "[ \"$(git -C \"$root\" rev-parse HEAD)\" = {commit} ] || die 'this was made for the commit {commit}, whose names are in it'"
            );
        }
        if !finds.is_empty() {
            out += &finds;
            out.push('\n');
        }
        let program = quote(&self.program);
        let _ = writeln!(
            out,
            "{program} version >/dev/null || die {}\n",
            quote(&format!("{} does not answer", self.program))
        );
        out
    }

    /// Whether there is a container; what is not ours is not touched.
    fn there(&self) -> String {
        let format = quote(&format!(
            "{{{{index .Config.Labels \"{}\"}}}}",
            label::CONTAINER
        ));
        let program = quote(&self.program);
        format!(
            "# Whether there is this container. One without our label is somebody else's.\n\
             there() {{\n    \
                 ours=$({program} container inspect --format {format} \"$1\" 2>/dev/null) || return 1\n    \
                 case $ours in '' | '<no value>') die \"the container $1 is not ours\" ;; esac\n\
             }}\n"
        )
    }

    /// That a tag is not somebody else's image's.
    fn free(&self) -> String {
        let format = quote(&format!(
            "{{{{index .Config.Labels \"{}\"}}}}",
            label::IMAGE
        ));
        let program = quote(&self.program);
        format!(
            "# Ends it where a tag is an image's that xtask did not build: it would have no name.\n\
             free() {{\n    \
                 ours=$({program} image inspect --format {format} \"$1\" 2>/dev/null) || return 0\n    \
                 case $ours in '' | '<no value>') die \"$1 is there already, and xtask did not build it\" ;; esac\n\
             }}\n"
        )
    }

    fn must(&self, must: &Must) -> String {
        let program = quote(&self.program);
        match must {
            Must::Image(reference, otherwise) => format!(
                "{program} image inspect {} >/dev/null 2>&1 || die {}\n",
                quote(reference),
                quote(otherwise)
            ),
            Must::FreeTag(reference) => format!("free {}\n", quote(reference)),
            Must::Container(name) => format!(
                "there {0} || die {1}\n",
                quote(name),
                quote(&format!("there is no container {name}"))
            ),
            Must::Healthy {
                name,
                check,
                seconds,
            } => {
                let check: Vec<_> = check.iter().map(|word| quote(word)).collect();
                let name = quote(name);
                format!(
                    "say 'Waiting until healthy'\n\
                     tries=0\n\
                     until {program} exec {name} {check} >/dev/null 2>&1; do\n    \
                         tries=$((tries + 1))\n    \
                         running=$({program} container inspect --format '{{{{.State.Running}}}}' {name})\n    \
                         if [ \"$running\" != true ] || [ \"$tries\" -ge {seconds} ]; then\n        \
                             {program} logs --tail 20 {name} >&2\n        \
                             die {why}\n    \
                         fi\n    \
                         sleep 1\n\
                     done\n",
                    check = check.join(" "),
                    why = quote(&format!("it is not healthy, or was not within {seconds} s")),
                )
            }
        }
    }

    /// Steps that depend on the same.
    fn steps(&self, steps: &[Step]) -> String {
        let mut lines = Vec::new();
        for step in steps {
            if let Some((verb, object)) = &step.say {
                let text = match &step.when {
                    // What is told of the one that was there is not of the one that will be.
                    When::OurContainer(name) => format!("{verb} {name}"),
                    When::Always | When::NoImage(_) | When::NoFolder(_) => {
                        format!("{verb} {object}")
                    }
                };
                lines.push(format!("say {}", quote(&text)));
            }
            lines.push(self.command(step));
        }
        let condition = match &steps[0].when {
            When::Always => return lines.join("\n") + "\n",
            When::OurContainer(name) => format!("there {}", quote(name)),
            When::NoImage(reference) => format!(
                "! {} image inspect {} >/dev/null 2>&1",
                quote(&self.program),
                quote(reference)
            ),
            When::NoFolder(path) => format!("[ ! -e {} ]", self.word(path)),
        };
        let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        format!("if {condition}; then\n{lines}fi\n")
    }

    fn command(&self, step: &Step) -> String {
        let cmd = &step.cmd;
        let mut line = match &cmd.stdin {
            Some(stdin) => format!("{} | ", stdin.from),
            None => String::new(),
        };
        if step.output == Output::Handover {
            line.push_str("exec ");
        }
        let plain: Vec<_> = cmd
            .env
            .iter()
            .filter_map(|(name, value)| match value {
                EnvValue::Plain(value) => Some(format!("{name}={}", self.word(value))),
                // It must be in the script's own environment: see `needs`.
                EnvValue::Secret(_) => None,
            })
            .collect();
        if step.output == Output::Handover && !plain.is_empty() {
            line.push_str("env ");
        }
        // The first of its kind is ours; a later one may be a person's own.
        let mut found = Vec::new();
        let words = std::iter::once(&cmd.program).chain(&cmd.args).map(|word| {
            match self.words.iter().find(|(known, _)| known == word) {
                Some((known, said)) if !found.contains(&known) => {
                    found.push(known);
                    (*said).to_owned()
                }
                Some(_) | None => self.word(word),
            }
        });
        line += &plain.into_iter().chain(words).collect::<Vec<_>>().join(" ");
        match step.output {
            Output::Talk => line.push_str(" >&2"),
            Output::Quiet | Output::Measured => line.push_str(" >/dev/null"),
            Output::Result | Output::Handover => {}
        }
        match step.on_failure {
            OnFailure::Stop => line,
            OnFailure::GoOn => line + " || true",
        }
    }

    /// A word for a shell, with the checkout as a variable.
    fn word(&self, word: &str) -> String {
        let begins = |before: &str| before.is_empty() || before.ends_with(['=', ',', ':']);
        let ends = |after: &str| after.is_empty() || after.starts_with(['/', ',', ':']);
        let place = word
            .match_indices(&self.root)
            .map(|(at, root)| (&word[..at], &word[at + root.len()..]))
            .find(|(before, after)| self.root.len() > 1 && begins(before) && ends(after));
        let part = |text: &str| {
            if text.is_empty() {
                String::new()
            } else {
                quote(text)
            }
        };
        match place {
            Some((before, after)) => format!("{}\"$root\"{}", part(before), part(after)),
            None => quote(word),
        }
    }
}

/// Whether a shell can have a variable of this name.
fn is_variable(name: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(fine) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cmd;

    fn script(steps: Vec<Step>) -> Script {
        Script {
            made_of: "xtask test".to_owned(),
            plan: Plan { steps },
            program: "docker".to_owned(),
            root: "/src/it".to_owned(),
            needs: Vec::new(),
            uid: None,
            commit: None,
            words: vec![("x=1".to_owned(), "\"x=$x\"")],
            finds: Vec::new(),
            before: Vec::new(),
            after: Vec::new(),
            result: None,
        }
    }

    #[test]
    fn words_know_the_checkout() {
        let script = script(Vec::new());
        for (word, said) in [
            ("/src/it", "\"$root\""),
            ("/src/it/a b", "\"$root\"'/a b'"),
            ("id=ca,src=/src/it/ca", "id=ca,src=\"$root\"/ca"),
            ("/src/item", "/src/item"),
            ("/other/src/it", "/other/src/it"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(script.word(word), said);
        }
    }

    #[test]
    fn what_is_found_out_stands_for_the_first_word_of_its_kind() {
        let cmd = Cmd::new("docker").args(["exec", "x=1", "echo", "x=1"]);
        let text = script(vec![Step::new(cmd, Output::Handover)]).render();
        assert!(
            text.ends_with("exec docker exec \"x=$x\" echo x=1\n"),
            "{text}"
        );
    }

    #[test]
    fn a_secret_is_a_name_and_never_a_value() {
        let cmd = Cmd::new("docker")
            .args(["run", "--env", "KEY"])
            .env("KEY", EnvValue::Secret("sk-1".into()))
            .env("A", EnvValue::Plain("b c".into()));
        let mut script = script(vec![Step::new(cmd, Output::Quiet)]);
        script.needs.push(("KEY".into(), "is a secret".into()));
        let text = script.render();
        assert!(!text.contains("sk-1"), "{text}");
        assert!(
            text.contains("[ -n \"${KEY+set}\" ] || die 'KEY: is a secret'\n"),
            "{text}"
        );
        assert!(
            text.contains("A='b c' docker run --env KEY >/dev/null\n"),
            "{text}"
        );
    }
}
