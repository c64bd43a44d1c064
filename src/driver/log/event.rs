//! What an event consists of, and the macro that defines events.

use log::kv::Value;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// One line of the log.
pub(in crate::driver) trait Line {
    fn level(&self) -> log::Level;
    fn stage(&self) -> &'static str;
    /// Visits the fields in their order.
    fn fields<'s>(&'s self, visit: &mut dyn FnMut(&'static str, Field<'s>));
}

/// The value of a field, and how it is written in the text of the line.
#[derive(Clone, Copy)]
pub(in crate::driver) enum Field<'a> {
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
    /// A word without spaces, as it is.
    Word(&'a str),
    /// The same, of anything that can be displayed.
    Plain(&'a dyn fmt::Display),
    /// In quotes, as it is.
    Quoted(&'a dyn fmt::Display),
    /// A text of ours in quotes.
    Text(&'a str),
    /// In quotes, with escapes.
    Escaped(&'a str),
    /// A path in quotes, with escapes.
    Path(&'a Path),
    /// The name of a variant.
    Variant(&'a dyn fmt::Debug),
    /// Milliseconds with one decimal.
    Millis(Duration),
    /// An optional value that there is not: `-`.
    Nothing,
    /// The field is left out.
    Absent,
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Field::Signed(number) => number.fmt(f),
            Field::Unsigned(number) => number.fmt(f),
            Field::Bool(value) => value.fmt(f),
            Field::Word(word) => f.write_str(word),
            Field::Plain(value) => value.fmt(f),
            Field::Quoted(value) => write!(f, "\"{value}\""),
            Field::Text(text) => write!(f, "\"{text}\""),
            Field::Escaped(text) => write!(f, "{text:?}"),
            Field::Path(path) => write!(f, "{path:?}"),
            Field::Variant(value) => write!(f, "{value:?}"),
            Field::Millis(time) => write!(f, "{:.1}", millis(*time)),
            Field::Nothing => f.write_str("-"),
            Field::Absent => Ok(()),
        }
    }
}

impl<'a> Field<'a> {
    /// Without the quotes and escapes of the text.
    pub(super) fn value(self) -> Value<'a> {
        match self {
            Field::Signed(number) => number.into(),
            Field::Unsigned(number) => number.into(),
            Field::Bool(value) => value.into(),
            Field::Word(text) | Field::Text(text) | Field::Escaped(text) => text.into(),
            Field::Plain(value) | Field::Quoted(value) => Value::from_dyn_display(value),
            Field::Path(path) => path.to_str().unwrap_or("(not UTF-8)").into(),
            Field::Variant(value) => Value::from_dyn_debug(value),
            Field::Millis(time) => ((millis(time) * 10.0).round() / 10.0).into(),
            Field::Nothing | Field::Absent => Value::null(),
        }
    }

    /// A text, or no field at all.
    pub(super) fn text_if_any(text: Option<&'a str>) -> Field<'a> {
        text.map_or(Field::Absent, Field::Text)
    }

    pub(super) fn millis_if_any(time: Option<Duration>) -> Field<'a> {
        time.map_or(Field::Nothing, Field::Millis)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

macro_rules! from {
    ($($from:ty => $variant:ident),+ $(,)?) => {
        $(impl From<$from> for Field<'_> {
            fn from(value: $from) -> Self {
                Field::$variant(value.into())
            }
        })+
    };
}

from!(i32 => Signed, u32 => Unsigned, u64 => Unsigned, bool => Bool);

impl From<usize> for Field<'_> {
    fn from(value: usize) -> Self {
        Field::Unsigned(value as u64)
    }
}

impl<'a> From<&'a str> for Field<'a> {
    fn from(value: &'a str) -> Self {
        Field::Word(value)
    }
}

impl<'a, T: Into<Field<'a>>> From<Option<T>> for Field<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Field::Nothing, Into::into)
    }
}

/// One row of the table of all events.
#[cfg(test)]
pub(super) struct Row {
    pub(super) level: log::Level,
    pub(super) stage: &'static str,
    pub(super) fields: &'static [&'static str],
    pub(super) meaning: &'static str,
    pub(super) action: &'static str,
}

/// Defines an enum of events. For each: what it means (the doc comment), its name, level and stage, its
/// fields in their order, and what an operator does.
///
/// A field is `name: Type`, `name: Type as Style` or, if its value is always the same,
/// `name = value`. If all events have the same fields, these stand once: `Event with { … }`.
macro_rules! events {
    (
        $(#[$attribute:meta])*
        $enum:ident with $fields:tt {
            $(
                $(#[doc = $meaning:literal])+
                $variant:ident: $level:ident $stage:literal => $action:literal;
            )+
        }
    ) => {
        events! {
            $(#[$attribute])*
            $enum { $( $(#[doc = $meaning])+ $variant: $level $stage $fields => $action; )+ }
        }
    };
    (
        $(#[$attribute:meta])*
        $enum:ident {
            $(
                $(#[doc = $meaning:literal])+
                $variant:ident: $level:ident $stage:literal {
                    $( $name:ident $(: $type:ty $(as $style:path)?)? $(= $value:expr)? ),* $(,)?
                } => $action:literal;
            )+
        }
    ) => {
        $(#[$attribute])*
        pub(in crate::driver) enum $enum<'a> {
            $( $(#[doc = $meaning])+ $variant { $($( $name: $type, )?)* }, )+
        }

        impl $crate::driver::log::event::Line for $enum<'_> {
            fn level(&self) -> ::log::Level {
                match self {
                    $( $enum::$variant { .. } => ::log::Level::$level, )+
                }
            }

            fn stage(&self) -> &'static str {
                match self {
                    $( $enum::$variant { .. } => $stage, )+
                }
            }

            fn fields<'s>(
                &'s self,
                visit: &mut dyn FnMut(&'static str, $crate::driver::log::event::Field<'s>),
            ) {
                use $crate::driver::log::event::{pattern, styled};
                match self {
                    $(
                        $enum::$variant { $($( $name: pattern!($name $type), )?)* } => {
                            $(
                                $( visit(stringify!($name), styled!($name, $type $(, $style)?)); )?
                                $( visit(stringify!($name), Field::from($value)); )?
                            )*
                        }
                    )+
                }
            }
        }

        /// All of them.
        #[cfg(test)]
        pub(super) const ROWS: &[$crate::driver::log::event::Row] = &[
            $( $crate::driver::log::event::Row {
                level: ::log::Level::$level,
                stage: $stage,
                fields: &[$(stringify!($name)),*],
                meaning: concat!($($meaning),+),
                action: $action,
            }, )+
        ];
    };
}

macro_rules! pattern {
    ($name:ident $type:ty) => {
        $name
    };
}

macro_rules! styled {
    ($name:ident, $type:ty) => {
        Field::from(*$name)
    };
    ($name:ident, $type:ty, $style:path) => {
        $style(*$name)
    };
}

pub(super) use {events, pattern, styled};

#[cfg(test)]
mod tests {
    use super::Field;
    use std::time::Duration;

    #[test]
    fn a_field_has_the_time_as_the_line_shows_it() {
        for (micros, millis) in [(0, 0.0), (1_260, 1.3), (2_000_040, 2000.0)] {
            let value = Field::Millis(Duration::from_micros(micros)).value();
            assert_eq!(value.to_f64(), Some(millis));
        }
    }
}
