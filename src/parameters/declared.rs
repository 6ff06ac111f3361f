//! Types of parameters, declared once by [`parameters!`](crate::parameters!): their fields with defaults, how flags give them, and
//! which values go together.
//!
//! ```
//! use gatelens::parameters;
//! use gatelens::parameters::Parameters;
//!
//! parameters! {
//!     /// Which prompts are asked about
//!     #[serde(default)]
//!     pub struct Prompts {
//!         /// Use only the prompts with this label
//!         label: Option<String>, [value_name = "LABEL"];
//!     }
//!
//!     /// Sample answers to prompts
//!     #[serde(default)]
//!     pub struct Answers {
//!         ..prompts: Prompts;
//!
//!         /// Generate answers of this many tokens
//!         generate: u32 = 16, in 1..=1000, [value_name = "N"];
//!
//!         /// Sample at this temperature (default: greedy)
//!         temperature: Option<f64>, in 0.1..2.0, excludes beams, [value_name = "T"];
//!
//!         /// Search with this many beams
//!         beams: Option<u16>;
//!     }
//! }
//!
//! let answers = Answers { generate: 0, ..Answers::default() };
//! assert_eq!(answers.check().unwrap_err().to_string(), "`generate`: `0` is no number from 1 to 1000");
//! let answers = Answers { temperature: Some(0.5), beams: Some(2), ..Answers::default() };
//! assert_eq!(answers.check().unwrap_err().to_string(), "`temperature` and `beams` exclude each other: leave one out");
//! ```
//!
//! `..prompts` takes in the parameters of another type. After a field's type come, in this order and each if it is wanted: `= default`
//! (`=> default` of a list, which a flag takes with commas; without either, the type's own default), `in` its range, `needs` another
//! parameter that has to be given too, `excludes` others, and in brackets what clap needs to know beside. The first line of the
//! documentation says what is done with the parameters. Where the crate has a feature `cli`, the type derives `clap::Args` with it.

use super::{ParameterError, param};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

/// Parameters of an analysis, or some that several share.
pub trait Parameters: Serialize + DeserializeOwned + 'static {
    /// One line that says what is done with them.
    const ABOUT: &'static str;

    /// Refuses values that are out of their range or do not go together.
    ///
    /// # Errors
    /// What is wrong, with the parameter's name.
    fn check(&self) -> Result<(), ParameterError> {
        Ok(())
    }
}

/// A parameter that may have a range: a number, or one that may be left out.
pub trait Ranged {
    /// The number.
    type Number: Copy + Display + FromStr + PartialOrd + Send + Sync + 'static;

    /// The number, if it is given.
    fn number(&self) -> Option<Self::Number>;
}

macro_rules! ranged {
    ($($Number:ty),*) => {$(
        impl Ranged for $Number {
            type Number = $Number;

            fn number(&self) -> Option<$Number> {
                Some(*self)
            }
        }
    )*};
}

ranged!(u8, u16, u32, f64);

impl<T: Ranged> Ranged for Option<T> {
    type Number = T::Number;

    fn number(&self) -> Option<T::Number> {
        self.as_ref().and_then(T::number)
    }
}

/// Refuses a number that is out of a range.
///
/// # Errors
/// If it is.
pub fn within<T: Ranged>(
    name: &'static str,
    value: &T,
    range: impl RangeBounds<T::Number>,
) -> Result<(), ParameterError> {
    match value.number().filter(|number| !range.contains(number)) {
        Some(number) => Err(ParameterError::Unsound { param: param(name), why: outside(&number.to_string(), &range) }),
        None => Ok(()),
    }
}

/// Reads a number of a range from its text, for a flag.
pub fn reader<T: Ranged>(
    range: impl RangeBounds<T::Number> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T::Number, String> + Clone + Send + Sync + 'static {
    move |text| text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| outside(text, &range))
}

/// What is said of a number that is out of a range.
fn outside<T: Display>(number: &str, range: &impl RangeBounds<T>) -> String {
    let start = match range.start_bound() {
        Bound::Included(least) => format!(" from {least}"),
        Bound::Excluded(less) => format!(" over {less}"),
        Bound::Unbounded => String::new(),
    };
    let end = match range.end_bound() {
        Bound::Included(most) => format!(" to {most}"),
        Bound::Excluded(more) => format!(" and under {more}"),
        Bound::Unbounded => " on".to_string(),
    };
    format!("`{number}` is no number{start}{end}")
}

