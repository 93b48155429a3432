//! What will run: commands and steps, as values. What `--dry-run` prints is rendered from the
//! very values that `exec` runs.

/// A value in a child's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvValue {
    Plain(String),
    /// Handed to the child, shown to nobody.
    Secret(String),
}

impl EnvValue {
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(value) | Self::Secret(value) => value,
        }
    }
}

/// A program, its arguments, and what its environment has beside ours.
/// A secret is never an argument: arguments show in process lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cmd {
    pub program: String,
    pub args: Vec<String>,
    pub env: Vec<(String, EnvValue)>,
    /// What it is given on standard input.
    pub stdin: Option<Stdin>,
}

/// A secret on standard input, the one way into a program that nobody else sees.
#[derive(Clone, PartialEq, Eq)]
pub struct Stdin {
    pub secret: String,
    /// The command that gives it, for who pastes the line into a shell.
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
            EnvValue::Secret(_) => format!("{name}={}", crate::secret::MASK),
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
}

/// What becomes of what a step prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It is talk, such as progress: to standard error, as it comes.
    Talk,
    /// It is the result: to standard output, as it comes.
    Result,
    /// Kept, and shown if the step fails.
    Quiet,
    /// Too much to keep: it is read as it comes, for what is in it and for its size.
    Measured,
    /// The step takes over the terminal and the process: it is the last one.
    Handover,
}

/// What a step's failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    Stop,
    /// The step is worth trying, and no more.
    GoOn,
}

/// One command of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub cmd: Cmd,
    /// What it is for: a verb and its object, shown while it runs.
    pub say: Option<(&'static str, String)>,
    pub output: Output,
    pub on_failure: OnFailure,
}

impl Step {
    pub fn new(cmd: Cmd, output: Output) -> Self {
        Self {
            cmd,
            say: None,
            output,
            on_failure: OnFailure::Stop,
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

    pub fn render(&self) -> String {
        let cmd = match self.output {
            Output::Measured => format!("{} | wc -c", self.cmd.render()),
            Output::Talk | Output::Result | Output::Quiet | Output::Handover => self.cmd.render(),
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
}

impl Plan {
    pub fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// A line a step; pasted into a shell, they do what the plan does.
    pub fn render(&self) -> String {
        self.steps.iter().map(|step| step.render() + "\n").collect()
    }
}

/// A word as a POSIX shell wants it.
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
