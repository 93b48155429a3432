//! Plans: commands and steps as values. `--dry-run` prints the same values that `exec` runs.

use std::time::Duration;

use crate::base::secret;

/// The value of an environment variable of a child process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    Plain(String),
    /// A value that is never printed.
    Secret(String),
}

impl EnvValue {
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) | Self::Secret(value) => value,
        }
    }
}

/// A program with its arguments and environment. A secret must not be an argument, because process lists
/// show arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    /// The variables that are added to the environment of xtask.
    pub env: Vec<(String, EnvValue)>,
    pub stdin: Option<Stdin>,
}

/// What the command reads from standard input. It may be secret: other processes cannot see it, and it is
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Stdin {
    pub text: String,
    /// A command that prints the text. `--dry-run` shows this command instead of the text.
    pub source_command: String,
}

impl std::fmt::Debug for Stdin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stdin({})", self.source_command)
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

    /// The command as a line for a POSIX shell.
    pub fn render(&self) -> String {
        let env = self.env.iter().map(|(name, value)| match value {
            EnvValue::Plain(value) => format!("{name}={}", quote_for_shell(value)),
            EnvValue::Secret(_) => format!("{name}={}", secret::MASK),
        });
        let words = std::iter::once(&self.program)
            .chain(&self.args)
            .map(|word| quote_for_shell(word));
        let stdin = self.stdin.as_ref();
        let source = stdin.map(|stdin| format!("{} |", stdin.source_command));
        source
            .into_iter()
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
    /// It is passed through to standard error.
    Progress,
    /// It is the result, and is passed through to standard output.
    Result,
    /// It is captured, and shown only if the step fails.
    Quiet,
    /// It is too large to capture: the caller reads it with `Exec::stream`. A dry run pipes it to `wc -c`.
    Streamed,
    /// The step's program replaces xtask, so it must be the last step.
    ReplaceProcess,
}

/// What a step's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Stop,
    /// The next step runs.
    Continue,
}

/// One command of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub cmd: Cmd,
    /// The status line: a verb and its object.
    pub status: Option<(&'static str, String)>,
    pub output: Output,
    pub on_failure: OnFailure,
    /// The time limit of a [`Output::Quiet`] step; none for no limit.
    pub limit: Option<Duration>,
    /// How long the step is repeated until it succeeds; none to run it once.
    pub retry_for: Option<Duration>,
    /// With `retry_for`: texts of failures that do not go away. If the last line of the output has
    /// one of them, the step is not repeated.
    pub give_up_on: &'static [&'static str],
    /// If the step fails with one of these texts in its output, it runs once more: the failure is temporary.
    pub passing_failures: Vec<&'static str>,
}

impl Step {
    pub fn new(cmd: Cmd, output: Output) -> Self {
        Self {
            cmd,
            status: None,
            output,
            on_failure: OnFailure::Stop,
            limit: None,
            retry_for: None,
            give_up_on: &[],
            passing_failures: Vec::new(),
        }
    }

    #[must_use]
    pub fn status(mut self, verb: &'static str, object: impl Into<String>) -> Self {
        self.status = Some((verb, object.into()));
        self
    }

    #[must_use]
    pub fn ignore_failure(mut self) -> Self {
        self.on_failure = OnFailure::Continue;
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

    /// Ends the repetitions of [`Self::retry_for`] at a failure that does not go away.
    #[must_use]
    pub fn give_up_on(mut self, failures: &'static [&'static str]) -> Self {
        self.give_up_on = failures;
        self
    }

    /// The step as a line for a POSIX shell.
    pub fn render(&self) -> String {
        let cmd = match (self.output, self.retry_for) {
            (_, Some(_)) => format!("until {}; do sleep 1; done", self.cmd.render()),
            (Output::Streamed, None) => format!("{} | wc -c", self.cmd.render()),
            (Output::Progress | Output::Result | Output::Quiet | Output::ReplaceProcess, None) => {
                self.cmd.render()
            }
        };
        match self.on_failure {
            OnFailure::Stop => cmd,
            OnFailure::Continue => format!("{cmd} || true"),
        }
    }
}

/// The steps of a command, in the order in which they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// Steps that run after the others, even after a failure or an interruption.
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

    /// The steps as lines for a POSIX shell.
    pub fn render(&self) -> String {
        let steps = self.steps.iter().chain(&self.cleanup);
        steps.map(|step| step.render() + "\n").collect()
    }
}

/// Quotes a word for a POSIX shell.
pub fn quote_for_shell(word: &str) -> String {
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
        assert_eq!(quote_for_shell("a-b_c.d/e:f=g"), "a-b_c.d/e:f=g");
        assert_eq!(quote_for_shell(""), "''");
        assert_eq!(quote_for_shell("a b"), "'a b'");
        assert_eq!(quote_for_shell("it's"), r"'it'\''s'");
        assert_eq!(quote_for_shell("$HOME"), "'$HOME'");
        assert_eq!(quote_for_shell("{{json .}}"), "'{{json .}}'");
        assert_eq!(quote_for_shell("~"), "'~'");
    }

    #[test]
    #[allow(clippy::disallowed_methods)] // a test asks the shell itself
    fn a_shell_reads_a_rendered_command_as_the_same_command() {
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
