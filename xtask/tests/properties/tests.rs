//! Checks each property with its corpus, and with inputs that are cut, repeated, mixed and filled with
//! special characters.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use arbtest::{
    arbitrary::{Result, Unstructured},
    arbtest,
};

use crate::properties::{ALL, Property};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

/// The inputs in a property's corpus, sorted by name.
fn inputs(property: &Property) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = corpus().join(property.name);
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| (file.clone(), std::fs::read(file).unwrap()))
        .collect()
}

/// Characters and texts that parsers often handle incorrectly.
const BITS: &[&[u8]] = &[
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"`",
    b"$(id)",
    b"=",
    b":",
    b"/",
    b"..",
    b"-",
    b"--",
    b"*",
    b"**",
    b"!",
    b"#",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[",
    b"]]",
    b",",
    b".",
    b"@",
    b"?",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xe2\x80\xa8",
    b"\xcc\x88",
    b"\x1b[2J",
    b"\x7f",
    b"\xc3\xa4",
    b"18446744073709551616",
    b"-1",
    b"1e999",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b"schema = 2\n",
    b"sk-abcdefghijklmnop1234",
    b"http://me:hunter2@box/",
    b"-----BEGIN",
];

/// An input of the corpus with random changes.
fn changed(u: &mut Unstructured, inputs: &[(PathBuf, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut input = u.choose(inputs)?.1.clone();
    for _ in 0..u.int_in_range(1..=6)? {
        let from = u.int_in_range(0..=input.len())?;
        let to = u.int_in_range(from..=input.len().min(from + 40))?;
        let new = match u.int_in_range(0..=4)? {
            0 => Vec::new(),
            1 => input[from..to].repeat(2),
            2 => u.arbitrary::<[u8; 3]>()?.to_vec(),
            3 => {
                let other = &u.choose(inputs)?.1;
                let begin = u.int_in_range(0..=other.len())?;
                other[begin..].iter().copied().take(40).collect()
            }
            _ => u.choose(BITS)?.to_vec(),
        };
        input.splice(from..to, new);
    }
    Ok(input)
}

/// Checks a property with its corpus and with changed inputs. The error lists the failures.
fn hold(property: &Property) -> std::result::Result<(), String> {
    let inputs = inputs(property);
    let holds = |input: &[u8]| std::panic::catch_unwind(|| (property.check)(input)).is_ok();
    let failed: Vec<_> = inputs
        .iter()
        .filter(|(_, input)| !holds(input))
        .map(|(file, _)| file.display().to_string())
        .collect();
    if !failed.is_empty() {
        return Err(failed.join("\n"));
    }
    let tried = AtomicU64::new(0);
    let changed_too = || {
        arbtest(|u| {
            let input = changed(u, &inputs)?;
            tried.fetch_add(1, Ordering::Relaxed);
            assert!(
                holds(&input),
                "not for {:?}",
                String::from_utf8_lossy(&input)
            );
            Ok(())
        })
        .size_min(64)
        .size_max(512);
    };
    let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(changed_too));
    let tried = tried.into_inner();
    match held {
        Ok(()) if tried > 0 => Ok(()),
        Ok(()) => Err(format!("{} was not tried", property.name)),
        Err(_) => Err(format!("{} after {tried} cases", property.name)),
    }
}

#[test]
fn each_property_holds() {
    let failed: Vec<_> = ALL.iter().filter_map(|one| hold(one).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// There is no corpus of a removed property.
#[test]
fn each_corpus_belongs_to_a_property() {
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            ALL.iter()
                .any(|property| name.to_str() == Some(property.name)),
            "{name:?}"
        );
    }
}
