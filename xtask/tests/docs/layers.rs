//! Checks that the imports agree with the table of layers in docs/architecture.md: a part imports only
//! what the table permits, the table permits nothing that is not used, and no files import each other in
//! a circle. Code for tests is left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const PAGE: &str = "docs/architecture.md";

/// The path of a module: `["engine", "run"]`. `lib.rs` has an empty one.
type Module = Vec<String>;

/// All modules, each with the modules that it imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

#[test]
fn imports_go_one_way() {
    let table = table();
    let order: Vec<_> = table.iter().map(|(part, _)| part.as_str()).collect();
    for (number, (part, permitted)) in table.iter().enumerate() {
        for other in permitted {
            assert!(
                order[number + 1..].contains(&other.as_str()),
                "{PAGE}: `{part}` may import `{other}`, which is not a row below it"
            );
        }
    }

    let imports = imports();
    let mut used: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut forbidden = Vec::new();
    for (module, targets) in &imports {
        let from = part(module);
        let (_, permitted) = table
            .iter()
            .find(|(part, _)| part == from)
            .unwrap_or_else(|| panic!("{PAGE}: the table of layers has no row for `{from}`"));
        for target in targets {
            let to = part(target);
            if from == to {
                continue;
            }
            used.entry(from).or_default().insert(to);
            if !permitted.iter().any(|one| one == to) {
                forbidden.push(format!(
                    "`{}` imports `{}`, and {PAGE} does not permit `{from}` to import `{to}`",
                    module.join("::"),
                    target.join("::")
                ));
            }
        }
    }
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
    for (part, permitted) in &table {
        for other in permitted {
            let is_used = used
                .get(part.as_str())
                .is_some_and(|used| used.contains(other.as_str()));
            assert!(
                is_used,
                "{PAGE}: `{part}` imports nothing of `{other}`, so the table need not permit it"
            );
        }
    }
}

/// A command whose imports lead to the registry's client has the word `registry` in its row of the table of commands,
/// and no other command has it.
#[test]
fn commands_that_need_an_http_client_say_so() {
    let table = repository().join("xtask/core/src/commands/table.rs");
    let table = fs::read_to_string(table).unwrap();
    let imports = imports();
    let client = ["release", "client"].map(str::to_owned).to_vec();
    let mut count = 0;
    let rows = table
        .lines()
        .filter_map(|line| line.trim().split_once(" = "));
    for (name, row) in rows.filter(|(name, _)| name.starts_with('"')) {
        let (module, kind) = row.split_once("::").unwrap();
        let module = ["commands", module].map(str::to_owned).to_vec();
        let says_so = kind.ends_with(" registry,");
        assert_eq!(reaches(&imports, &module, &client), says_so, "{name}");
        count += usize::from(says_so);
    }
    assert!(count > 3, "{count}");
}

/// Whether a module imports another one, directly or through others.
fn reaches(imports: &Imports, from: &Module, to: &Module) -> bool {
    let mut reached = BTreeSet::from([from]);
    let mut open = vec![from];
    while let Some(module) = open.pop() {
        open.extend(imports[module].iter().filter(|one| reached.insert(one)));
    }
    reached.contains(to)
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports();
    assert!(
        imports.len() > 100,
        "only {} files were read",
        imports.len()
    );
    for start in imports.keys() {
        // All that is reached from here. A way back is a circle.
        let mut reached: BTreeSet<&Module> = BTreeSet::new();
        let mut open: Vec<&Module> = imports[start].iter().collect();
        while let Some(module) = open.pop() {
            assert!(
                module != start,
                "`{}` is in a circle of imports; it is reached through one of: {}",
                start.join("::"),
                imports
                    .iter()
                    .filter(|(from, targets)| targets.contains(start) && reached.contains(from))
                    .map(|(from, _)| from.join("::"))
                    .collect::<Vec<_>>()
                    .join(", ")
            );
            if reached.insert(module) {
                open.extend(&imports[module]);
            }
        }
    }
}

#[test]
fn paths_are_read() {
    let text = "use crate::{a::{self, B, c::D as E}, f};\nuse super::super::g;\nuse super::h;\n\
                // use crate::comment;\n#[cfg(test)]\nmod tests {\n    use crate::only_tests;\n}\n\
                fn x() { crate::i::j(); }\n";
    let module = ["m", "n"].map(str::to_owned);
    let found: BTreeSet<_> = paths(text, &module)
        .iter()
        .map(|path| path.join("::"))
        .collect();
    let expected = ["a", "a::B", "a::c::D", "f", "g", "m::h", "i::j"];
    assert_eq!(found, expected.map(str::to_owned).into());
}

