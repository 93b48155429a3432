//! Workflow commands of GitHub Actions: groups in the log, and annotations of lines in files.
//! <https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands>

use crate::base::{env::Env, error::Failure};

/// Whether xtask runs in a step of GitHub Actions.
pub fn is_active(env: &Env) -> bool {
    env.get("GITHUB_ACTIONS") == Some("true")
}

/// A failure as an annotation. If the builder names a line of the Dockerfile, the annotation has that line.
pub fn annotation(failure: &Failure, dockerfile: Option<&str>) -> String {
    let line = dockerfile_line(failure.output());
    let location = dockerfile.zip(line).map_or(String::new(), |(file, line)| {
        format!(" file={file},line={line}")
    });
    let message = std::iter::once(failure.to_string())
        .chain(failure.hint_lines().iter().cloned())
        .collect::<Vec<_>>()
        .join("\n");
    format!("::error{location}::{}", escaped(&message))
}

/// The line of the Dockerfile that failed. BuildKit prints `Dockerfile:12` above an excerpt of the file.
fn dockerfile_line(output: &str) -> Option<u32> {
    let mut lines = output.lines().zip(output.lines().skip(1));
    lines.find_map(|(line, next)| {
        let number = line.trim().rsplit_once("ockerfile:")?.1.parse().ok();
        number.filter(|_| next.trim().starts_with("----"))
    })
}

/// Escapes a message, because a workflow command is a single line. <https://github.com/actions/toolkit/blob/main/packages/core/src/command.ts>
fn escaped(message: &str) -> String {
    message
        .replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_names_the_line_of_the_dockerfile() {
        let output = "#9 ERROR: process \"/bin/sh -c false\" did not complete successfully: exit code: 1\n\
                    ------\n > [runtime 2/3] RUN false:\n------\nDockerfile:12\n--------------------\n  11 |     \n  12 | >>> RUN false\n";
        let failure = Failure::new("`docker buildx` failed with exit code 1")
            .hint("look at 100%")
            .with_output(output.to_owned());
        assert_eq!(
            annotation(&failure, Some("Dockerfile")),
            "::error file=Dockerfile,line=12::`docker buildx` failed with exit code 1%0Alook at 100%25"
        );
        assert_eq!(annotation(&Failure::new("x"), None), "::error::x");
    }
}
