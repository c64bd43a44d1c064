//! Enums whose variants have names in texts: in messages, in the record.

/// Gives each variant of an enum its name. A variant that is left out does not compile.
macro_rules! names {
    ($of:ident: $($variant:ident = $name:literal,)+) => {
        impl $of {
            pub(crate) const ALL: [$of; [$($name),+].len()] = [$($of::$variant),+];

            pub(crate) fn name(self) -> &'static str {
                match self {
                    $($of::$variant => $name,)+
                }
            }

            pub(crate) fn from_name(name: &str) -> Option<$of> {
                $of::ALL.into_iter().find(|one| one.name() == name)
            }
        }
    };
}

pub(crate) use names;