/// The rows of the table, from top to bottom: a part, and the parts that it may import.
fn table() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(repository().join(PAGE)).unwrap();
    let (_, rest) = page.split_once("<!-- table: layers -->").unwrap();
    let (table, _) = rest.split_once("<!-- /table -->").unwrap();
    let words = |cell: &str| {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        (words(cells[0])[0].clone(), words(cells[1]))
    })
    .collect()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The first component of a module's path. `lib.rs` is a part of its own.
fn part(module: &Module) -> &str {
    module.first().map_or("lib", String::as_str)
}

fn imports() -> Imports {
    let source = repository().join("xtask/core/src");
    let mut files = BTreeMap::new();
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") && !is_for_tests(&path) {
                let relative = path.strip_prefix(&source).unwrap().with_extension("");
                let mut module: Module = relative
                    .iter()
                    .map(|part| part.to_str().unwrap().to_owned())
                    .collect();
                if module
                    .last()
                    .is_some_and(|name| ["mod", "lib"].contains(&name.as_str()))
                {
                    module.pop();
                }
                files.insert(module, fs::read_to_string(&path).unwrap());
            }
        }
    }
    let modules: BTreeSet<&Module> = files.keys().collect();
    // The longest beginning of a path that is a module: the rest names an item in it.
    let module_of = |mut path: Module| {
        while !modules.contains(&path) {
            path.pop();
        }
        path
    };
    files
        .iter()
        .map(|(module, text)| {
            let targets = paths(text, module).into_iter().map(module_of);
            let others = targets.filter(|target| target != module).collect();
            (module.clone(), others)
        })
        .collect()
}

/// Files whose `mod` line has `#[cfg(test)]`, and `main.rs`, which only calls the library.
fn is_for_tests(path: &Path) -> bool {
    let name = path.file_stem().and_then(|name| name.to_str());
    matches!(
        name,
        Some("tests" | "testing" | "snapshots" | "page" | "pages" | "main")
    )
}

/// The absolute paths that a file names with `crate::` or `super::`, without `crate`.
fn paths(text: &str, module: &[String]) -> BTreeSet<Module> {
    let text = without_tests(text);
    let mut found = BTreeSet::new();
    for root in ["crate", "super"] {
        for (at, _) in text.match_indices(&format!("{root}::")) {
            let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if text[..at].ends_with(is_word) {
                continue;
            }
            for path in expand(&text[at..]) {
                found.insert(absolute(path, module));
            }
        }
    }
    found
}

/// `crate::x` and `super::x` of a module, as a path from the root.
fn absolute(path: Module, module: &[String]) -> Module {
    let mut base = module.to_vec();
    let mut rest = path.into_iter().peekable();
    match rest.next().as_deref() {
        Some("super") => {
            base.pop();
            while rest.next_if(|part| part == "super").is_some() {
                base.pop();
            }
        }
        _ => base.clear(),
    }
    base.extend(rest);
    base
}

/// All paths of a use tree: `a::{b, c::d}` has `a::b` and `a::c::d`.
fn expand(text: &str) -> Vec<Module> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let below = match rest.strip_prefix("::") {
        Some(rest) if rest.starts_with('{') => split_braces(rest)
            .iter()
            .flat_map(|item| expand(item))
            .collect(),
        Some(rest) if rest.starts_with(is_name) => expand(rest),
        Some(_) | None => vec![Module::new()],
    };
    let with_name = |mut path: Module| {
        if path.first().is_some_and(|first| first == "self") {
            path.clear();
        }
        path.insert(0, name.to_owned());
        path
    };
    below.into_iter().map(with_name).collect()
}

/// The items between the braces that a text begins with.
fn split_braces(text: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (c == ',' && depth == 1) {
            items.push(std::mem::take(&mut item).trim().to_owned());
        } else if !(c == '{' && depth == 1) {
            item.push(c);
        }
        if depth == 0 {
            break;
        }
    }
    items.retain(|item| !item.is_empty());
    items
}

/// The text without comments and without items that are for tests only.
fn without_tests(text: &str) -> String {
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut code = code.peekable();
    let mut out = String::new();
    while let Some(line) = code.next() {
        if !line.trim_start().starts_with("#[cfg(test)]") && !line.contains("cfg(any(test") {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        // The item ends with its closing brace, or with a semicolon before any brace.
        let mut depth = 0_i32;
        for line in code.by_ref() {
            let count = |c| i32::try_from(line.matches(c).count()).unwrap();
            depth += count('{') - count('}');
            if depth == 0 && (line.ends_with(['}', ';', ',']) || line.contains('}')) {
                break;
            }
        }
    }
    out
}
