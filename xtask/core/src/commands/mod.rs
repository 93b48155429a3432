//! The commands, one file or folder each, and the modules that several commands share.

mod ask;
mod build_image;
mod build_multiarch;
mod check;
mod checks;
mod ci_check;
mod clean;
pub mod command;
mod completions;
mod config;
mod docker_login;
mod doctor;
mod down;
mod explain;
mod export;
mod findings;
mod formula;
pub mod health;
pub mod help;
mod json;
mod logout;
mod logs;
mod pack_archive;
#[cfg(test)]
mod page;
mod push_archive;
mod push_image;
mod push_multiarch;
mod removal;
mod run_local;
mod shell;
mod smoke;
#[cfg(test)]
mod snapshots;
mod stack;
mod status;
mod stop;
pub mod table;
mod test_image;
#[cfg(test)]
pub mod testing;
mod up;
mod verify_image;
pub mod watch;
