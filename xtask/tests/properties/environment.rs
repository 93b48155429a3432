use crate::{facts::environment::parse_env_file, properties::text};

/// A file is read as Docker reads it, or refused with the line's number and none of its words.
pub fn file(input: &[u8]) {
    let text = text(input);
    match parse_env_file("the.env", &text) {
        Ok(file) => {
            assert_eq!(file.values, as_docker_reads(&text));
            for (name, value) in &file.values {
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
            super::says_why(why);
            // What is said of some other line of the kind: nothing of this one is in it.
            let others = ["a b c", "A=\0", "\u{feff}"].map(|line| {
                let other = parse_env_file("the.env", line).unwrap_err();
                other.to_string().replace(":1`", &format!(":{number}`"))
            });
            assert!(others.contains(&message), "{message}");
        }
    }
}

/// <https://github.com/docker/cli/blob/v28.5.2/pkg/kvfile/kvfile.go>, whose line reader takes one
/// `\r` before a line's end. A name alone is the variable of the environment; its value is not
/// in the file.
fn as_docker_reads(text: &str) -> Vec<(String, String)> {
    text.trim_start_matches('\u{feff}')
        .split('\n')
        .map(|line| line.strip_suffix('\r').unwrap_or(line).trim_start())
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once('=').unwrap_or((line, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
