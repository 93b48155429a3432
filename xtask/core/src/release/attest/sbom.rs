//! An SBOM of one platform's image, as SPDX 2.3 in JSON. It depends on the image alone: the same image has the
//! same SBOM. <https://spdx.github.io/spdx-spec/v2.3/>

use serde_json::{Value, json};

use crate::{
    engine::label,
    oci::{
        image_config::ImageConfig,
        packages::{DebianPackage, Packages, PythonPackage},
        verify::VerifiedPlatform,
    },
    release::expected::CREATED_LABEL,
};

/// The SPDX id of the image itself.
const IMAGE: &str = "SPDXRef-image";
/// SPDX's word for what is not known.
const UNKNOWN: &str = "NOASSERTION";
/// The time of an image that does not tell its own.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

pub fn render(image: &VerifiedPlatform, config: &ImageConfig, packages: &Packages) -> Value {
    let repository = config.label(label::IMAGE).unwrap_or("image");
    let name = repository.rsplit('/').next().unwrap_or(repository);
    let hex = image.digest.trim_start_matches("sha256:");
    let mut listed = vec![json!({
        "SPDXID": IMAGE,
        "name": repository,
        "versionInfo": image.digest,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": UNKNOWN,
        "copyrightText": UNKNOWN,
        "primaryPackagePurpose": "CONTAINER",
        "checksums": [{ "algorithm": "SHA256", "checksumValue": hex }],
        "externalRefs": [purl(&format!(
            "pkg:oci/{}@{}?{}",
            encode(name),
            encode(&image.digest),
            query(&[
                ("arch", image.platform.split('/').nth(1).unwrap_or_default()),
                ("repository_url", repository),
            ])
        ))],
    })];
    listed.extend(packages.python.iter().map(python));
    let distribution = packages.distribution.as_ref();
    let distribution = distribution.map(|(id, version)| (id.as_str(), version.as_str()));
    listed.extend(packages.debian.iter().map(|one| debian(one, distribution)));
    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE)];
    for package in &listed[1..] {
        let id = package["SPDXID"].as_str().unwrap_or_default();
        relationships.push(relationship(IMAGE, "CONTAINS", id));
    }
    let created = config.label(CREATED_LABEL).or(config.created.as_deref());
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{repository}@{} for {}", image.digest, image.platform),
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{hex}", encode(name)),
        "creationInfo": {
            "created": seconds(created.unwrap_or(NO_TIME)),
            "creators": [format!("Tool: xtask-{}", env!("CARGO_PKG_VERSION"))],
        },
        "documentDescribes": [IMAGE],
        "packages": listed,
        "relationships": relationships,
    })
}

fn python(package: &PythonPackage) -> Value {
    // https://packaging.python.org/en/latest/specifications/name-normalization/
    let name = package.name.to_lowercase().replace(['_', '.'], "-");
    let url = format!("pkg:pypi/{}@{}", encode(&name), encode(&package.version));
    let license = package.license.as_deref().unwrap_or(UNKNOWN);
    entry("pypi", &package.name, &package.version, license, &url)
}

fn debian(package: &DebianPackage, distribution: Option<(&str, &str)>) -> Value {
    let (id, version) = distribution.unwrap_or(("debian", ""));
    // The source package as `name@version` is the form in which vulnerability scanners read it.
    let source = package.source.as_deref().map(|source| {
        let (name, version) = source.split_once(" (").unwrap_or((source, ""));
        match version.trim_end_matches(')') {
            "" => name.to_owned(),
            version => format!("{name}@{version}"),
        }
    });
    let distro = if version.is_empty() {
        String::new()
    } else {
        format!("{id}-{version}")
    };
    let url = format!(
        "pkg:deb/{}/{}@{}?{}",
        encode(id),
        encode(&package.name),
        encode(&package.version),
        query(&[
            ("arch", &package.architecture),
            ("distro", &distro),
            ("upstream", source.as_deref().unwrap_or_default()),
        ])
    );
    entry("deb", &package.name, &package.version, UNKNOWN, &url)
}

