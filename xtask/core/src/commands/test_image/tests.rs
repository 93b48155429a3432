use super::*;

fn image(json: &str) -> Image {
    serde_json::from_str(json).unwrap()
}

fn said(code: i32, stdout: &str) -> Finished {
    Finished {
        code,
        stdout: stdout.to_owned(),
        ..Finished::default()
    }
}

fn stopped_after(seconds: u64) -> Finished {
    Finished {
        took: Duration::from_secs(seconds),
        ..Finished::default()
    }
}

#[test]
fn secrets_are_named_and_never_shown() {
    let clean = image(r#"{"Id":"x","Config":{"Env":["PATH=/bin","LOG_LEVEL=info"]}}"#);
    assert!(
        secret_check(
            &clean,
            &said(0, "/bin/sh -c #(nop) ENV LOG_LEVEL=info\n"),
            &[]
        )
        .ok
    );

    let dirty =
        image(r#"{"Id":"x","Config":{"Env":["OPENAI_API_KEY=sk-abcdefghijklmnopqrstuvwxyz"]}}"#);
    let check = secret_check(
        &dirty,
        &said(0, "RUN TOKEN=abc X_KEY=public pip install x\n"),
        &["X_KEY".to_owned()],
    );
    assert!(!check.ok);
    assert_eq!(
        check.detail,
        "environment OPENAI_API_KEY; history line 1: TOKEN"
    );
}

#[test]
fn each_check_can_fail() {
    let settings = crate::commands::testing::settings();
    let root = image(r#"{"Id":"x","Architecture":"arm64","Os":"linux","Config":{"User":"0"}}"#);
    let workspace = ["/workspace".to_owned()];
    let written = said(0, "");
    assert!(!volume_check(&workspace, &root, &written).unwrap().ok);
    let volume = image(r#"{"Id":"x","Config":{"Volumes":{"/workspace":{}}}}"#);
    assert!(volume_check(&workspace, &volume, &written).unwrap().ok);
    assert!(!volume_check(&workspace, &volume, &said(1, "")).unwrap().ok);
    assert!(volume_check(&[], &root, &written).is_none());
    assert!(
        !stop_check(
            &settings,
            &stopped_after(1),
            &said(0, r#"[{"State":{"ExitCode":137}}]"#)
        )
        .ok
    );
    let by_signal = said(0, r#"[{"State":{"ExitCode":143}}]"#);
    assert!(!stop_check(&settings, &stopped_after(1), &by_signal).ok);
    let mut other = settings.clone();
    other.require.stop_codes = vec!["0".to_owned(), "143".to_owned()];
    assert!(stop_check(&other, &stopped_after(1), &by_signal).ok);
    assert!(
        !stop_check(
            &settings,
            &stopped_after(10),
            &said(0, r#"[{"State":{"ExitCode":0}}]"#)
        )
        .ok
    );
    assert!(
        stop_check(
            &settings,
            &stopped_after(1),
            &said(0, r#"[{"State":{"ExitCode":0}}]"#)
        )
        .ok
    );
    assert!(!size_check("size", Some(2), Some(1)).ok);
    let clean = image(r#"{"Id":"x","Config":{"Env":["PATH=/bin"]}}"#);
    assert!(!secret_check(&clean, &said(1, ""), &[]).ok, "no history");

    let program = |machine| filesystem::Program {
        path: "usr/bin/python".into(),
        machine,
    };
    let contents = |machine| filesystem::Contents {
        programs: vec![program(machine)],
        ..filesystem::Contents::default()
    };
    assert!(elf_check(&root, &contents(183)).ok);
    let wrong = elf_check(&root, &contents(62));
    assert!(
        !wrong.ok && wrong.detail.ends_with("such as usr/bin/python"),
        "{}",
        wrong.detail
    );
    assert!(
        !elf_check(&root, &filesystem::Contents::default()).ok,
        "an empty image proves nothing"
    );
}

#[test]
fn the_root_is_read_only_only_if_root_cannot_write_there() {
    let mut settings = crate::commands::testing::settings();
    let touched = |code, stderr: &str| Finished {
        code,
        stderr: stderr.to_owned(),
        ..Finished::default()
    };
    let refused = "touch: cannot touch '/.xtask-test': Read-only file system\n";
    assert!(root_check(&settings, &touched(1, refused)).ok);
    assert!(!root_check(&settings, &touched(0, "")).ok);
    let not_permitted = "touch: cannot touch '/.xtask-test': Permission denied\n";
    for stderr in [not_permitted, "exec: /bin/sh: not found\n", ""] {
        assert!(!root_check(&settings, &touched(1, stderr)).ok, "{stderr}");
    }
    let no_shell = r#"OCI runtime exec failed: exec failed: unable to start container process: exec: "/bin/sh": stat /bin/sh: no such file or directory"#;
    assert!(root_check(&settings, &said(127, no_shell)).ok);
    assert!(root_check(&settings, &touched(127, no_shell)).ok);
    settings.run.hardening.read_only = false;
    assert!(root_check(&settings, &touched(0, "")).ok);
}

#[test]
fn the_user_is_the_required_one() {
    let of = |required, user: &str, id: &Finished| {
        let json = format!(r#"{{"Id":"x","Config":{{"User":"{user}"}}}}"#);
        user_check(required, &image(&json), id).ok
    };
    let (root, user) = (said(0, "0\n"), said(0, "1000\n"));
    let no_program = said(127, "");
    let uid = RequiredUser::Uid(1000);
    assert!(of(uid, "stigmer", &user));
    assert!(!of(uid, "0", &root));
    assert!(!of(RequiredUser::NotRoot, "", &root));
    assert!(of(RequiredUser::NotRoot, "app", &user));
    assert!(of(RequiredUser::Any, "", &root));
    // An image without `id` is judged by its configuration.
    assert!(of(uid, "1000:1000", &no_program));
    assert!(!of(uid, "app", &no_program), "its uid is not known");
    assert!(
        !of(RequiredUser::NotRoot, "", &no_program),
        "root by default"
    );
    assert!(of(RequiredUser::Any, "", &no_program));
}
