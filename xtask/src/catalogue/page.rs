//! Holds docs/troubleshooting.md to the catalogue: the page is rendered from it. After a change:
//!
//! ```sh
//! cargo test -p xtask --bin xtask -- --ignored write_the_troubleshooting
//! ```

use std::{fmt::Write as _, fs};

use crate::{
    base::pages::{file, must_be, read},
    catalogue::{Entry, Part, of_part},
};

const PAGE: &str = "docs/troubleshooting.md";

const HEAD: &str = "\
# Troubleshooting

<!-- Made of xtask/src/catalogue: change it there, and write it as page.rs there says. -->

What `cargo xtask` knows of failures, by what is printed. Under a failure that it recognises it names
one of these codes; `cargo xtask explain disk-full` prints what is said here. On a terminal engines draw
their progress themselves, and what they print is not read: give its last line to
`cargo xtask explain \"no space left on device\"`. First of all: `cargo xtask doctor`, and `--verbose`,
which shows every command as it runs.

What xtask says itself, without an engine's words, is in [docker.md](docker.md#troubleshooting) and
[publishing.md](publishing.md#when-it-fails).
";

/// A failure that others know and that is impossible here: what it is, why it cannot be, and the test
/// that shows it, by its file and name.
struct Impossible {
    what: &'static str,
    why: &'static str,
    file: &'static str,
    test: &'static str,
}

const fn never(
    what: &'static str,
    why: &'static str,
    file: &'static str,
    test: &'static str,
) -> Impossible {
    Impossible {
        what,
        why,
        file,
        test,
    }
}

const IMPOSSIBLE: &[Impossible] = &[
    never(
        "Podman behind the name `docker` gets Docker's options (`Error: unrecognized command`, `unknown flag: --push`)",
        "engines are told apart by what they answer, not by their names, and each gets its own options",
        "xtask/tests/cli/detection.rs",
        "podman_posing_as_docker_is_used_as_podman",
    ),
    never(
        "a dead engine is chosen although the other works",
        "each is asked, with a time limit; one that does not answer is passed over",
        "xtask/tests/cli/detection.rs",
        "a_dead_docker_is_passed_over_for_a_living_podman",
    ),
    never(
        "`can't evaluate field … in type`: a template for one engine, read by the other",
        "engines are asked which they are for their whole answer in JSON",
        "xtask/src/engine/detect.rs",
        "podman_posing_as_docker_is_podman",
    ),
    never(
        "contexts and `DOCKER_HOST` are ignored",
        "only the engine's own command line is used, which takes them as always; `doctor` shows the address, and warns where one hides another",
        "xtask/src/engine/detect.rs",
        "remote_endpoints_are_seen",
    ),
    never(
        "Docker quietly builds with its old builder, which leaves `TARGETARCH` empty",
        "`DOCKER_BUILDKIT=1` is set, so that a missing buildx fails aloud",
        "xtask/tests/cli/detection.rs",
        "a_build_without_buildx_fails_aloud_with_the_fix",
    ),
    never(
        "`HEALTHCHECK is not supported for OCI image format and will be ignored`",
        "Podman builds with `--format docker`",
        "xtask/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    never(
        "health stays `starting` for ever, as with Podman without systemd",
        "`run-local`, `status` and `test-image` run the check themselves",
        "xtask/tests/cli/commands.rs",
        "run_local_waits_until_the_check_passes",
    ),
    never(
        "`No output specified with docker-container driver. Build result will only remain in the build cache`",
        "every build for several platforms writes an archive, or with `--load` the engine's store",
        "xtask/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    never(
        "`podman build --output=type=registry` exits with 0 and pushes nothing",
        "engines push nothing: xtask pushes the archive, and looks at what the registry then holds",
        "xtask/tests/e2e/main.rs",
        "docker_and_podman_publish_alike",
    ),
    never(
        "Podman's manifest lists: one architecture is pushed, `that name is already in use`, `image is not a manifest list`, an old image stays in the list",
        "the list has a name of ours, is removed before and after, and is written out with `--all`",
        "xtask/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    never(
        "`MANIFEST_UNKNOWN` for a digest that was read from local JSON",
        "the digest is that of the bytes which were pushed, and they are read back",
        "xtask/tests/e2e/faults.rs",
        "what_the_registry_spoils_gets_no_tag",
    ),
    never(
        "an arm64 image that holds amd64 programs",
        "the header of each program and library is read before the image gets a tag; running it would prove nothing where an emulator is",
        "xtask/src/oci/verify/tests.rs",
        "amd64_programs_in_an_arm64_image_are_found",
    ),
    never(
        "`unknown/unknown` is taken for a platform",
        "that is how attestations are listed, and they are told from images; a channel's `provenance` says whether there are any",
        "xtask/src/oci/manifest.rs",
        "attestations_are_not_images",
    ),
    never(
        "a long build is lost to a token that may not push",
        "the registry is asked before the build; `ci-check` asks too, without one",
        "xtask/tests/cli/ci.rs",
        "a_token_that_may_not_push",
    ),
    never(
        "`manifest unknown` after a clean-up deleted what has no tag: the parts of an image for several platforms",
        "`clean` removes images of this machine, by name, and deletes nothing in a registry",
        "xtask/tests/cli/commands.rs",
        "clean_asks_or_wants_yes_and_never_forces",
    ),
    never(
        "`latest` moves backwards when an older line is patched",
        "a moving tag goes to the highest stable version that is released",
        "xtask/src/release/tags.rs",
        "a_patch_of_an_older_line_leaves_what_is_newer",
    ),
    never(
        "a retry overwrites a released tag",
        "a tag that names another image is refused; `--force` wants the tag typed",
        "xtask/tests/e2e/faults.rs",
        "a_released_tag_is_overwritten_only_by_who_types_it",
    ),
    never(
        "a push that breaks off leaves a tag on half an image",
        "tags come last, when all that they name is there and was looked at",
        "xtask/tests/e2e/faults.rs",
        "killed_at_any_moment_it_leaves_no_wrong_tag",
    ),
    never(
        "secrets in `ps` and in the engine's event log (`-e OPENAI_API_KEY=sk-…`)",
        "they are named in the arguments, and their values go by the environment or standard input",
        "xtask/tests/cli/talk.rs",
        "secrets_of_the_environment_reach_neither_arguments_nor_output",
    ),
    never(
        "`--network host` on macOS reaches the virtual machine, not the Mac",
        "there the network is a bridge, and `localhost` in addresses becomes the host's name",
        "xtask/src/engine/run.rs",
        "auto_is_host_here_and_bridge_elsewhere",
    ),
    never(
        "`type=gha` cache without a token, from a step with `run:`",
        "what it lacks is said, and the cache in the registry is taken",
        "xtask/tests/cli/publish.rs",
        "caches_are_named_in_each_engines_words",
    ),
    never(
        "`repository must contain neither a tag nor digest` of Podman's `--cache-from`",
        "Podman gets a bare repository",
        "xtask/tests/cli/publish.rs",
        "caches_are_named_in_each_engines_words",
    ),
];

fn render() -> String {
    let mut out = HEAD.to_owned();
    for part in Part::ALL {
        let _ = writeln!(
            out,
            "\n## {}\n\n| Code | What it is |\n|---|---|",
            part.heading()
        );
        for Entry { code, title, .. } in of_part(*part) {
            let _ = writeln!(out, "| [`{code}`](#{code}) | {title} |");
        }
        for entry in of_part(*part) {
            out += &section(entry);
        }
    }
    out += "\n## What cannot happen here, and why\n\n\
            | Others see | Not here, because | Shown by |\n|---|---|---|\n";
    for one in IMPOSSIBLE {
        let _ = writeln!(
            out,
            "| {} | {} | [{}](../{}) |",
            one.what, one.why, one.test, one.file
        );
    }
    out
}

fn section(entry: &Entry) -> String {
    let mut out = format!("\n### {}\n\n", entry.code);
    let seen: Vec<_> = entry
        .seen()
        .iter()
        .map(|text| format!("`{text}`"))
        .collect();
    let mut title = entry.title.chars();
    let first = title.next().map(|c| c.to_uppercase().to_string());
    let _ = write!(out, "**{}{}.**", first.unwrap_or_default(), title.as_str());
    if !seen.is_empty() {
        let _ = write!(out, " Seen as {}.", seen.join(", or "));
    }
    let _ = writeln!(out, "\n\n{}\n", entry.cause);
    for fix in entry.fix {
        let _ = writeln!(out, "- {fix}");
    }
    let _ = writeln!(out, "\nDoes trying again help? {}.", entry.retry.describe());
    let links: Vec<_> = entry
        .links
        .iter()
        .map(|link| match link.strip_prefix("docs/") {
            Some(page) => format!("[{page}]({page})"),
            None => format!("[{}]({link})", link.trim_start_matches("https://")),
        })
        .collect();
    if !links.is_empty() {
        let _ = writeln!(out, "\nSee also: {}.", links.join(", "));
    }
    out
}

#[test]
fn the_page_is_the_catalogues() {
    must_be(PAGE, &render(), file!());
}

#[test]
#[ignore = "writes docs/troubleshooting.md"]
fn write_the_troubleshooting() {
    fs::write(file(PAGE), render()).unwrap();
}

#[test]
fn the_tests_that_the_page_names_are_there() {
    for one in IMPOSSIBLE {
        let head = format!("#[test]\nfn {}() {{", one.test);
        let text = read(one.file).replace("\n    ", "\n");
        assert!(text.contains(&head), "{}: {}", one.file, one.test);
    }
}
