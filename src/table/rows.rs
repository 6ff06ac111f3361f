//! Tables as row types: a table's columns are the fields of the struct that a row is, declared once by [`rows!`](crate::rows).
//!
//! ```
//! use gatelens::rows;
//! use gatelens::table::rows::Row;
//! use gatelens::table::{Table, TableError};
//!
//! rows! {
//!     /// The pair of which something was measured.
//!     pub struct OfPair<'a> {
//!         id: &'a str = "the pair",
//!         group: Option<&'a str> = "the pair's group",
//!     }
//!
//!     /// One row a pair.
//!     pub struct PairRow<'a> in "pairs" {
//!         pair: OfPair<'a> as "",
//!         effect: Option<f64> = "patched minus base metric, nats",
//!         interval: Option<(f64, f64)> as "ci_" = ["lower end of its 95 % interval", "its upper end"],
//!         estimate: Option<f64> [if any] = "first-order estimate of the effect, nats",
//!     }
//! }
//!
//! # fn main() -> Result<(), TableError> {
//! let pair = OfPair { id: "p1", group: None };
//! let row = PairRow { pair, effect: Some(0.5), interval: Some((0.25, 0.75)), estimate: None };
//! let table: Table = PairRow::table([row.clone()])?;
//! let names: Vec<&str> = table.columns().map(|column| column.name).collect();
//! assert_eq!(names, ["id", "group", "effect", "ci_low", "ci_high"]);
//! assert_eq!(PairRow::read(&table)?, [row]);
//! assert_eq!(table.column(PairRow::effect)?, [Some(0.5)]);
//! # Ok(())
//! # }
//! ```
//!
//! A field of one column is called what its column is called. A field of several (a struct that `rows!` made, or an interval)
//! says after `as` what their names begin with. `[if any]`: a table in which no row has a value goes without the columns.
//! `[newer]`: older tables lack them. Both are read as the type's default where they are missing; every other column that is
//! missing is an error that names it. In the documentation of a struct's columns, `{}` stands for what the struct that embeds it
//! says of it.

use std::borrow::Cow;
use std::marker::PhantomData;

use super::texts::TextsBuilder;
use super::{Data, Table, TableError};

/// What the columns of a value are called, and what they mean.
#[derive(Debug, Clone, Copy)]
pub struct Named<'n> {
    /// The column's name, or what the names of several begin with.
    pub name: &'n str,
    /// Of one column, its documentation; of several, what their documentation is made of.
    pub docs: &'n [&'n str],
    /// The columns of a list, whose names are known when the table is made.
    pub listed: &'n [String],
}

impl<'n> Named<'n> {
    /// A part of a value: its name comes after the whole's, and its documentation says what the whole is.
    pub fn part<R>(self, name: &str, docs: &[&str], then: impl FnOnce(Named<'_>) -> R) -> R {
        let name = format!("{}{name}", self.name);
        let of = self.docs.first().copied().unwrap_or_default();
        let docs: Vec<String> = docs.iter().map(|doc| doc.replace("{}", of)).collect();
        let docs: Vec<&str> = docs.iter().map(String::as_str).collect();
        then(Named { name: &name, docs: &docs, listed: self.listed })
    }

    fn doc(self, k: usize) -> String {
        self.docs.get(k).copied().unwrap_or_default().to_owned()
    }
}

/// A value's cells of each row of a table, by the row's number from 0.
pub type At<'t, T> = Box<dyn Fn(usize) -> T + 't>;

/// What stands in one or several columns of a row.
pub trait Cells<'t>: Sized + 't {
    /// The columns while rows are added.
    type Columns;

