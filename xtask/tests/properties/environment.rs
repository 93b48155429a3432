use crate::{facts::environment::parse_env_file, properties::text};

/// A file is read as Docker reads it, or rejected with the number of the line and without its text.
pub fn file(input: &[u8]) {
    let text = text(input);
    match parse_env_file("the.env", &text) {
        Ok(file) => {
            let values: Vec<_> = file
                .lines
                .into_iter()
                .map(|line| (line.name, line.value.unwrap_or_default()))
                .collect();
            assert_eq!(values, as_docker_reads(&text));
            for (name, value) in &values {
                let word = |c: char| !c.is_whitespace() && !c.is_control() && c != '=';
                assert!(!name.is_empty() && name.chars().all(word), "{name:?}");
                assert!(!value.contains(['\0', '\n']), "{value:?}");
            }
        }
        Err(failure) => {
            let message = failure.to_string();
            let place = message.strip_prefix("`the.env:").expect("a place");
            let (number, why) = place.split_once("`: ").expect("a number");
            let number: usize = number.parse().unwrap();
            assert!((1..=text.split('\n').count()).contains(&number), "{number}");
            super::assert_reason(why);
            // The same message as for another line of this kind, so it contains nothing of the line.
            let long = "x".repeat(70_000);
            let others = ["a b c", "A=\0", "\u{feff}", "A=\rB", &long].map(|line| {
                let other = parse_env_file("the.env", line).unwrap_err();
                other.to_string().replace(":1`", &format!(":{number}`"))
            });
            assert!(others.contains(&message), "{message}");
        }
    }
}

/// Reads the file by the rules of <https://github.com/docker/cli/blob/v28.5.2/pkg/kvfile/kvfile.go>. Its line
/// reader removes one `\r` before the end of a line. A name without a value is a variable of the environment.
fn as_docker_reads(text: &str) -> Vec<(String, String)> {
    text.trim_start_matches('\u{feff}')
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line).trim_start())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
