use super::*;

#[test]
fn localhost_is_rewritten_and_nothing_else() {
    let to = |address| rewrite_localhost(address, "host.docker.internal");
    assert_eq!(to("localhost:7233").unwrap(), "host.docker.internal:7233");
    assert_eq!(
        to("http://127.0.0.1:7234/v1").unwrap(),
        "http://host.docker.internal:7234/v1"
    );
    assert_eq!(
        to("http://me:pw@[::1]:1").unwrap(),
        "http://me:pw@host.docker.internal:1"
    );
    assert_eq!(to("localhost").unwrap(), "host.docker.internal");
    assert_eq!(to("localhost.example.com:1"), None);
    assert_eq!(to("temporal:7233"), None);
}

#[test]
fn environment_files_are_read_as_engines_read_them() {
    let file = parse_env_file(".env", "# note\n\nA=1\r\n  B=x=y \nC\n").unwrap();
    let values: Vec<_> = file
        .values
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    assert_eq!(values, [("A", "1"), ("B", "x=y "), ("C", "")]);
}

#[test]
fn a_line_that_engines_read_differently_is_refused_without_its_value() {
    let error = parse_env_file(".env", "A=1\nexport KEY=sk-secret\n")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("`.env:2`: a line must be `NAME=value`"),
        "{error}"
    );
    assert!(!error.contains("sk-secret"));
}