fn entry(kind: &str, name: &str, version: &str, license: &str, url: &str) -> Value {
    json!({
        "SPDXID": spdx_id(&format!("{kind}-{name}-{version}")),
        "name": name,
        "versionInfo": version,
        "downloadLocation": UNKNOWN,
        "filesAnalyzed": false,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": license,
        "copyrightText": UNKNOWN,
        "externalRefs": [purl(url)],
    })
}

/// An id contains only letters, digits, `.` and `-`. Other characters are written as their numbers, so that
/// different packages have different ids.
fn spdx_id(text: &str) -> String {
    let mut id = "SPDXRef-".to_owned();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() || "-.".contains(c) {
            id.push(c);
        } else {
            id.push_str(&format!("-{:x}-", u32::from(c)));
        }
    }
    id
}

fn purl(url: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": url,
    })
}

fn relationship(from: &str, what: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": what, "relatedSpdxElement": to })
}

/// The qualifiers of a package URL that have a value.
fn query(values: &[(&str, &str)]) -> String {
    let values = values.iter().filter(|(_, value)| !value.is_empty());
    values
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect::<Vec<_>>()
        .join("&")
}

/// Encodes a part of a package URL.
/// <https://github.com/package-url/purl-spec/blob/main/purl-specification.md#character-encoding>
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

/// A time without fractions of a second, which SPDX does not allow.
fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> VerifiedPlatform {
        VerifiedPlatform {
            platform: "linux/amd64".to_owned(),
            digest: "sha256:abc".to_owned(),
            base: None,
            compressed: 1,
            layers: None,
        }
    }

    fn config(json: &str) -> ImageConfig {
        serde_json::from_str(json).unwrap()
    }

    fn packages() -> Packages {
        Packages {
            python: [PythonPackage {
                name: "Ruamel.YAML_x".to_owned(),
                version: "1.0+local".to_owned(),
                license: Some("MIT".to_owned()),
            }]
            .into(),
            debian: [DebianPackage {
                name: "libstdc++6".to_owned(),
                version: "1:14.2.0-19".to_owned(),
                architecture: "amd64".to_owned(),
                source: Some("gcc-14 (14.2.0-19)".to_owned()),
            }]
            .into(),
            distribution: Some(("debian".to_owned(), "13".to_owned())),
        }
    }

    #[test]
    fn each_package_has_a_package_url_and_is_contained_in_the_image() {
        let config = config(
            r#"{"config":{"Labels":{"ai.stigmer.xtask.image":"ghcr.io/x/y","org.opencontainers.image.created":"2026-01-02T03:04:05Z"}}}"#,
        );
        let document = render(&image(), &config, &packages());
        let urls: Vec<_> = document["packages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|package| {
                package["externalRefs"][0]["referenceLocator"]
                    .as_str()
                    .unwrap()
            })
            .collect();
        assert_eq!(
            urls,
            [
                "pkg:oci/y@sha256:abc?arch=amd64&repository_url=ghcr.io%2Fx%2Fy",
                "pkg:pypi/ruamel-yaml-x@1.0%2Blocal",
                "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19?arch=amd64&distro=debian-13&upstream=gcc-14%4014.2.0-19",
            ]
        );
        assert_eq!(document["packages"][1]["licenseDeclared"], "MIT");
        assert_eq!(document["creationInfo"]["created"], "2026-01-02T03:04:05Z");
        let relationships = document["relationships"].as_array().unwrap();
        let related: Vec<_> = relationships
            .iter()
            .map(|one| one["relatedSpdxElement"].as_str().unwrap())
            .collect();
        assert_eq!(
            related,
            [
                "SPDXRef-image",
                "SPDXRef-pypi-Ruamel.YAML-5f-x-1.0-2b-local",
                "SPDXRef-deb-libstdc-2b--2b-6-1-3a-14.2.0-19",
            ]
        );
        assert_eq!(document, render(&image(), &config, &packages()));
    }

    #[test]
    fn the_time_is_the_images_and_has_whole_seconds() {
        for (json, expected) in [
            (
                r#"{"created":"2026-01-02T03:04:05.678901234Z"}"#,
                "2026-01-02T03:04:05Z",
            ),
            ("{}", NO_TIME),
        ] {
            let document = render(&image(), &config(json), &Packages::default());
            assert_eq!(document["creationInfo"]["created"], expected);
        }
    }
}
