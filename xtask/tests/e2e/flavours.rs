//! The flavour `tools`: its programs run, and it is published together with the plain image.

use std::fs;

use serde_json::Value;

use crate::{
    engines::{Checkout, NO_DOWNLOAD_BUDGET},
    publish::Publisher,
    remote::Remote,
    small,
};

/// Each program of the flavour, with arguments by which it shows that it works.
const PROGRAMS: &[&str] = &[
    "git --version",
    "curl --version",
    "jq --version",
    "rg --version",
    "patch --version",
    "unzip -v",
    "xz --version",
    "less --version",
    "make --version",
    "ssh -V",
    "uv --version",
    "uvx --version",
    "node --version",
];

/// What agents do with the programs. It needs no network, and fails if a step does.
const WORK: &str = r#"
set -e
cd /workspace && rm -rf try && mkdir try && cd try
git init -q . && echo one > a && git add a
git -c user.name=me -c user.email=me@example.com commit -q -m one
echo two >> a && git diff > ../try.patch && git checkout -q a && patch -p1 < ../try.patch
test "$(git log --oneline | wc -l)" = 1 && rg -q two a
git clone -q . ../try/clone && test -f clone/a
printf 'all:\n\t@echo made\n' > Makefile && test "$(make)" = made
test "$(echo '{"a": [1, 2]}' | jq '.a[1]')" = 2
test "$(node -e 'console.log(new Intl.NumberFormat("de").format(1234.5))')" = 1.234,5
tar -cJf a.tar.xz a && tar -xJf a.tar.xz -O | grep -q two
python -c 'import zipfile; zipfile.ZipFile("a.zip", "w").write("a")' && unzip -p a.zip | grep -q two
ssh-keygen -q -t ed25519 -N '' -f key && test -s key.pub
uv --offline venv -q venv && venv/bin/python -c 'print(1)'
curl -sS file:///workspace/try/a | grep -q two
cd .. && rm -rf try try.patch
echo all done
"#;

