//! The instructions of a Dockerfile. <https://docs.docker.com/reference/dockerfile/#format>

use std::{collections::BTreeSet, path::PathBuf};

/// Instructions, each on one line, without comments.
pub struct Instructions(Vec<String>);

impl Instructions {
    pub fn of(dockerfile: &str) -> Self {
        let mut all = Vec::new();
        let mut instruction = String::new();
        for line in dockerfile.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(continued) = line.strip_suffix('\\') {
                instruction += continued;
                instruction.push(' ');
            } else {
                all.push(std::mem::take(&mut instruction) + line);
            }
        }
        Self(all)
    }

    /// One instruction on each line.
    pub fn text(&self) -> String {
        self.0.join("\n")
    }

    /// The names of all `ARG` instructions.
    pub fn arguments(&self) -> BTreeSet<&str> {
        let args = self.0.iter().filter_map(|line| words_after("ARG", line));
        args.flatten()
            .map(|word| word.split('=').next().unwrap_or(word))
            .collect()
    }

    /// The instructions up to the end of a stage. None if there is no such stage, or if the target is not one
    /// of the stages after it. An empty target is the last stage.
    pub fn up_to_the_end_of(&self, stage: &str, target: &str) -> Option<Self> {
        let names: Vec<_> = self.0.iter().map(|line| stage_name(line)).collect();
        let start = names.iter().position(|name| *name == Some(stage))?;
        let mut after = self.0.iter().skip(start + 1);
        let end = start + 1 + after.position(|line| words_after("FROM", line).is_some())?;
        let is_after = target.is_empty() || names[end..].contains(&Some(target));
        is_after.then(|| Self(self.0[..end].to_vec()))
    }

    /// The images that the stages start from, as they are written, without the names of other stages.
    pub fn images(&self) -> BTreeSet<&str> {
        let mut stages = BTreeSet::new();
        let mut images = BTreeSet::new();
        for line in &self.0 {
            let Some(mut words) = words_after("FROM", line) else {
                continue;
            };
            let image = words.find(|word| !word.starts_with("--")).unwrap_or("");
            if !stages.contains(image) {
                images.insert(image);
            }
            stages.extend(stage_name(line));
        }
        images
    }

    /// Whether files are copied or mounted from an image that is not one of these stages.
    pub fn copies_from_other_images(&self) -> bool {
        let mut stages = BTreeSet::new();
        for line in &self.0 {
            let words = line.split_whitespace();
            let mut sources = words.filter_map(|word| {
                let options = word.strip_prefix("--mount=").map(|mount| mount.split(','));
                let mut of_mount = options.into_iter().flatten();
                word.strip_prefix("--from=")
                    .or_else(|| of_mount.find_map(|option| option.strip_prefix("from=")))
            });
            if sources.any(|source| !stages.contains(source)) {
                return true;
            }
            stages.extend(stage_name(line));
        }
        false
    }

    /// The paths that the instructions take from the context. None if the text alone does not tell them.
    pub fn context_paths(&self) -> Option<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for line in &self.0 {
            let has_here_document = line.contains("<<");
            let is_bind_mount = words_after("RUN", line)
                .is_some_and(|mut words| words.any(is_bind_mount_of_the_context));
            if has_here_document || is_bind_mount {
                return None;
            }
            let copied = words_after("COPY", line).or_else(|| words_after("ADD", line));
            let words: Vec<_> = copied.into_iter().flatten().collect();
            if words.iter().any(|word| word.starts_with("--from=")) {
                continue;
            }
            let mut words = words.into_iter().filter(|word| !word.starts_with("--"));
            words.next_back(); // the destination
            for path in words {
                let is_whole_context = path.trim_matches(['.', '/']).is_empty();
                if is_whole_context || path.contains(['$', '*', '?', '[', ':', '"']) {
                    return None;
                }
                paths.push(PathBuf::from(path.trim_start_matches('/')));
            }
        }
        Some(paths)
    }
}

