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

/// Sets all times of a configuration to a timestamp in seconds since 1970, and the digests of those layers' tar files
/// whose times were replaced too.
///
/// # Errors
/// When the configuration has another number of layers.
pub fn set_times(
    config: &mut serde_json::Value,
    timestamp: u64,
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
    for step in config
        .get_mut("history")
        .and_then(serde_json::Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        step["created"] = time.clone();
    }
    config["created"] = time;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_times_of_a_configuration_are_set() {
        let mut config = serde_json::json!({
            "created": "2026-11-25T00:51:07.054723321Z",
            "history": [
                {"created": "2001-01-01T00:00:00Z", "created_by": "a", "empty_layer": true},
                {"created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:2"]},
        });
        let diff_ids = [None, Some("sha256:3".to_owned())];
        set_times(&mut config, 1_234_567_890, &diff_ids).unwrap();
        let time = "2009-02-13T23:31:30Z";
        let expected = serde_json::json!({
            "created": time,
            "history": [
                {"created": time, "created_by": "a", "empty_layer": true},
                {"created": time, "created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1", "sha256:3"]},
        });
        assert_eq!(config, expected);
        let error = set_times(&mut config, 1_234_567_890, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image configuration lists 2 layers, the manifest 0"
        );
    }
}