pub fn flavour_runs(checkout: &Checkout) {
    let tools = ["--flavour", "tools"];
    let with_tools = |args: &[&'static str]| [args, &tools[..]].concat();
    // The other platform's image has only programs of that platform. They need not run here. Its size is not tested, so
    // it need not be compressed.
    remove_download_budget(checkout);
    checkout.ok(&with_tools(&["build-image", "--platform", "linux/arm64"]));
    let tested = checkout.run(&with_tools(&["test-image", "--json"]));
    let result: Value =
        serde_json::from_str(&tested.stdout).unwrap_or_else(|_| panic!("{tested:?}"));
    let checks = result["checks"].as_array().unwrap();
    let architecture = checks.iter().find(|check| check["name"] == "architecture");
    let detail = architecture.unwrap()["detail"].as_str().unwrap();
    assert!(detail.starts_with("linux/arm64: all "), "{result}");

    // From here on, `test-image` tests the size of the download too.
    checkout.restore_budgets();
    let built = checkout.ok(&with_tools(&["build-image"]));
    let reference = format!("{}-tools", checkout.reference());
    assert_eq!(built, format!("{reference}\n"));
    let labels = &checkout.engine.inspect("image", &reference).unwrap()["Config"]["Labels"];
    assert_eq!(labels["ai.stigmer.xtask.flavour"], "tools");
    assert_eq!(labels["org.opencontainers.image.version"], checkout.version);

    // Its budget, its architecture, and all that the plain image must be too.
    let tested = checkout.ok(&with_tools(&["test-image"]));
    let mut lines = tested.lines();
    let compressed = lines.find(|line| line.contains("size compressed")).unwrap();
    assert!(compressed.contains(" MB of "), "{tested}");

    // In a container with the hardening of `run-local`.
    checkout.ok(&with_tools(&["run-local"]));
    for program in PROGRAMS {
        let output = checkout.inside(&format!("timeout 60 {program}"));
        assert_eq!(output.code, 0, "{program}: {output:?}");
    }
    let output = checkout.inside(WORK);
    assert_eq!(
        (output.code, output.stdout.ends_with("all done\n")),
        (0, true),
        "{output:?}"
    );
    // Scanners see the packages of both layers.
    let packages = checkout.inside("cat /var/lib/dpkg/status").stdout;
    for package in ["git", "nodejs", "libc6", "openssh-client"] {
        let entry = format!("Package: {package}\nStatus: install ok installed\n");
        assert_eq!(packages.matches(&entry).count(), 1, "{package}");
    }
    // No program can become root.
    let setuid = checkout.inside("find / -xdev -perm /6000 -type f 2>/dev/null");
    assert_eq!(setuid.stdout, "");
    checkout.ok(&["stop"]);

    // `clean` removes all flavours of the version.
    checkout.ok(&["build-image"]);
    checkout.ok(&["clean", "--yes"]);
    for reference in [checkout.reference(), reference] {
        assert!(
            checkout.engine.inspect("image", &reference).is_none(),
            "{reference}"
        );
    }
}

/// Removes the budget for the download of the flavour too, as [`NO_DOWNLOAD_BUDGET`] does for the plain image.
fn remove_download_budget(checkout: &Checkout) {
    let local = format!("{NO_DOWNLOAD_BUDGET}[flavour.tools.budget]\ncompressed = ''\n");
    fs::write(checkout.src().join("xtask.local.toml"), local).unwrap();
}

/// What the flavour's programs can do does not depend on the engine that built it.
pub fn flavour_builds(checkout: &Checkout) {
    remove_download_budget(checkout);
    checkout.ok(&["build-image", "--flavour", "tools"]);
    let tested = checkout.run(&["test-image", "--flavour", "tools"]);
    assert_eq!(tested.code, 0, "{tested:?}");
    let reference = format!("{}-tools", checkout.reference());
    let git = checkout
        .engine
        .run(&["run", "--rm", &reference, "git", "--version"]);
    assert!(git.stdout.starts_with("git version "), "{git:?}");
}

/// Publishing does not depend on what is in the images, so they are small. Only the flavour has the package `git`.
fn project_with_a_flavour(checkout: &Checkout) {
    let plain = small::DOCKERFILE.replace("FROM scratch", "FROM scratch AS plain");
    let dockerfile = format!("{plain}\nFROM plain AS tools\nCOPY tools /\n");
    let config = format!(
        "{}[build]\ntarget = 'plain'\n[flavour.tools]\ntarget = 'tools'\n",
        small::CONFIG
    );
    let packages = ["small", "git"].map(small::installed).concat();
    let files: [(&str, &[u8]); 4] = [
        ("Dockerfile", dockerfile.as_bytes()),
        (".dockerignore", b"*\n!tree\n!programs\n!tools\n"),
        ("xtask.toml", config.as_bytes()),
        ("tools/var/lib/dpkg/status", packages.as_bytes()),
    ];
    small::project_with(checkout, &files);
}

pub fn published_together(checkout: &Checkout) {
    let Some(remote) = Remote::open(checkout.engine.name) else {
        return;
    };
    project_with_a_flavour(checkout);
    let release = Publisher::new(checkout, remote);
    let remote = &release.remote;
    let local = "schema = 1\n[[channel]]\nname = 'release'\nflavours = ['tools']\n";
    fs::write(checkout.src().join("xtask.local.toml"), local).unwrap();
    release.commit_and_tag("v1.2.3");

    let done = release.ok(&["push-multiarch", "--no-check", "--version", "1.2.3"]);
    let digests = ["1.2.3", "1.2.3-tools"].map(|tag| remote.digest(tag).unwrap());
    let repository = remote.repository();
    let lines = digests
        .clone()
        .map(|digest| format!("{repository}@{digest}\n"));
    assert_eq!(done.stdout, lines.concat());
    let plain = ["1", "1.2", "1.2.3", "latest", "v1.2.3"];
    for tag in plain {
        assert_eq!(remote.digest(tag).as_ref(), Some(&digests[0]), "{tag}");
        let tools = remote.digest(&format!("{tag}-tools"));
        assert_eq!(tools.as_ref(), Some(&digests[1]), "{tag}-tools");
    }
    assert_eq!(remote.tags().len(), 2 * plain.len());
    let receipt = release.artifact("1.2.3-tools.json");
    assert_eq!(receipt["flavour"], "tools");
    assert_eq!(receipt["digest"], digests[1].as_str());
    for platform in ["linux-amd64", "linux-arm64"] {
        let packages = |version: &str| release.packages(&format!("{version}.{platform}.spdx.json"));
        let has_git = |version: &str| packages(version).iter().any(|one| one == "git");
        assert_eq!([has_git("1.2.3"), has_git("1.2.3-tools")], [false, true]);
    }

    // A flavour is no version: neither the list of versions nor the next release counts it.
    release.ok(&["formula", "--version", "1.2.3"]);
    let versions = release.artifact("versions.json");
    assert_eq!(versions["latest"], "1.2.3");
    assert_eq!(
        versions["versions"].as_array().unwrap().len(),
        1,
        "{versions}"
    );

    // The second run builds nothing.
    let again = release.ok(&["push-multiarch", "--no-check", "--version", "1.2.3"]);
    assert_eq!(
        again.stderr.matches("nothing is built").count(),
        2,
        "{}",
        again.stderr
    );
    for flavour in [&[][..], &["--flavour", "tools"]] {
        release.ok(&[&["verify-image", "--version", "1.2.3"], flavour].concat());
    }
    let wrong = release.run(&["verify-image", "--version", "1.2.3-tools"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    let hint = "`--version 1.2.3 --flavour tools`";
    assert!(wrong.stderr.contains(hint), "{}", wrong.stderr);
    release.ok(&["clean", "--yes", "--version", "1.2.3"]);
}
