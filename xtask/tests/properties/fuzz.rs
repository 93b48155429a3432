//! What libFuzzer calls. It checks the property in `FUZZ_PROPERTY` with the fuzzer's inputs.

use std::sync::OnceLock;

use crate::{
    base::env::Env,
    properties::{ALL, Property},
};

static CHOSEN: OnceLock<&Property> = OnceLock::new();

fn chosen() -> &'static Property {
    let env = Env::capture().expect("a current folder");
    let name = env.get("FUZZ_PROPERTY").unwrap_or_default();
    let known = || ALL.iter().map(|one| one.name).collect::<Vec<_>>().join(" ");
    ALL.iter()
        .find(|property| property.name == name)
        .unwrap_or_else(|| panic!("FUZZ_PROPERTY={name} must be one of: {}", known()))
}

/// Panics if the property does not hold for the input.
pub fn check(input: &[u8]) {
    (CHOSEN.get_or_init(chosen).check)(input);
}