/// Refuses a parameter that is given without another that it needs. Each has its name, and whether it is given: has another value
/// than its default.
///
/// # Errors
/// If it is.
pub fn needs([own, other]: [(&'static str, bool); 2]) -> Result<(), ParameterError> {
    match own.1 && !other.1 {
        true => Err(ParameterError::Lacking { param: param(own.0), needed: param(other.0) }),
        false => Ok(()),
    }
}

/// Refuses two parameters that are both given and exclude each other.
///
/// # Errors
/// If they are.
pub fn excludes([own, other]: [(&'static str, bool); 2]) -> Result<(), ParameterError> {
    match own.1 && other.1 {
        true => Err(ParameterError::Excluded { params: [own.0, other.0].map(param) }),
        false => Ok(()),
    }
}

/// One thing that [`Parameters::check`] looks at: values, and defaults.
pub type Rule<P> = fn(&P, &P) -> Result<(), ParameterError>;

/// Declares types of parameters; see [`parameters`](mod@crate::parameters).
#[macro_export]
macro_rules! parameters {
    ($(
        #[doc = $about:literal]
        $(#[$meta:meta])*
        pub struct $Name:ident { $($body:tt)* }
    )*) => {$(
        $crate::parameters! { @fields [$about $(#[$meta])*] $Name [] [] [] $($body)* }
    )*};

    // Of each field: what is declared, its default, and what is checked of it.
    (@fields $head:tt $Name:ident [$($fields:tt)*] [$($defaults:tt)*] [$($rules:tt)*]
        $(#[$meta:meta])* ..$field:ident : $Type:ty; $($rest:tt)*
    ) => {
        $crate::parameters! { @fields $head $Name
            [$($fields)*
                $(#[$meta])* #[cfg_attr(feature = "cli", command(flatten))] #[serde(flatten)] pub $field: $Type,]
            [$($defaults)* $field: Default::default(),]
            [$($rules)* |of, _| $crate::parameters::Parameters::check(&of.$field),]
            $($rest)*
        }
    };
    (@fields $head:tt $Name:ident [$($fields:tt)*] [$($defaults:tt)*] [$($rules:tt)*]
        $(#[$meta:meta])* $field:ident : $Type:ty $(= $default:expr)? $(=> $list:expr)? $(, in $range:expr)?
        $(, needs $needed:ident)? $(, excludes $($other:ident)|+)? $(, [$($clap:tt)*])?; $($rest:tt)*
    ) => {
        $crate::parameters! { @fields $head $Name
            [$($fields)*
                $(#[$meta])*
                #[cfg_attr(feature = "cli", arg(long))]
                $(#[cfg_attr(feature = "cli", arg(default_value_t = $default))])?
                $(#[cfg_attr(feature = "cli", arg(value_delimiter = ',', default_values_t = $list))])?
                $(#[cfg_attr(feature = "cli", arg(value_parser = $crate::parameters::reader::<$Type>($range)))])?
                $(#[cfg_attr(feature = "cli", arg(requires = stringify!($needed)))])?
                $(#[cfg_attr(feature = "cli", arg(conflicts_with_all = [$(stringify!($other)),+]))])?
                $(#[cfg_attr(feature = "cli", arg($($clap)*))])?
                pub $field: $Type,]
            [$($defaults)* $field: $crate::parameters!(@default $($default)? $($list)?),]
            [$($rules)*
                $(|of, _| $crate::parameters::within(stringify!($field), &of.$field, $range),)?
                $(|of, default| $crate::parameters::needs([
                    (stringify!($field), of.$field != default.$field),
                    (stringify!($needed), of.$needed != default.$needed),
                ]),)?
                $($(|of, default| $crate::parameters::excludes([
                    (stringify!($field), of.$field != default.$field),
                    (stringify!($other), of.$other != default.$other),
                ]),)+)?]
            $($rest)*
        }
    };

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };

    (@fields [$about:literal $(#[$meta:meta])*] $Name:ident [$($fields:tt)*] [$($defaults:tt)*] [$($rules:tt)*]) => {
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args))]
        #[doc = $about]
        $(#[$meta])*
        pub struct $Name { $($fields)* }

        impl Default for $Name {
            fn default() -> Self {
                $Name { $($defaults)* }
            }
        }

        impl $crate::parameters::Parameters for $Name {
            const ABOUT: &'static str = $about.trim_ascii();

            fn check(&self) -> Result<(), $crate::parameters::ParameterError> {
                let (default, rules): (_, &[$crate::parameters::Rule<Self>]) = (Self::default(), &[$($rules)*]);
                rules.iter().try_for_each(|rule| rule(self, &default))
            }
        }
    };
}
