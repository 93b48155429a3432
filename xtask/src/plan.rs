//! What will run: commands and steps, as values. `--dry-run` prints the same values that `exec` runs.

use std::time::Duration;

use crate::base::secret;

/// A value in a child's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    Plain(String),
    /// Passed to the child, and never shown.
    Secret(String),
}

impl EnvValue {
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) | Self::Secret(value) => value,
        }
    }
}

/// A program, its arguments, and the variables that are added to our environment.
/// A secret is never an argument: process lists show arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, EnvValue)>,
    /// What it reads from standard input.
    pub stdin: Option<Stdin>,
}

/// A secret on standard input, which no other process can see.
#[derive(Clone, PartialEq, Eq)]
pub struct Stdin {
    pub secret: String,
    /// The command that prints the secret, for the rendered line.
    pub from: String,
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stdin({})", self.from)
    }
}

impl Cmd {
    pub fn new(program: impl Into<String>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: None,
        }
    }

    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub fn args<I: IntoIterator<Item: Into<String>>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: EnvValue) -> Self {
        self.env.push((name.into(), value));
        self
    }

    /// The command as a line that a POSIX shell reads back as the same command.
    pub fn render(&self) -> String {
        let env = self.env.iter().map(|(name, value)| match value {
            EnvValue::Plain(value) => format!("{name}={}", quote(value)),
            EnvValue::Secret(_) => format!("{name}={}", secret::MASK),
        });
        let words = std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quote(word));
        let from = self.stdin.as_ref().map(|stdin| format!("{} |", stdin.from));
        from.into_iter()
            .chain(env)
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The program and its subcommand, for messages: `docker image inspect`.
    pub fn summary(&self) -> String {
        let subcommand = self.args.iter().take_while(|arg| !arg.starts_with('-'));
        std::iter::once(&self.program)
            .chain(subcommand.take(2))
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// What happens to the output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It is shown on standard error as it comes, such as progress.
    Talk,
    /// It is the result: it goes to standard output as it comes.
    Result,
    /// It is kept, and shown if the step fails.
    Quiet,
    /// It is too large to keep: its content and its size are read as it comes.
    Measured,
    /// The step takes over the terminal and replaces the process, so it is the last one.
    Handover,
}

/// What a step's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Stop,
    /// The next step runs all the same.
    GoOn,
}

/// One command of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub cmd: Cmd,
    /// The status line while it runs: a verb and its object.
    pub say: Option<(&'static str, String)>,
    pub output: Output,
    pub on_failure: OnFailure,
    /// How long a [`Output::Quiet`] step may take; none for any time.
    pub limit: Option<Duration>,
    /// Repeats the step until it succeeds, for at most this time.
    pub retry_for: Option<Duration>,
}

impl Step {
    pub fn new(cmd: Cmd, output: Output) -> Self {
        Self {
            cmd,
            say: None,
            output,
            on_failure: OnFailure::Stop,
            limit: None,
            retry_for: None,
        }
    }

    #[must_use]
    pub fn say(mut self, verb: &'static str, object: impl Into<String>) -> Self {
        self.say = Some((verb, object.into()));
        self
    }

    #[must_use]
    pub fn or_go_on(mut self) -> Self {
        self.on_failure = OnFailure::GoOn;
        self
    }

    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    #[must_use]
    pub fn retry_for(mut self, budget: Duration) -> Self {
        self.retry_for = Some(budget);
        self
    }

    /// The step as a line for a shell.
    pub fn render(&self) -> String {
        let cmd = match (self.output, self.retry_for) {
            (_, Some(_)) => format!("until {}; do sleep 1; done", self.cmd.render()),
            (Output::Measured, None) => format!("{} | wc -c", self.cmd.render()),
            (Output::Talk | Output::Result | Output::Quiet | Output::Handover, None) => {
                self.cmd.render()
            }
        };
        match self.on_failure {
            OnFailure::Stop => cmd,
            OnFailure::GoOn => format!("{cmd} || true"),
        }
    }
}

/// Steps in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Steps that run in the end, also after a failure or an interruption.
    pub cleanup: Vec<Step>,
}

impl From<Vec<Step>> for Plan {
    fn from(steps: Vec<Step>) -> Self {
        Self {
            steps,
            cleanup: Vec::new(),
        }
    }
}

impl Plan {
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// One line for each step. Pasted into a shell, they do what the plan does.
    pub fn render(&self) -> String {
        let steps = self.steps.iter().chain(&self.cleanup);
        steps.map(|step| step.render() + "\n").collect()
    }
}

/// Quotes a word for a POSIX shell.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quote("a-b_c.d/e:f=g"), "a-b_c.d/e:f=g");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("$HOME"), "'$HOME'");
        assert_eq!(quote("{{json .}}"), "'{{json .}}'");
        assert_eq!(quote("~"), "'~'");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // a test asks the shell itself
    fn a_shell_reads_back_what_is_rendered() {
        for word in [
            "", "a b", "it's", "$(id)", "a\nb", "\\", "ä`x`", "*", "~/x", "#no", "a;b&c|d",
        ] {
            let line = Cmd::new("printf").arg("%s").arg(word).render();
            let read = duct::cmd("sh", ["-c", line.as_str()])
                .stdout_capture()
                .run()
                .unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), word, "{line}");
        }
    }

    #[test]
    fn secrets_are_masked() {
        let cmd = Cmd::new("docker")
            .arg("run")
            .env("A", EnvValue::Plain("x y".into()))
            .env("KEY", EnvValue::Secret("sk-1".into()));
        assert_eq!(cmd.render(), "A='x y' KEY=*** docker run");
    }
}
