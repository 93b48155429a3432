//! The supported container engines.

use std::fmt;

/// Declares the engines and [`EngineKind::ALL`], which then always lists all of them.
macro_rules! engines {
    ($($variant:ident = $program:literal, $name:literal;)*) => {
        /// A container engine. Its program can have another name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum EngineKind { $($variant),* }

        impl EngineKind {
            /// All engines, in the order in which `auto` tries them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The usual name of its program.
            pub const fn program(self) -> &'static str {
                match self { $(Self::$variant => $program),* }
            }
        }

        impl fmt::Display for EngineKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),* })
            }
        }
    };
}

engines! {
    Docker = "docker", "Docker";
    Podman = "podman", "Podman";
}
