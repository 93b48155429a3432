//! The provenance of an image: how it was built, as far as xtask knows it. <https://slsa.dev/spec/v1.1/provenance>

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    base::{env::Env, github},
    engine::label,
    oci::{image_config::ImageConfig, verify::Verified},
    release::expected::REVISION_LABEL,
    settings::Settings,
};

/// The page that explains the parameters.
const BUILD_TYPE: &str =
    "https://github.com/stigmer/agent-runner/blob/main/docs/publishing.md#the-provenance";
/// The builder of an image that no CI published.
const UNKNOWN_BUILDER: &str =
    "https://github.com/stigmer/agent-runner/blob/main/docs/publishing.md#an-unknown-machine";
const SOURCE_LABEL: &str = "org.opencontainers.image.source";

/// `config` is the configuration of one of the image's platforms. They all have the same labels.
pub fn render(settings: &Settings, env: &Env, image: &Verified, config: &ImageConfig) -> Value {
    let label = |name| config.label(name).unwrap_or_default();
    let mut dependencies = Vec::new();
    let revision = label(REVISION_LABEL);
    let source = label(SOURCE_LABEL);
    if source.contains("://") && is_commit(revision) {
        dependencies.push(json!({
            "uri": format!("git+{source}@{revision}"),
            "digest": { "gitCommit": revision },
        }));
    }
    let bases = image.platforms.iter().filter_map(|one| one.base.as_deref());
    let bases: BTreeSet<_> = bases.collect();
    for (name, digest) in bases.iter().filter_map(|base| base.split_once('@')) {
        let hex = digest.trim_start_matches("sha256:");
        dependencies
            .push(json!({ "uri": format!("docker://{name}"), "digest": { "sha256": hex } }));
    }
    let (builder, run) = builder(env);
    let mut details = json!({ "builder": { "id": builder } });
    if let Some(run) = run {
        details["metadata"] = json!({ "invocationId": run });
    }
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "repository": label(label::IMAGE),
                "version": settings.version.value.to_string(),
                "channel": settings.channel.name,
                "source": source,
                "revision": revision,
                "platforms": image.platform_names(),
                "dockerfile": settings.build.dockerfile,
                "target": settings.build.target,
            },
            "resolvedDependencies": dependencies,
        },
        "runDetails": details,
    })
}

/// Whether the label names a commit, and not a changed work tree.
fn is_commit(revision: &str) -> bool {
    matches!(revision.len(), 40 | 64) && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Who published the image, and in which run.
fn builder(env: &Env) -> (String, Option<String>) {
    let get = |name| env.get(name).unwrap_or_default();
    if github::is_active(env)
        && let Some(workflow) = env.get("GITHUB_WORKFLOW_REF")
    {
        let server = env.get("GITHUB_SERVER_URL").unwrap_or("https://github.com");
        let run = format!(
            "{server}/{}/actions/runs/{}/attempts/{}",
            get("GITHUB_REPOSITORY"),
            get("GITHUB_RUN_ID"),
            get("GITHUB_RUN_ATTEMPT")
        );
        return (format!("{server}/{workflow}"), Some(run));
    }
    for (project, run) in [
        ("CI_PROJECT_URL", "CI_JOB_URL"),
        ("BUILDKITE_PIPELINE_URL", "BUILDKITE_BUILD_URL"),
    ] {
        if let (Some(project), Some(run)) = (env.get(project), env.get(run)) {
            return (project.to_owned(), Some(run.to_owned()));
        }
    }
    (UNKNOWN_BUILDER.to_owned(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::files::Files, oci::verify::VerifiedPlatform, settings::resolve::Arguments,
    };

    const COMMIT: &str = "3f1c0a9b7d523f1c0a9b7d523f1c0a9b7d523f1c";

    fn render_of(revision: &str, env: &Env) -> Value {
        let arguments = Arguments {
            version: Some("1.2.3".to_owned()),
            ..Arguments::default()
        };
        let files = Files {
            root: "/src".into(),
            project: "schema = 1\n".to_owned(),
            local: None,
        };
        let settings = Settings::resolve(&arguments, &Env::fake(&[]), &files).unwrap();
        let labels = json!({
            REVISION_LABEL: revision,
            SOURCE_LABEL: "https://github.com/x/y",
            label::IMAGE: "ghcr.io/x/y",
        });
        let config = json!({ "config": { "Labels": labels } });
        let image = Verified {
            digest: "sha256:1".to_owned(),
            media_type: String::new(),
            platforms: vec![VerifiedPlatform {
                platform: "linux/amd64".to_owned(),
                digest: "sha256:2".to_owned(),
                base: Some("docker.io/library/python:3.11-slim@sha256:3".to_owned()),
                compressed: 1,
                layers: None,
            }],
        };
        let config = serde_json::from_value(config).unwrap();
        render(&settings, env, &image, &config)
    }

    #[test]
    fn a_job_of_github_actions_is_the_builder() {
        let env = Env::fake(&[
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "x/y"),
            ("GITHUB_RUN_ATTEMPT", "2"),
            ("GITHUB_RUN_ID", "77"),
            ("GITHUB_SERVER_URL", "https://github.example.com"),
            (
                "GITHUB_WORKFLOW_REF",
                "x/y/.github/workflows/release.yml@refs/tags/v1.2.3",
            ),
        ]);
        let document = render_of(COMMIT, &env);
        assert_eq!(
            document["runDetails"],
            json!({
                "builder": { "id": "https://github.example.com/x/y/.github/workflows/release.yml@refs/tags/v1.2.3" },
                "metadata": { "invocationId": "https://github.example.com/x/y/actions/runs/77/attempts/2" },
            })
        );
        assert_eq!(
            document["buildDefinition"],
            json!({
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "repository": "ghcr.io/x/y",
                    "version": "1.2.3",
                    "channel": "release",
                    "source": "https://github.com/x/y",
                    "revision": COMMIT,
                    "platforms": ["linux/amd64"],
                    "dockerfile": "Dockerfile",
                    "target": "",
                },
                "resolvedDependencies": [
                    {
                        "uri": format!("git+https://github.com/x/y@{COMMIT}"),
                        "digest": { "gitCommit": COMMIT },
                    },
                    {
                        "uri": "docker://docker.io/library/python:3.11-slim",
                        "digest": { "sha256": "3" },
                    },
                ],
            })
        );
    }

    #[test]
    fn a_changed_work_tree_is_no_dependency() {
        let document = render_of(&format!("{COMMIT}-dirty"), &Env::fake(&[]));
        let definition = &document["buildDefinition"];
        let dependencies = definition["resolvedDependencies"].as_array().unwrap();
        let is_source = |one: &Value| one["digest"]["gitCommit"].is_string();
        assert!(!dependencies.iter().any(is_source), "{dependencies:?}");
        assert_eq!(
            document["runDetails"],
            json!({ "builder": { "id": UNKNOWN_BUILDER } })
        );
    }
}