/// The words after the instruction's name, if the line has that instruction.
fn words_after<'a>(name: &str, line: &'a str) -> Option<std::str::SplitWhitespace<'a>> {
    let mut words = line.split_whitespace();
    let is_it = words.next()?.eq_ignore_ascii_case(name);
    is_it.then_some(words)
}

/// The name of the stage that an instruction begins: `FROM image AS name`.
fn stage_name(line: &str) -> Option<&str> {
    let mut words = words_after("FROM", line)?;
    words.find(|word| word.eq_ignore_ascii_case("AS"))?;
    words.next()
}

/// Whether an option mounts files of the context: a mount has the type `bind` if it names no other.
fn is_bind_mount_of_the_context(word: &str) -> bool {
    let others = [
        "type=cache",
        "type=secret",
        "type=ssh",
        "type=tmpfs",
        "from=",
    ];
    word.starts_with("--mount=") && !others.iter().any(|other| word.contains(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "ARG BASE=a B\n\
        FROM --platform=$BUILDPLATFORM ${BASE} AS tools # not a comment\n\
        copy --chown=1:1 one two/ \\\n\
        # a comment between the lines\n\
        three /x/\n\
        RUN --mount=type=cache,target=/c --mount=type=bind,from=other,target=/t true\n\
        FROM scratch as Half\n\
        COPY --from=tools /x /\n\
        FROM tools\n\
        COPY . /\n\
        FROM Half AS end\n";

    fn upper_half() -> Instructions {
        let all = Instructions::of(TEXT);
        all.up_to_the_end_of("Half", "").unwrap()
    }

    #[test]
    fn a_part_ends_with_its_stage() {
        let part = upper_half();
        assert!(
            part.text().ends_with("\nCOPY --from=tools /x /"),
            "{}",
            part.text()
        );
        let all = Instructions::of(TEXT);
        let exists = |stage, target| all.up_to_the_end_of(stage, target).is_some();
        assert!(exists("Half", "end"));
        assert!(!exists("Half", "tools"), "the target is before the end");
        assert!(!exists("Half", "Half"), "the target is the stage itself");
        assert!(!exists("end", ""), "nothing comes after the stage");
        assert!(!exists("none", ""));
    }

    #[test]
    fn images_and_arguments_are_listed() {
        let part = upper_half();
        assert_eq!(part.images(), ["${BASE}", "scratch"].into());
        assert_eq!(part.arguments(), ["BASE", "B"].into());
        let all = Instructions::of(TEXT);
        assert_eq!(all.images(), part.images(), "names of stages are no images");
    }

    #[test]
    fn other_images_are_found() {
        let copies = |text: &str| Instructions::of(text).copies_from_other_images();
        let stage = "FROM a AS one\nFROM scratch\n";
        assert!(!copies(&format!(
            "{stage}COPY --from=one /x /\nRUN --mount=type=bind,from=one,target=/t true\n"
        )));
        assert!(copies(&format!("{stage}COPY --from=two /x /\n")));
        assert!(copies(&format!(
            "{stage}COPY --from=example.com/uv:latest /x /\n"
        )));
        assert!(copies(&format!(
            "{stage}RUN --mount=from=alpine,target=/t true\n"
        )));
    }

    #[test]
    fn paths_of_the_context_are_listed() {
        let paths = |text: &str| Instructions::of(text).context_paths();
        let found = upper_half().context_paths().unwrap();
        assert_eq!(found, ["one", "two/", "three"].map(PathBuf::from));
        assert_eq!(paths("ADD /a.txt /b/\n"), Some(vec!["a.txt".into()]));
        for unknown in [
            "COPY . /\n",
            "COPY ./ /\n",
            "COPY $A /\n",
            "COPY a* /\n",
            "COPY [\"a\", \"/\"]\n",
            "ADD https://example.com/a /\n",
            "COPY <<EOF /a\nx\nEOF\n",
            "RUN <<EOF\nx\nEOF\n",
            "RUN --mount=target=/src make\n",
            "RUN --mount=type=bind,source=a,target=/a make\n",
        ] {
            assert_eq!(paths(unknown), None, "{unknown}");
        }
    }
}
