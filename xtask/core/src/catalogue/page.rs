//! Checks that docs/troubleshooting.md, which is generated from the catalogue, is up to date. After a change,
//! write the page again:
//!
//! ```sh
//! cargo test -p xtask-core --lib -- --ignored write_the_troubleshooting
//! ```

use std::{fmt::Write as _, fs};

use crate::{
    base::pages::{assert_page, read, repository_file},
    catalogue::{Entry, Section, entries_in},
};

const PAGE: &str = "docs/troubleshooting.md";

const HEAD: &str = "\
# Troubleshooting

<!-- Generated from xtask/core/src/catalogue. Change the entries there, and write this page with the command in page.rs. -->

The failures that `cargo xtask` recognises in the output of other programs. Under the error, a hint names
one of these codes. `cargo xtask explain disk-full` prints the entry of `disk-full`. On a terminal, engines
draw their progress themselves, so xtask cannot read their output. Then look up the last line yourself:
`cargo xtask explain \"no space left on device\"`.

For other problems, begin with `cargo xtask doctor`, or add `--verbose` to see every command that runs.
[docker.md](docker.md#troubleshooting) and [publishing.md](publishing.md#when-it-fails) explain the errors
of xtask itself.
";

/// A failure that other tools have and that xtask prevents.
struct PreventedFailure {
    failure: &'static str,
    prevention: &'static str,
    /// The file and name of the test that proves it.
    file: &'static str,
    test: &'static str,
}

const fn prevented(
    failure: &'static str,
    prevention: &'static str,
    file: &'static str,
    test: &'static str,
) -> PreventedFailure {
    PreventedFailure {
        failure,
        prevention,
        file,
        test,
    }
}

const PREVENTED_FAILURES: &[PreventedFailure] = &[
    prevented(
        "Podman installed as `docker` gets Docker's options (`Error: unrecognized command`, `unknown flag: --push`)",
        "xtask detects the engine by its answer, not by its program's name",
        "xtask/tests/cli/detection.rs",
        "podman_installed_as_docker_is_used_as_podman",
    ),
    prevented(
        "An engine that does not work is chosen although the other one works",
        "xtask uses the first engine that answers within a time limit",
        "xtask/tests/cli/detection.rs",
        "an_engine_that_replaces_a_late_one_is_named",
    ),
    prevented(
        "`can't evaluate field … in type`: an engine gets a template for the other engine",
        "xtask asks for the whole answer as JSON, without a template that selects fields",
        "xtask/core/src/engine/detect.rs",
        "podman_behind_the_name_docker_is_detected",
    ),
    prevented(
        "Contexts and `DOCKER_HOST` are ignored",
        "xtask uses the engine's own command line, which reads them; `doctor` prints the endpoint, and warns if one setting overrides another",
        "xtask/core/src/engine/detect.rs",
        "remote_endpoints_are_detected",
    ),
    prevented(
        "Docker silently uses its legacy builder, which leaves `TARGETARCH` empty",
        "xtask sets `DOCKER_BUILDKIT=1`, so the build fails if buildx is missing",
        "xtask/tests/cli/detection.rs",
        "a_build_without_buildx_fails_with_a_hint",
    ),
    prevented(
        "`HEALTHCHECK is not supported for OCI image format and will be ignored`",
        "Podman builds with `--format docker`",
        "xtask/core/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    prevented(
        "The health stays `starting`, as with Podman without systemd",
        "`run-local`, `status` and `test-image` run the health check themselves",
        "xtask/tests/cli/commands.rs",
        "run_local_waits_until_the_health_check_passes",
    ),
    prevented(
        "`No output specified with docker-container driver. Build result will only remain in the build cache`",
        "every multi-platform build writes an archive or, with `--load`, to the engine's store",
        "xtask/core/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    prevented(
        "`podman build --output=type=registry` exits with 0 and pushes nothing",
        "engines push nothing: xtask pushes the archive, and verifies what the registry then has",
        "xtask/tests/e2e/main.rs",
        "docker_and_podman_publish_equal_images",
    ),
    prevented(
        "Podman's manifest lists: only one architecture is pushed, `that name is already in use`, `image is not a manifest list`, an old image remains in the list",
        "the list has a name that only xtask uses, is removed before and after the build, and is written with `--all`",
        "xtask/core/src/commands/snapshots.rs",
        "every_command_on_every_machine",
    ),
    prevented(
        "`MANIFEST_UNKNOWN` for a digest that was read from local JSON",
        "xtask computes the digest from the pushed bytes, and reads them back from the registry",
        "xtask/tests/e2e/faults.rs",
        "a_corrupted_blob_gets_no_tag",
    ),
    prevented(
        "An arm64 image contains amd64 programs",
        "xtask reads the header of each program and library before the image gets a tag; running the image would not detect it on a machine with an emulator",
        "xtask/core/src/oci/verify/tests.rs",
        "amd64_programs_in_an_arm64_image_are_found",
    ),
    prevented(
        "`unknown/unknown` is listed as a platform",
        "xtask builds without attestations in the index, and distinguishes those of other tools, which have this platform, from images",
        "xtask/core/src/oci/manifest.rs",
        "attestations_are_not_images",
    ),
    prevented(
        "A long build is lost because the token cannot push",
        "xtask checks the permission before the build; `ci-check` checks it without a build",
        "xtask/tests/cli/ci.rs",
        "a_token_without_permission_to_push",
    ),
    prevented(
        "`manifest unknown` after a cleanup of untagged manifests, which are the platforms of a multi-platform image",
        "`clean` removes only images of this machine, by name, and deletes nothing from a registry",
        "xtask/tests/cli/commands.rs",
        "clean_requires_confirmation_and_never_forces",
    ),
    prevented(
        "`latest` moves to an older version when an old release line is patched",
        "a moving tag always refers to the highest stable version",
        "xtask/core/src/release/tags.rs",
        "an_older_patch_does_not_move_the_tags_of_newer_versions",
    ),
    prevented(
        "A retry overwrites a released tag",
        "xtask does not move a tag that refers to another image; `--force` requires that you type the tag",
        "xtask/tests/e2e/faults.rs",
        "overwriting_a_released_tag_requires_typing_it",
    ),
    prevented(
        "An interrupted push leaves a tag on an incomplete image",
        "xtask writes tags last, after it has verified the pushed image",
        "xtask/tests/e2e/faults.rs",
        "a_killed_push_leaves_no_wrong_tag",
    ),
    prevented(
        "Secrets appear in `ps` and in the engine's event log (`-e OPENAI_API_KEY=sk-…`)",
        "arguments have only the names of secrets; the values are passed in the environment or on standard input",
        "xtask/tests/cli/messages.rs",
        "secrets_are_neither_in_arguments_nor_in_output",
    ),
    prevented(
        "`--network host` on macOS reaches the virtual machine, not the Mac",
        "on macOS the network is a bridge, and `localhost` in addresses is replaced by the host's name",
        "xtask/core/src/engine/run.rs",
        "the_automatic_network_is_host_on_the_host_and_bridge_in_a_virtual_machine",
    ),
    prevented(
        "The `type=gha` cache has no token in a step with `run:`",
        "xtask warns about the missing variables, and uses the cache in the registry",
        "xtask/tests/cli/publish.rs",
        "each_engine_gets_its_own_cache_options",
    ),
    prevented(
        "`repository must contain neither a tag nor digest` of Podman's `--cache-from`",
        "xtask passes Podman a repository without a tag",
        "xtask/tests/cli/publish.rs",
        "each_engine_gets_its_own_cache_options",
    ),
];

fn render() -> String {
    let mut out = HEAD.to_owned();
    for section in Section::ALL {
        let _ = writeln!(
            out,
            "\n## {}\n\n| Code | Failure |\n|---|---|",
            section.heading()
        );
        for Entry { code, title, .. } in entries_in(*section) {
            let _ = writeln!(out, "| [`{code}`](#{code}) | {title} |");
        }
        for entry in entries_in(*section) {
            out += &render_entry(entry);
        }
    }
    out += "\n## Failures that xtask prevents\n\n\
            | Failure of other tools | How xtask prevents it | Test |\n|---|---|---|\n";
    for one in PREVENTED_FAILURES {
        let _ = writeln!(
            out,
            "| {} | {} | [{}](../{}) |",
            one.failure, one.prevention, one.test, one.file
        );
    }
    out
}

fn render_entry(entry: &Entry) -> String {
    let mut out = format!("\n### {}\n\n", entry.code);
    let patterns: Vec<_> = entry
        .pattern_texts()
        .iter()
        .map(|text| format!("`{text}`"))
        .collect();
    let mut title = entry.title.chars();
    let first = title.next().map(|c| c.to_uppercase().to_string());
    let _ = write!(out, "**{}{}.**", first.unwrap_or_default(), title.as_str());
    if !patterns.is_empty() {
        let _ = write!(out, " Message: {}.", patterns.join(", or "));
    }
    let _ = writeln!(out, "\n\n{}\n", entry.cause);
    for fix in entry.fixes {
        let _ = writeln!(out, "- {fix}");
    }
    let _ = writeln!(out, "\nRetry: {}.", entry.retry.describe());
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
fn the_page_is_up_to_date() {
    assert_page(PAGE, &render(), file!());
}

#[test]
#[ignore = "writes docs/troubleshooting.md"]
fn write_the_troubleshooting() {
    fs::write(repository_file(PAGE), render()).unwrap();
}

#[test]
fn the_tests_on_the_page_exist() {
    for one in PREVENTED_FAILURES {
        let head = format!("#[test]\nfn {}() {{", one.test);
        let text = read(one.file).replace("\n    ", "\n");
        assert!(text.contains(&head), "{}: {}", one.file, one.test);
    }
}
