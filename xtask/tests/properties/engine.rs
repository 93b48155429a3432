//! The output of engines, and arbitrary output in its place.

use crate::{
    base::{engine_kind::EngineKind, env::Env},
    engine::{
        cache,
        capabilities::Capability,
        container,
        detect::{self, Here},
        image, label,
    },
    exec::finished::answer,
    properties::{assert_reason, text},
};

/// An engine is recognised by its answer, or rejected with a reason of one line. A failed command is not an
/// engine, and Docker's client on Podman's socket is not Docker.
pub fn version(input: &[u8]) {
    let text = text(input);
    let read = |code, stdout: &str, stderr: &str| {
        detect::read_version(
            "docker",
            &answer(code, stdout, stderr),
            Here {
                env: &Env::fake(&[]),
                kernel: "6.1",
            },
        )
    };
    match read(0, &text, "") {
        Ok((facts, _)) => {
            assert_eq!(facts.engine.program, "docker");
            assert!(!facts.describe().contains(char::is_control), "{facts:?}");
            let json: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
            let podman = json["Client"]["OsArch"].is_string();
            let kind = if podman {
                EngineKind::Podman
            } else {
                EngineKind::Docker
            };
            assert_eq!(facts.engine.kind, kind);
            assert!(kind == EngineKind::Podman || json["Server"].is_object());
            let parts = json["Server"]["Components"].as_array();
            let is_podmans = |part: &serde_json::Value| {
                let name = part["Name"].as_str();
                name.is_some_and(|name| name.contains("Podman"))
            };
            assert!(
                kind == EngineKind::Podman
                    || !parts.is_some_and(|parts| parts.iter().any(is_podmans))
            );
            let _ = (facts.major_minor(), facts.can(Capability::KeepIdWithIds));
        }
        Err(why) => assert_one_line(&why),
    }
    if let Err(why) = read(1, &text, &text) {
        assert_one_line(&why);
    }
    for output in [("", ""), ("{}", ""), ("null", &text)] {
        assert_one_line(&read(1, output.0, output.1).unwrap_err());
    }
}

/// The reason is one line, without control characters.
#[track_caller]
fn assert_one_line(why: &str) {
    assert_reason(why);
    assert!(!why.contains(char::is_control), "{why:?}");
}

/// A container is read, or the reason is reported. Only a successful answer describes a container. It belongs
/// to xtask if it has the label.
pub fn container(input: &[u8]) {
    let text = text(input);
    match container::read_inspect("podman", &answer(0, &text, "")) {
        Ok((_, Some(container))) => {
            assert!(container.id.starts_with(container.short_id()));
            let ours = container.label(label::CONTAINER).is_some();
            assert_eq!(container.owner() == container::Owner::Xtask, ours);
            assert!(!ours || text.contains("Labels"));
            let check = container.config.healthcheck.as_ref();
            let command = check.and_then(container::Healthcheck::command);
            assert!(command.is_none_or(|argv| !argv.is_empty()));
            assert_reason(&container.likely_creator());
        }
        Ok((_, None)) => assert_eq!(container::read_containers(&text), Ok(Vec::new())),
        Err(why) => assert_one_line(&why),
    }
    for code in [1, 125] {
        match container::read_inspect("docker", &answer(code, &text, &text)) {
            Ok((_, found)) => {
                assert_eq!(found, None);
                assert!(text.to_lowercase().contains("no such container"));
            }
            Err(why) => assert_one_line(&why),
        }
    }
}

/// Images are read, or the reason is reported.
pub fn image(input: &[u8]) {
    let text = text(input);
    match image::read_inspect(&answer(0, &text, "")) {
        Ok(images) => {
            for image in images {
                assert!(
                    image.id.ends_with(image.short_id()) || image.id.contains(image.short_id())
                );
                assert_eq!(
                    image.is_built_by_xtask(),
                    image.label(label::IMAGE).is_some()
                );
                assert!(image.health_command().is_none_or(|argv| !argv.is_empty()));
                let _ = image.platform();
            }
        }
        Err(why) => assert_one_line(&why),
    }
    let missing = answer(1, &text, "Error: No such image: x\n");
    match image::read_inspect(&missing) {
        Ok(_) => {}
        Err(why) => assert_one_line(&why),
    }
}

/// Listed ids are safe as arguments of the command that inspects them.
pub fn image_list(input: &[u8]) {
    for id in image::read_image_ids(&text(input)) {
        assert_safe_argument(&id);
    }
}

/// Listed cache mounts have one of our ids and a location. An empty filter would remove all cache mounts.
pub fn cache_mounts(input: &[u8]) {
    for mount in cache::read_cache_mounts(&text(input), "agent-runner") {
        assert!(
            cache::is_our_cache_id(&mount.id, "agent-runner"),
            "{mount:?}"
        );
        assert_safe_argument(&mount.location);
    }
}

#[track_caller]
fn assert_safe_argument(word: &str) {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    assert!(
        !word.is_empty() && !word.contains(bad) && !word.starts_with('-'),
        "{word:?}"
    );
}
