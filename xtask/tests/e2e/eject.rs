//! Scripts of `--eject`, with a real engine and without xtask.

use std::{fs, path::Path, process::Command};

use crate::real::{Checkout, Ran, ran};

/// Built, started, seen healthy, started anew, stopped; somebody else's container stays.
pub fn ejected_scripts(it: &Checkout) {
    let names = ["build-image", "run-local", "stop"];
    let scripts = names.map(|name| {
        let file = it.src().parent().unwrap().join(format!("{name}.sh"));
        fs::write(&file, it.ok(&[name, "--eject"])).unwrap();
        file
    });
    let sh = |script: &Path| -> Ran {
        let words = [script.to_str().unwrap()];
        ran(&it
            .real
            .command(Path::new("sh"), &words, &[])
            .output()
            .unwrap())
    };
    let must = |script: &Path| -> String {
        let ran = sh(script);
        assert_eq!(ran.code, 0, "{}: {ran:?}", script.display());
        ran.stdout
    };
    let [build, run, stop] = &scripts;
    let container = || it.real.inspect("container", &it.container);

    assert_eq!(sh(run).code, 1, "there is no image yet");
    assert_eq!(must(build), format!("{}\n", it.reference()));
    // The same image as xtask's: the labels are found out anew.
    let image = |reference: &str| it.real.inspect("image", reference).unwrap();
    let by_script = image(&it.reference());
    it.ok(&["build-image"]);
    let by_xtask = image(&it.reference());
    assert_eq!(by_script["Config"]["Labels"], by_xtask["Config"]["Labels"]);

    must(stop);
    assert_eq!(must(run), format!("{}\n", it.container));
    let first = container().unwrap();
    let status = it.ok(&["status"]);
    assert!(
        status.contains("healthy") && !status.contains("unhealthy"),
        "{status}"
    );
    must(run);
    let second = container().unwrap();
    assert_ne!(first["Id"], second["Id"], "ours is replaced");
    must(stop);
    assert_eq!(container().unwrap()["State"]["Running"], false);

    it.real.ask(&["rm", "-f", &it.container]);
    let foreign = ["create", "--name", &it.container, &it.reference()];
    assert_eq!(it.real.ask(&foreign).code, 0);
    for script in [run, stop] {
        let refused = sh(script);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stderr.contains("is not ours"), "{refused:?}");
    }
    assert!(container().is_some());

    // Somebody else's image keeps its name, and a build by that name is refused.
    it.real.ask(&["rm", "-f", &it.container]);
    it.ok(&["clean", "--yes"]);
    let files = it.src().parent().unwrap().join("files.tar");
    let mut tar = Command::new("tar");
    let packed = tar.arg("-cf").arg(&files).arg("Dockerfile");
    assert!(packed.current_dir(it.src()).status().unwrap().success());
    let import = ["import", files.to_str().unwrap(), &it.reference()];
    assert_eq!(it.real.ask(&import).code, 0);
    let theirs = image(&it.reference());
    let refused = sh(build);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("xtask did not build it"),
        "{refused:?}"
    );
    assert_eq!(image(&it.reference())["Id"], theirs["Id"]);
}
