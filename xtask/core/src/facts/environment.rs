//! The runner's environment: which value each variable has in the container, and where it comes from.

use std::path::PathBuf;

use crate::{
    base::{env::Env, error::Failure},
    config::layer::Origin,
    settings::Settings,
};

/// An environment file that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    pub path: String,
    pub lines: Vec<EnvLine>,
}

/// A line that sets a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvLine {
    pub number: usize,
    pub name: String,
    /// None for a line with only the name, which takes the value of the caller's environment.
    pub value: Option<String>,
}

impl EnvFile {
    /// The variable's value. Of two lines with the same name the later one counts. A line with only the name
    /// counts if the caller's variable has a value.
    fn get<'a>(&'a self, name: &str, env: &'a Env) -> Option<&'a str> {
        self.last(name, |line| match &line.value {
            Some(value) => Some(value.as_str()),
            None => env.get(name),
        })
    }

    /// The value that an engine takes from the file. It also takes an empty value of the caller's.
    pub fn engine_value<'a>(&'a self, name: &str, env: &'a Env) -> Option<&'a str> {
        self.last(name, |line| match &line.value {
            Some(value) => Some(value.as_str()),
            None => env.has(name).then(|| env.get(name).unwrap_or("")),
        })
    }

    /// Whether a line of the file gives the variable a value. A line with only the name does not.
    pub fn has_value(&self, name: &str) -> bool {
        self.last(name, |line| line.value.as_deref()).is_some()
    }

    fn last<'a>(
        &'a self,
        name: &str,
        value: impl Fn(&'a EnvLine) -> Option<&'a str>,
    ) -> Option<&'a str> {
        let lines = self.lines.iter().rev();
        lines.filter(|line| line.name == name).find_map(value)
    }
}

/// The longest line that Docker and Podman read. They refuse a longer one without its number.
const MAX_LINE: usize = 65_535;

/// The path of the configured environment file, whether it exists or not.
pub fn env_file_path(settings: &Settings, env: &Env) -> Option<PathBuf> {
    let file = settings.env_file()?;
    let base = match file.origin {
        Origin::Flag(_) => &env.cwd,
        Origin::Default | Origin::File { .. } | Origin::Env(_) | Origin::Items(_) => &settings.root,
    };
    let path = env.expand(&file.value, base);
    Some(path.unwrap_or_else(|| PathBuf::from(&file.value)))
}

/// Reads the environment file. A file that xtask.toml names may be missing.
///
/// # Errors
/// When the file cannot be read, and when a flag or a variable names a file that is missing.
pub fn read_env_file(settings: &Settings, env: &Env) -> Result<Option<EnvFile>, Failure> {
    let (Some(file), Some(path)) = (settings.env_file(), env_file_path(settings, env)) else {
        return Ok(None);
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => parse_env_file(&path.to_string_lossy(), &text).map(Some),
        Err(error) => match file.origin {
            Origin::Default | Origin::File { .. }
                if error.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            Origin::Default
            | Origin::File { .. }
            | Origin::Env(_)
            | Origin::Flag(_)
            | Origin::Items(_) => Err(Failure::usage(format!(
                "cannot read the environment file `{}` (from {}): {error}",
                path.display(),
                file.origin
            ))),
        },
    }
}

/// Parses a file as both engines do: no quotes, no expansion. What they read differently is refused:
/// for `export A=1`, Docker fails and Podman sets a variable `export A`.
///
/// # Errors
/// The number of the first wrong line, and what is wrong.
pub fn parse_env_file(path: &str, text: &str) -> Result<EnvFile, Failure> {
    // The line itself may hold a secret, so only its number is shown.
    let wrong = |number, why| Err(Failure::usage(format!("`{path}:{number}`: {why}")));
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        if line.len() > MAX_LINE {
            return wrong(
                number,
                "has more than 65535 bytes, which engines do not read: set the variable in your environment, and name it in `run.pass-env`",
            );
        }
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.starts_with('\u{feff}') {
            return wrong(
                number,
                "begins with a byte order mark, which Docker removes and Podman does not: save the file as UTF-8 without one",
            );
        }
        if line.contains('\0') {
            return wrong(
                number,
                "contains a NUL, which no variable can have: save the file as UTF-8",
            );
        }
        if line.contains('\r') {
            return wrong(
                number,
                "contains a carriage return that does not end the line: save the file with the line ends of Linux or Windows",
            );
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = match line.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line, None),
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return wrong(
                number,
                "a line must be `NAME=value`, without `export`, spaces or quotes around the name",
            );
        }
        lines.push(EnvLine {
            number,
            name: name.to_owned(),
            value,
        });
    }
    Ok(EnvFile {
        path: path.to_owned(),
        lines,
    })
}

