//! Changes to image configurations, so that the same content has the same digest.

use anyhow::{Context as _, Result, bail};

use crate::{
    base::time::rfc3339,
    oci::{image_config::ImageConfig, manifest::Descriptor},
};

/// A manifest's descriptor for an index: with the platform from its configuration, and without the
/// annotations of the index that it was in, such as image names.
pub fn index_entry(mut descriptor: Descriptor, config: &[u8]) -> Descriptor {
    if descriptor.platform.is_none()
        && let Ok(config) = serde_json::from_slice::<ImageConfig>(config)
    {
        descriptor.platform = Some(config.platform());
    }
    if !descriptor.is_attestation() {
        descriptor.annotations = None;
    }
    descriptor
}

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

/// Sets all times of a configuration to a timestamp in seconds since 1970, and the digests of its
/// layers' tar files, which change with their times.
///
/// # Errors
/// When the configuration has another number of layers.
pub fn set_times(
    config: &mut serde_json::Value,
    timestamp: u64,
    diff_ids: &[String],
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
    *layers = diff_ids
        .iter()
        .cloned()
        .map(serde_json::Value::from)
        .collect();
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
            "rootfs": {"type": "layers", "diff_ids": ["sha256:1"]},
        });
        set_times(&mut config, 1_234_567_890, &["sha256:2".to_owned()]).unwrap();
        let time = "2009-02-13T23:31:30Z";
        let expected = serde_json::json!({
            "created": time,
            "history": [
                {"created": time, "created_by": "a", "empty_layer": true},
                {"created": time, "created_by": "b"},
            ],
            "rootfs": {"type": "layers", "diff_ids": ["sha256:2"]},
        });
        assert_eq!(config, expected);
        let error = set_times(&mut config, 1_234_567_890, &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the image configuration lists 1 layers, the manifest 0"
        );
    }
}
