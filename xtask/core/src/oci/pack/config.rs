//! Changes to image configurations, so that the same content has the same digest.

use anyhow::{Context as _, Result, bail};

use crate::base::time::rfc3339;

/// Removes what differs from build to build and no engine reads: Docker's classic builder writes
/// the ID of the last step's container, and Buildah's history the ID of the image that each step
/// began with.
pub fn without_build_ids(config: &[u8]) -> Result<serde_json::Value> {
    let mut config: serde_json::Value =
        serde_json::from_slice(config).context("cannot read the image configuration")?;
    if let Some(config) = config.as_object_mut() {
        for name in ["container", "container_config", "parent", "id"] {
            config.remove(name);
        }
        if let Some(run) = config.get_mut("config").and_then(|run| run.as_object_mut()) {
            for name in ["Hostname", "Image"] {
                run.remove(name);
            }
        }
        let history = config
            .get_mut("history")
            .and_then(|steps| steps.as_array_mut());
        for step in history
            .into_iter()
            .flatten()
            .filter_map(|step| step.as_object_mut())
        {
            let comment = step.get("comment").and_then(|comment| comment.as_str());
            if comment.is_some_and(|comment| comment.starts_with("FROM ")) {
                step.remove("comment");
            }
        }
    }
    Ok(config)
}

/// What an image has from its base image.
#[derive(Debug, PartialEq, Eq)]
pub struct BaseImage {
    /// How many layers.
    pub layers: usize,
    /// How many steps in the history, with those that made no layer.
    pub steps: usize,
}

impl BaseImage {
    /// The steps at the beginning that are older than the timestamp, in seconds since 1970, are those of the base image.
    /// `BuildKit` gives the time in `SOURCE_DATE_EPOCH` to the steps of a build, cached or not; the steps of a base image
    /// that is newer have that time or a later one. If the step of the last layer has another time, nothing is known:
    /// the build added no layer, or the `syntax` of the Dockerfile is older than 1.5 and gives cached steps the time at
    /// which they ran. If such a build has a new step at the end, its cached steps count as the base image's.
    pub fn of(config: &serde_json::Value, layers: usize, timestamp: u64) -> Self {
        let time = rfc3339(timestamp);
        let steps = config["history"].as_array();
        let steps = steps.map(Vec::as_slice).unwrap_or_default();
        let makes_layer = |step: &&serde_json::Value| step["empty_layer"] != true;
        let last = steps.iter().rfind(makes_layer);
        let is_known = steps.iter().filter(makes_layer).count() == layers
            && last.is_some_and(|step| step["created"] == time.as_str());
        if !is_known {
            return Self {
                layers: 0,
                steps: 0,
            };
        }
        // Texts of times in UTC have the order of the times, up to the seconds: `2009-02-13T23:31:30`.
        let seconds = ..time.len() - 1;
        let is_older = |step: &&serde_json::Value| {
            let created = step["created"].as_str();
            let created = created.and_then(|created| created.get(seconds));
            created.is_some_and(|created| *created < time[seconds])
        };
        let base = steps.iter().take_while(is_older);
        Self {
            layers: base.clone().filter(makes_layer).count(),
            steps: base.count(),
        }
    }
}

/// Sets the times of a configuration to a timestamp in seconds since 1970, except for the first `base_steps` steps, and
/// the digests of those layers' tar files in which times were replaced.
///
/// # Errors
/// When the configuration has another number of layers.
pub fn set_times(
    config: &mut serde_json::Value,
    timestamp: u64,
    base_steps: usize,
    diff_ids: &[Option<String>],
) -> Result<()> {
    let time = serde_json::Value::from(rfc3339(timestamp));
    let layers = config.pointer_mut("/rootfs/diff_ids");
    let layers = layers.and_then(serde_json::Value::as_array_mut);
    let layers = layers.context("the image configuration lists no layers")?;
    if layers.len() != diff_ids.len() {
        bail!(
            "the image configuration lists {} layers, the manifest {}",
            layers.len(),
            diff_ids.len()
        );
    }
    for (layer, diff_id) in layers.iter_mut().zip(diff_ids) {
        if let Some(diff_id) = diff_id {
            *layer = diff_id.clone().into();
        }
    }
    let steps = config.get_mut("history");
    let steps = steps.and_then(serde_json::Value::as_array_mut);
    let steps = steps.into_iter().flatten().skip(base_steps);
    for step in steps.filter_map(serde_json::Value::as_object_mut) {
        step.insert("created".to_owned(), time.clone());
    }
    config["created"] = time;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_configuration_are_set() {
        let config = serde_json::json!({
            "created": "2026-11-25T00:51:07.054723321Z",
            "history": [
                {"created": "2001-01-01T00:00:00Z", "created_by": "a", "empty_layer": true},
                "strange",
                {"created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
        });
        let diff_ids = [None, Some("sha256:3".to_owned())];
        let time = "2009-02-13T23:31:30Z";
        for base_steps in [0, 1] {
            let first = if base_steps == 0 {
                time
            } else {
                "2001-01-01T00:00:00Z"
            };
            let expected = serde_json::json!({
                "created": time,
                "history": [
                    {"created": first, "created_by": "a", "empty_layer": true},
                    "strange",
                    {"created": time, "created_by": "b"},
                ],
                "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:3"]},
            });
            let mut changed = config.clone();
            set_times(&mut changed, 1_234_567_890, base_steps, &diff_ids).unwrap();
            assert_eq!(changed, expected);
        }
        let error = set_times(&mut config.clone(), 1_234_567_890, 0, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image configuration lists 2 layers, the manifest 0"
        );
    }

    #[test]
    fn the_older_steps_are_those_of_the_base_image() {
        let (old, epoch, new) = (
            "0001-01-01T00:00:00Z",
            "2009-02-13T23:31:30Z",
            "2020-01-01T00:00:00.5Z",
        );
        let layer = |created: &str| serde_json::json!({"created": created});
        let empty = |created: &str| serde_json::json!({"created": created, "empty_layer": true});
        let nothing = (0, 0);
        for (history, layers, expected) in [
            (
                vec![layer(old), empty(old), empty(epoch), layer(epoch)],
                2,
                (1, 2),
            ),
            (vec![layer(old), layer(old), layer(epoch)], 3, (2, 2)),
            (vec![layer(epoch)], 1, nothing),
            (vec![layer(new), layer(epoch)], 2, nothing),
            (
                vec![layer(&epoch.replace('Z', ".5Z")), layer(epoch)],
                2,
                nothing,
            ),
            // A frontend that keeps the times of cached steps.
            (vec![layer(old), layer(old)], 2, nothing),
            (vec![layer(old), layer(epoch), layer(old)], 3, nothing),
            (vec![layer(old), layer(new)], 2, nothing),
            // An incomplete history.
            (vec![layer(old), layer(epoch)], 3, nothing),
            (
                vec![serde_json::json!("strange"), serde_json::Value::Null],
                2,
                nothing,
            ),
            (vec![], 0, nothing),
        ] {
            let config = serde_json::json!({ "history": history });
            let base = BaseImage::of(&config, layers, 1_234_567_890);
            assert_eq!((base.layers, base.steps), expected, "{config}");
        }
        let without = BaseImage::of(&serde_json::json!({"history": null}), 1, 7);
        assert_eq!((without.layers, without.steps), nothing);
    }
}