/// Warnings about values that look as if a shell would read the file. Engines take quotes and inline
/// comments literally. The values themselves may be secrets, so they are not shown.
pub fn env_file_warnings(file: &EnvFile) -> Vec<String> {
    let path = &file.path;
    let quoted = |value: &str| {
        ['"', '\''].iter().any(|quote| {
            value.len() > 1 && value.starts_with(*quote) && value.trim_end().ends_with(*quote)
        })
    };
    let warning = |EnvLine {
                       number,
                       name,
                       value,
                   }: &EnvLine| {
        let value = value.as_deref().unwrap_or_default();
        if quoted(value) {
            Some(format!(
                "`{path}:{number}`: the quotes around the value of {name} become part of it: remove them"
            ))
        } else if value.contains(" #") || value.contains("\t#") {
            Some(format!(
                "`{path}:{number}`: the text after ` #` becomes part of the value of {name}: write the comment on a line of its own"
            ))
        } else {
            None
        }
    };
    file.lines.iter().filter_map(warning).collect()
}

/// Where the value of a variable in the container comes from. An earlier source overrides a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The scripted model of `up`.
    Scripted,
    /// `--env NAME=value`.
    Flag,
    /// The environment of xtask, by `run.pass-env` or `--env NAME`.
    Passed,
    EnvFile,
    /// `run.env`.
    Fixed,
}

/// The runner's environment.
#[derive(Clone, Copy)]
pub struct RunnerEnv<'a> {
    pub settings: &'a Settings,
    pub env: &'a Env,
    pub file: Option<&'a EnvFile>,
    /// The variables of the scripted model; empty if the runner does not use it.
    pub scripted: &'a [(&'static str, String)],
}

impl<'a> RunnerEnv<'a> {
    /// The value that the runner sees for a variable, and its source.
    pub fn get(&self, name: &str) -> Option<(&'a str, Source)> {
        if let Some((_, value)) = self.scripted.iter().find(|(other, _)| *other == name) {
            return Some((value, Source::Scripted));
        }
        let run = &self.settings.run;
        let fixed = run.env.get(name).map(String::as_str);
        let typed = self
            .settings
            .layer
            .get(&format!("run.env.{name}"))
            .is_some_and(|sourced| matches!(sourced.origin, Origin::Flag(_)));
        if typed {
            return fixed.map(|value| (value, Source::Flag));
        }
        let is_passed = run.pass_env.iter().any(|pass| pass == name) && self.env.has_value(name);
        if is_passed {
            return Some((self.env.get(name).unwrap_or(""), Source::Passed));
        }
        let in_file = self.file.and_then(|file| file.get(name, self.env));
        let in_file = in_file.map(|value| (value, Source::EnvFile));
        in_file.or(fixed.map(|value| (value, Source::Fixed)))
    }