    /// Columns without rows.
    fn columns(named: Named<'_>) -> Self::Columns;

    /// Adds a row.
    fn add(self, columns: &mut Self::Columns);

    /// Whether any row has a value.
    fn any(_columns: &Self::Columns) -> bool {
        true
    }

    /// Adds the columns to a table.
    ///
    /// # Errors
    /// If a name is there already.
    fn finish(columns: Self::Columns, table: Table) -> Result<Table, TableError>;

    /// Whether a table has any of the columns.
    fn is_in(table: &Table, name: &str) -> bool;

    /// The values of a table.
    ///
    /// # Errors
    /// If a column is missing, is of another kind, or has an empty cell where a value must be.
    fn in_table(table: &'t Table, name: &str) -> Result<At<'t, Self>, TableError>;
}

/// A struct that [`rows!`](crate::rows) made.
pub trait Group<'t>: Cells<'t> + Default {}

/// A column of a row type, or several that are one field of it.
#[derive(Debug)]
pub struct Column<T> {
    /// Its name, or what the names of several begin with.
    pub name: &'static str,
    absent: Option<fn() -> T>,
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<T> {}

impl<T> Column<T> {
    /// A column that every table has.
    pub const fn new(name: &'static str) -> Column<T> {
        Column { name, absent: None }
    }

    /// A column that some tables lack; the values are the type's default there.
    pub const fn or_default(name: &'static str) -> Column<T>
    where
        T: Default,
    {
        Column { name, absent: Some(T::default) }
    }

    /// What a part of a field of several columns is called in the table.
    pub fn with<U>(self, part: Column<U>) -> String {
        format!("{}{}", self.name, part.name)
    }

    /// The values of a table, where names begin so.
    ///
    /// # Errors
    /// As [`Cells::in_table`].
    pub fn cells<'t>(self, table: &'t Table, prefix: &str) -> Result<At<'t, T>, TableError>
    where
        T: Cells<'t>,
    {
        let name = format!("{prefix}{}", self.name);
        match self.absent {
            Some(absent) if !T::is_in(table, &name) => Ok(Box::new(move |_| absent())),
            _ => T::in_table(table, &name),
        }
    }
}

/// What one row of a table is.
pub trait Row<'t>: Cells<'t> {
    /// The table's name.
    const TABLE: &'static str;

    /// The table of these rows, which are taken one after another.
    ///
    /// # Errors
    /// If two columns have one name.
    fn table(rows: impl IntoIterator<Item = Self>) -> Result<Table, TableError> {
        table(Self::TABLE, &[], rows)
    }

    /// The rows of a table.
    ///
    /// # Errors
    /// As [`Cells::in_table`].
    fn read(table: &'t Table) -> Result<Vec<Self>, TableError> {
        Ok((0..table.rows()).map(Self::in_table(table, "")?).collect())
    }
}

/// A table of rows under a name of its own, with columns that are listed.
///
/// # Errors
/// If two columns have one name.
pub fn table<'t, R: Cells<'t>>(
    name: &str,
    listed: &[String],
    rows: impl IntoIterator<Item = R>,
) -> Result<Table, TableError> {
    let mut columns = R::columns(Named { name: "", docs: &[], listed });
    rows.into_iter().for_each(|row| row.add(&mut columns));
    R::finish(columns, Table::new(name))
}

impl Table {
    /// Whether a column is there; of several, whether any is.
    pub fn holds<'t, T: Cells<'t>>(&self, column: Column<T>) -> bool {
        T::is_in(self, column.name)
    }

    /// The values of a column, one a row.
    ///
    /// # Errors
    /// As [`Cells::in_table`].
    pub fn column<'t, T: Cells<'t>>(&'t self, column: Column<T>) -> Result<Vec<T>, TableError> {
        let cells = column.cells(self, "")?;
        Ok((0..self.rows()).map(cells).collect())
    }
}

/// A column while rows are added.
#[derive(Debug)]
pub struct Adding<V> {
    name: String,
    doc: String,
    values: V,
}

impl<V: Default> Adding<V> {
    fn new(named: Named<'_>) -> Self {
        Adding { name: named.name.to_owned(), doc: named.doc(0), values: V::default() }
    }
}

/// Writes [`Cells`] for types of one column: what is kept of each row, the column's data, and a table's column as values.
macro_rules! one_column {
    ($type:ty, $values:ty, |$value:ident| $kept:expr, $data:expr, |$table:ident, $name:ident| $read:expr
     $(, |$any:ident| $has:expr)?) => {
        impl<'t> Cells<'t> for $type {
            type Columns = Adding<$values>;

            fn columns(named: Named<'_>) -> Self::Columns {
                Adding::new(named)
            }

            fn add(self, columns: &mut Self::Columns) {
                let $value = self;
                columns.values.push($kept);
            }

            $(fn any(columns: &Self::Columns) -> bool {
                let $any = &columns.values;
                $has
            })?

            fn finish(columns: Self::Columns, table: Table) -> Result<Table, TableError> {
                table.with(&columns.name, &columns.doc, $data(columns.values.into()))
            }

            fn is_in(table: &Table, name: &str) -> bool {
                table.has(name)
            }

            fn in_table($table: &'t Table, $name: &str) -> Result<At<'t, Self>, TableError> {
                let values = $read?;
                Ok(Box::new(move |row| values[row].clone()))
            }
        }
    };
}

one_column!(i64, Vec<i64>, |value| value, Data::Int, |table, name| table.ints(name));
one_column!(bool, Vec<bool>, |value| value, Data::Flag, |table, name| table.flags(name));
one_column!(f64, Vec<Option<f64>>, |value| Some(value).filter(|x| !x.is_nan()), Data::Float, |table, name| {
    let filled = |(row, cell): (usize, &Option<f64>)| cell.ok_or_else(|| table.empty_cell(name, row));
    table.floats(name)?.iter().enumerate().map(filled).collect::<Result<Vec<f64>, _>>()
});
one_column!(
    Option<f64>,
    Vec<Option<f64>>,
    |value| value.filter(|x| !x.is_nan()),
    Data::Float,
    |table, name| table.floats(name),
    |values| values.iter().any(Option::is_some)
);
one_column!(&'t str, TextsBuilder, |value| Some(value), Data::Str, |table, name| table.strs(name));
one_column!(Cow<'t, str>, TextsBuilder, |value| Some(&*value), Data::Str, |table, name| {
    table.strs(name).map(|texts| texts.into_iter().map(Cow::Borrowed).collect::<Vec<_>>())
});
one_column!(Option<&'t str>, TextsBuilder, |value| value, Data::Str, |table, name| table.opt_strs(name), |texts| texts
    .any());
one_column!(
    Option<Cow<'t, str>>,
    TextsBuilder,
    |value| value.as_deref(),
    Data::Str,
    |table, name| table
        .opt_strs(name)
        .map(|texts| { texts.into_iter().map(|text| text.map(Cow::Borrowed)).collect::<Vec<_>>() }),
    |texts| texts.any()
);

/// An interval: the columns of its lower and its upper end, which are called `PREFIXlow` and `PREFIXhigh`.
impl<'t> Cells<'t> for Option<(f64, f64)> {
    type Columns = [Adding<Vec<Option<f64>>>; 2];

    fn columns(named: Named<'_>) -> Self::Columns {
        let one =
            |k: usize| Adding { name: format!("{}{}", named.name, ENDS[k]), doc: named.doc(k), values: Vec::new() };
        [one(0), one(1)]
    }

    fn add(self, [low, high]: &mut Self::Columns) {
        Cells::add(self.map(|ends| ends.0), low);
        Cells::add(self.map(|ends| ends.1), high);
    }

    fn any([low, _]: &Self::Columns) -> bool {
        <Option<f64> as Cells>::any(low)
    }

    fn finish([low, high]: Self::Columns, table: Table) -> Result<Table, TableError> {
        <Option<f64> as Cells>::finish(high, <Option<f64> as Cells>::finish(low, table)?)
    }

    fn is_in(table: &Table, name: &str) -> bool {
        ends(name).iter().any(|name| table.has(name))
    }

    fn in_table(table: &'t Table, name: &str) -> Result<At<'t, Self>, TableError> {
        let [low, high] = ends(name);
        let (low, high) = (table.floats(&low)?, table.floats(&high)?);
        Ok(Box::new(move |row| low[row].zip(high[row])))
    }
}

/// What the names of the columns of an interval's ends end with.
const ENDS: [&str; 2] = ["low", "high"];

/// The columns of an interval's ends, by what their names begin with.
pub(crate) fn ends(name: &str) -> [String; 2] {
    ENDS.map(|end| format!("{name}{end}"))
}

/// Numbers of which each has a column: those that are listed when the table is made. They are read by their names.
impl<'t> Cells<'t> for Vec<Option<f64>> {
    type Columns = Vec<Adding<Vec<Option<f64>>>>;

    fn columns(named: Named<'_>) -> Self::Columns {
        let one = |name: &String| Adding { name: name.clone(), doc: named.doc(0), values: Vec::new() };
        named.listed.iter().map(one).collect()
    }

    fn add(self, columns: &mut Self::Columns) {
        let cells = self.into_iter().chain(std::iter::repeat(None));
        columns.iter_mut().zip(cells).for_each(|(column, cell)| cell.add(column));
    }

    fn finish(columns: Self::Columns, table: Table) -> Result<Table, TableError> {
        columns.into_iter().try_fold(table, |table, column| <Option<f64> as Cells>::finish(column, table))
    }

    fn is_in(_: &Table, _: &str) -> bool {
        false
    }

    fn in_table(_: &'t Table, _: &str) -> Result<At<'t, Self>, TableError> {
        Ok(Box::new(|_| Vec::new()))
    }
}

/// A row without it has the cells of the type's default.
impl<'t, G: Group<'t>> Cells<'t> for Option<G> {
    type Columns = (G::Columns, bool);

    fn columns(named: Named<'_>) -> Self::Columns {
        (G::columns(named), false)
    }

    fn add(self, (columns, any): &mut Self::Columns) {
        *any |= self.is_some();
        self.unwrap_or_default().add(columns);
    }

    fn any(columns: &Self::Columns) -> bool {
        columns.1
    }

    fn finish((columns, _): Self::Columns, table: Table) -> Result<Table, TableError> {
        G::finish(columns, table)
    }

    fn is_in(table: &Table, name: &str) -> bool {
        G::is_in(table, name)
    }

    fn in_table(table: &'t Table, name: &str) -> Result<At<'t, Self>, TableError> {
        let group = G::in_table(table, name)?;
        Ok(Box::new(move |row| Some(group(row))))
    }
}

/// A column's documentation, or that of each of several.
pub trait Docs {
    /// As a list.
    fn docs(&self) -> &[&str];
}

impl Docs for &str {
    fn docs(&self) -> &[&str] {
        std::slice::from_ref(self)
    }
}

impl<const N: usize> Docs for [&str; N] {
    fn docs(&self) -> &[&str] {
        self
    }
}

/// Nothing: a row type's parameter, by which its columns are named, has no column of its own.
impl<'t, V: 'static> Cells<'t> for PhantomData<V> {
    type Columns = ();

    fn columns(_: Named<'_>) {}

    fn add(self, _: &mut ()) {}

    fn any(_: &()) -> bool {
        false
    }

    fn finish(_: (), table: Table) -> Result<Table, TableError> {
        Ok(table)
    }

    fn is_in(_: &Table, _: &str) -> bool {
        false
    }

    fn in_table(_: &'t Table, _: &str) -> Result<At<'t, Self>, TableError> {
        Ok(Box::new(|_| PhantomData))
    }
}

/// Declares row types; see [`table::rows`](crate::table::rows). A name that is no literal stands in parentheses.
#[macro_export]
macro_rules! rows {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $Name:ident $(<$life:lifetime $(, $V:ident : $Bound:path)?>)? $(in $table:literal)? {
            $(
                $(#[$of_field:meta])*
                $field:ident : $type:ty $([$($when:ident)+])? $(as $name:tt)? $(= $doc:expr)?
            ),* $(,)?
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq)]
        $vis struct $Name $(<$life $(, $V: $Bound)?>)? {
            $($(#[$of_field])* pub $field: $type,)*
        }

        /// The columns, by field.
        #[allow(dead_code, non_upper_case_globals, unused_parens)]
        impl $(<$life $(, $V: $Bound)?>)? $Name $(<$life $(, $V)?>)? {
            $(
                pub const $field: $crate::table::rows::Column<$type> =
                    $crate::rows!(@column [$($($when)+)?] $crate::rows!(@name $field $($name)?));
            )*
        }

        $crate::rows! {
            @type $Name [$($life $(, $V: $Bound)?)?] [$($table)?]
            $($field [$type] [$($($when)+)?] [$crate::rows!(@name $field $($name)?)] [$($doc)?],)*
        }
    )*};

    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $name:tt) => { $name };

    (@column [] $name:expr) => { $crate::table::rows::Column::new($name) };
    (@column [$($when:ident)+] $name:expr) => { $crate::table::rows::Column::or_default($name) };

    (@docs []) => { [""; 0] };
    (@docs [$doc:expr]) => { $doc };

    (@written [if any] $any:expr) => { $any };
    (@written [$($when:ident)*] $any:expr) => { true };

    (@type $Name:ident [] $($rest:tt)*) => { $crate::rows!(@impl ['t] [$Name] 't $($rest)*); };
    (@type $Name:ident [$life:lifetime] $($rest:tt)*) => {
        $crate::rows!(@impl [$life] [$Name<$life>] $life $($rest)*);
    };
    (@type $Name:ident [$life:lifetime, $V:ident : $Bound:path] $($rest:tt)*) => {
        $crate::rows!(@impl [$life, $V: $Bound] [$Name<$life, $V>] $life $($rest)*);
    };

    (@row [$($generic:tt)*] [$Row:ty] $t:lifetime []) => {};
    (@row [$($generic:tt)*] [$Row:ty] $t:lifetime [$table:literal]) => {
        impl<$($generic)*> $crate::table::rows::Row<$t> for $Row {
            const TABLE: &'static str = $table;
        }
    };

    (
        @impl [$($generic:tt)*] [$Row:ty] $t:lifetime [$($table:literal)?]
        $($field:ident [$type:ty] [$($when:ident)*] [$name:expr] [$($doc:expr)?],)*
    ) => {
        $crate::rows!(@row [$($generic)*] [$Row] $t [$($table)?]);

        impl<$($generic)*> $crate::table::rows::Group<$t> for $Row {}

        #[allow(unused_parens)]
        impl<$($generic)*> $crate::table::rows::Cells<$t> for $Row {
            type Columns = ($(<$type as $crate::table::rows::Cells<$t>>::Columns,)*);

            fn columns(named: $crate::table::rows::Named<'_>) -> Self::Columns {
                ($(named.part(
                    $name,
                    $crate::table::rows::Docs::docs(&$crate::rows!(@docs [$($doc)?])),
                    <$type as $crate::table::rows::Cells<$t>>::columns,
                ),)*)
            }

            fn add(self, columns: &mut Self::Columns) {
                let ($($field,)*) = columns;
                $($crate::table::rows::Cells::add(self.$field, $field);)*
            }

            fn any(columns: &Self::Columns) -> bool {
                let ($($field,)*) = columns;
                false $(|| <$type as $crate::table::rows::Cells<$t>>::any($field))*
            }

            fn finish(
                columns: Self::Columns,
                mut table: $crate::table::Table,
            ) -> Result<$crate::table::Table, $crate::table::TableError> {
                let ($($field,)*) = columns;
                $(
                    if $crate::rows!(@written [$($when)*] <$type as $crate::table::rows::Cells<$t>>::any(&$field)) {
                        table = <$type as $crate::table::rows::Cells<$t>>::finish($field, table)?;
                    }
                )*
                Ok(table)
            }

            fn is_in(table: &$crate::table::Table, name: &str) -> bool {
                false $(|| <$type as $crate::table::rows::Cells<$t>>::is_in(table, &format!("{name}{}", $name)))*
            }

            fn in_table(
                table: &$t $crate::table::Table,
                name: &str,
            ) -> Result<$crate::table::rows::At<$t, Self>, $crate::table::TableError> {
                $(let $field = Self::$field.cells(table, name)?;)*
                Ok(Box::new(move |row| Self { $($field: $field(row),)* }))
            }
        }
    };
}

#[cfg(test)]
mod tests;
