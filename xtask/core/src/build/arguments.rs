//! Build arguments that the Dockerfile does not declare. A builder ignores them without a word.

use super::instructions::Instructions;
use crate::settings::Settings;

/// Arguments that every Dockerfile has. <https://docs.docker.com/reference/dockerfile/#predefined-args>
const PREDEFINED: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SOURCE_DATE_EPOCH",
];

/// The configured arguments that a Dockerfile does not declare.
pub fn undeclared(settings: &Settings, dockerfile: &str) -> Vec<String> {
    let instructions = Instructions::of(dockerfile);
    let declared = instructions.arguments();
    let is_known = |name: &str| {
        declared.contains(name)
            || PREDEFINED.contains(&name.to_uppercase().as_str())
            || name.starts_with("BUILDKIT_")
    };
    let base_image = settings
        .is_configured("build.base-image")
        .then_some(&settings.build.base_image_arg);
    let configured = settings.build.args.keys();
    let configured = configured.chain(settings.channel.build_args.keys());
    let undeclared = configured.chain(base_image).filter(|name| !is_known(name));
    undeclared.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{base::env::Env, config::files::Files, settings::resolve::Arguments};

    #[test]
    fn arguments_that_no_stage_declares_are_found() {
        let dockerfile =
            "ARG PYTHON_IMAGE=x\nFROM $PYTHON_IMAGE\n  arg A B=2\nARG C \\\n  D\n# ARG E\n";
        let of = |more: &str| {
            let files = Files {
                root: "/src".into(),
                project: format!("schema = 1\n[build]\n{more}"),
                local: None,
            };
            let settings = Settings::resolve(&Arguments::default(), &Env::fake(&[]), &files);
            undeclared(&settings.unwrap(), dockerfile)
        };
        let args =
            "args = { A = '', B = '', C = '', D = '', E = '', http_proxy = '', BUILDKIT_X = '' }\n";
        assert_eq!(of(args), ["E"]);
        assert!(of("base-image-arg = 'OTHER'\n").is_empty());
        assert_eq!(
            of("base-image-arg = 'OTHER'\nbase-image = 'y'\n"),
            ["OTHER"]
        );
    }
}
