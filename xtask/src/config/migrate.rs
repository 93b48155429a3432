//! How an older schema's files are read: a list of renames for each step to the next schema.
//! The places in the file stay, so that problems still point at what was written.

use std::borrow::Cow;

use toml::de::{DeTable, DeValue};

/// One step from a schema to the next.
pub struct Migration {
    /// The schema the step starts from; it leads to the next one.
    pub from: u64,
    /// Keys that moved: the old path and the new one.
    pub renames: &'static [(&'static str, &'static str)],
}

/// All steps there are. Schema 1 is the first, so there is none yet.
pub const MIGRATIONS: &[Migration] = &[];

/// Brings a document from its schema up to the newest by the steps given.
pub fn migrate(document: &mut DeTable, from: u64, steps: &[Migration]) {
    for step in steps.iter().filter(|step| step.from >= from) {
        for (old, new) in step.renames {
            rename(document, old, new);
        }
    }
}

fn rename(document: &mut DeTable, old: &str, new: &str) {
    let (old_table, old_key) = old.rsplit_once('.').unwrap_or(("", old));
    let Some((key, value)) =
        table_at(document, old_table, None).and_then(|table| table.remove_entry(old_key))
    else {
        return;
    };
    let (new_table, new_key) = new.rsplit_once('.').unwrap_or(("", new));
    let span = key.span();
    if let Some(table) = table_at(document, new_table, Some(&span)) {
        table.insert(
            toml::Spanned::new(span, Cow::Owned(new_key.to_owned())),
            value,
        );
    }
}

/// The table at a dotted path; made on the way where `create` says at which place.
fn table_at<'t, 'd>(
    mut table: &'t mut DeTable<'d>,
    path: &str,
    create: Option<&std::ops::Range<usize>>,
) -> Option<&'t mut DeTable<'d>> {
    for part in path.split('.').filter(|part| !part.is_empty()) {
        if !table.contains_key(part) {
            let span = create?.clone();
            table.insert(
                toml::Spanned::new(span.clone(), Cow::Owned(part.to_owned())),
                toml::Spanned::new(span, DeValue::Table(DeTable::new())),
            );
        }
        match table.get_mut(part)?.get_mut() {
            DeValue::Table(inner) => table = inner,
            _ => return None,
        }
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_step_by_step_and_keep_their_places() {
        const STEPS: &[Migration] = &[
            Migration {
                from: 1,
                renames: &[("run.name", "run.container")],
            },
            Migration {
                from: 2,
                renames: &[("run.container", "container.name"), ("gone", "x")],
            },
        ];
        let text = "[run]\nname = 'a'\nkeep = 1\n";
        let mut document = DeTable::parse(text).unwrap().into_inner();
        migrate(&mut document, 1, STEPS);
        let moved = &document["container"].as_ref().as_table().unwrap()["name"];
        assert_eq!(moved.as_ref().as_str(), Some("a"));
        assert_eq!(&text[moved.span()], "'a'");
        assert!(
            document["run"]
                .as_ref()
                .as_table()
                .unwrap()
                .contains_key("keep")
        );

        let mut document = DeTable::parse(text).unwrap().into_inner();
        migrate(&mut document, 2, STEPS);
        assert!(
            !document.contains_key("container"),
            "a schema 2 file has no `run.name`"
        );
    }
}
