//! Closed choices with names.

/// Gives an enum with a list `ALL` of its values and their names the ways between both.
macro_rules! named {
    ($kind:ty) => {
        impl $kind {
            /// Its name.
            pub fn name(self) -> &'static str {
                Self::ALL.iter().find(|(each, _)| *each == self).map_or("", |(_, name)| name)
            }

            /// The one with this name, whatever its letter case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, each)| each.eq_ignore_ascii_case(name)).map(|(each, _)| *each)
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(super) use named;
