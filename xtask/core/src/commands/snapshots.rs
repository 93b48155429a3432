//! What every command would run, on each kind of machine. A change shows as a change of a file under
//! `snapshots/`.

use crate::commands::{
    table,
    testing::{MACHINES, SECRET},
};

#[test]
fn every_command_on_every_machine() {
    for machine in MACHINES {
        let plans: String = table::examples(machine)
            .iter()
            .map(|example| format!("# cargo xtask {}\n{}\n", example.line, example.plan))
            .collect();
        assert!(!plans.contains(SECRET), "a secret is in a plan");
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(machine.name, plans);
        });
    }
}