    /// The value that the runner sees, if it is not empty.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let (value, _) = self.get(name)?;
        Some(value).filter(|value| !value.is_empty())
    }

    /// The place of a source, for a message.
    pub fn place_of(&self, source: Source) -> String {
        match source {
            Source::Scripted => "`up`".to_owned(),
            Source::Flag => "`--env`".to_owned(),
            Source::Passed => "your environment".to_owned(),
            Source::EnvFile => self
                .settings
                .env_file()
                .map_or_else(String::new, |file| file.value),
            Source::Fixed => "`run.env`".to_owned(),
        }
    }

    /// The variables of `run.addresses` that have a value, with that value.
    pub fn addresses(&self) -> Vec<(&'a str, &'a str)> {
        let addresses = self.settings.run.addresses.iter();
        addresses
            .filter_map(|name| Some((name.as_str(), self.value(name)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::files::Files, settings::resolve::Arguments};

    #[test]
    fn an_earlier_source_overrides_a_later_one() {
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n[run]\npass-env = ['A', 'B', 'C']\n[run.env]\nA = 'fixed'\nB = 'fixed'\nD = 'fixed'\nE = 'fixed'\n".to_owned(),
            local: None,
        };
        let env = Env::fake(&[("A", "passed"), ("E", "not passed")]);
        let mut arguments = Arguments::default();
        let file = parse_env_file("f", "A=file\nB=file\nC=file\nD=file\nD=later\n").unwrap();
        let settings = Settings::resolve(&arguments, &env, &files).unwrap();
        let get = |settings: &Settings, name: &str| {
            let runner = RunnerEnv {
                settings,
                env: &env,
                file: Some(&file),
                scripted: &[],
            };
            runner
                .get(name)
                .map(|(value, source)| (value.to_owned(), source))
        };
        let is = |value: &str, source| Some((value.to_owned(), source));
        assert_eq!(get(&settings, "A"), is("passed", Source::Passed));
        assert_eq!(get(&settings, "B"), is("file", Source::EnvFile));
        assert_eq!(get(&settings, "C"), is("file", Source::EnvFile));
        assert_eq!(get(&settings, "D"), is("later", Source::EnvFile));
        assert_eq!(get(&settings, "E"), is("fixed", Source::Fixed));
        assert_eq!(get(&settings, "F"), None);
        arguments.overrides = crate::cli::Overrides::default()
            .add("run.env", "--env", vec!["A=typed".to_owned()])
            .list;
        let settings = Settings::resolve(&arguments, &env, &files).unwrap();
        assert_eq!(get(&settings, "A"), is("typed", Source::Flag));
    }

    #[test]
    fn quotes_and_inline_comments_are_warned_about() {
        let file = parse_env_file("f", "A=\"x\"\nB='y' \nC=z # note\nD=a#b\nE=it's\n").unwrap();
        let warnings = env_file_warnings(&file);
        let names: Vec<_> = ["A", "B", "C"]
            .iter()
            .map(|name| format!(" {name}"))
            .collect();
        assert_eq!(warnings.len(), 3, "{warnings:?}");
        for ((number, warning), name) in (1..).zip(&warnings).zip(names) {
            assert!(warning.starts_with(&format!("`f:{number}`: ")), "{warning}");
            assert!(warning.contains(&format!("value of{name}")), "{warning}");
        }
    }

    #[test]
    fn environment_files_are_read_as_engines_read_them() {
        let file = parse_env_file(".env", "# note\n\nA=1\r\n  B=x=y \nC\n").unwrap();
        let values: Vec<_> = file
            .lines
            .iter()
            .map(|line| (line.number, line.name.as_str(), line.value.as_deref()))
            .collect();
        assert_eq!(
            values,
            [(3, "A", Some("1")), (4, "B", Some("x=y ")), (5, "C", None)]
        );
    }

    #[test]
    fn a_line_that_engines_do_not_read_is_refused_with_its_number() {
        let wrong = |text: &str| parse_env_file("f", text).unwrap_err().to_string();
        let longest = format!("A=1\nB={}", "x".repeat(MAX_LINE - 2));
        assert!(parse_env_file("f", &longest).is_ok());
        assert!(wrong(&format!("{longest}x\nC=1")).starts_with("`f:2`: has more than 65535 bytes"));
        assert!(wrong("A=1\nB=2\rC=3\r\n").starts_with("`f:2`: contains a carriage return"));
    }

    #[test]
    fn a_line_that_engines_read_differently_is_refused_without_its_value() {
        let error = parse_env_file(".env", "A=1\nexport KEY=sk-secret\n")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`.env:2`: a line must be `NAME=value`"),
            "{error}"
        );
        assert!(!error.contains("sk-secret"));
    }
}
