//! A report's table out of a data table: chosen columns, each with its way to be written, chosen rows in an order.
//!
//! ```
//! # use gatelens::report::listing::{Listing, Show};
//! # use gatelens::table::{Table, TableError};
//! # fn main() -> Result<(), TableError> {
//! let heads = Table::new("heads")
//!     .int("layer", "", [0, 1, 2])?
//!     .int("head", "", [3, 1, 0])?
//!     .float("effect_mean", "nats", [0.1, -0.8, 0.3])?;
//! let listing = Listing::of(&heads)
//!     .strongest("effect_mean")
//!     .first(2)
//!     .column("head", Show::Head("layer", "head"))
//!     .column("effect (nats)", Show::Signed("effect_mean", 2));
//! assert_eq!(listing.rows()?, [1, 2]);
//! let block = listing.block("The strongest heads")?;
//! assert_eq!(block.rows, [["L1.H1", "−0.80"], ["L2.H0", "+0.30"]]);
//! assert_eq!(block.caption, "The strongest heads (2 of 3 rows; all are in heads.parquet)");
//! # Ok(())
//! # }
//! ```

use super::cells::{
    EMPTY, count, exact, head, interval, number, p_value, points, points_interval, share, share_interval, signed,
};
use super::{Heading, TableBlock};
use crate::table::rows::Cells as _;
use crate::table::{Table, TableError};

/// Which column's values are written, and how; the names are the data table's. Digits are those after the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show<'a> {
    /// Text; as in every cell, `` `code` `` and `**bold**` in it are marks.
    Text(&'a str),
    /// How many there are: whole numbers, long ones in groups of digits.
    Count(&'a str),
    /// Whole numbers that name something, as tokens, in digits that can be copied.
    Id(&'a str),
    /// Numbers with so many digits.
    Number(&'a str, usize),
    /// Numbers of a grid, with the digits that they have.
    Exact(&'a str),
    /// Numbers whose direction counts, with so many digits.
    Signed(&'a str, usize),
    /// Shares, in percent.
    Share(&'a str),
    /// p-values and q-values.
    PValue(&'a str),
    /// An interval from what the names of its ends' columns begin with ([`crate::table::rows`]), with so many digits.
    Interval(&'a str, usize),
    /// The same of a share, in percent.
    ShareInterval(&'a str),
    /// Differences of shares, in percentage points.
    Points(&'a str),
    /// The interval of a difference of shares.
    PointsInterval(&'a str),
    /// A head from its layer and its number; where the layer is negative there is none.
    Head(&'a str, &'a str),
    /// True and false.
    Flag(&'a str),
}

/// Which rows come first.
#[derive(Debug, Clone, Copy)]
enum Order {
    Strongest,
    Ascending,
}

/// A choice of a data table's rows and columns.
#[derive(Debug, Clone)]
pub struct Listing<'a> {
    table: &'a Table,
    conditions: Vec<(&'a str, &'a str)>,
    order: Option<(&'a str, Order)>,
    limit: usize,
    columns: Vec<(Heading, Show<'a>)>,
}

impl<'a> Listing<'a> {
    /// All rows of the table, as yet without columns.
    pub fn of(table: &'a Table) -> Listing<'a> {
        Listing { table, conditions: Vec::new(), order: None, limit: usize::MAX, columns: Vec::new() }
    }

    /// Only the rows that have this text in this column.
    pub fn only(mut self, column: &'a str, text: &'a str) -> Listing<'a> {
        self.conditions.push((column, text));
        self
    }

    /// The rows by the size of a column's numbers, whatever their sign, the largest first, instead of in the table's order.
    /// Rows without a value come last; rows that are equal stay in the table's order.
    pub fn strongest(mut self, column: &'a str) -> Listing<'a> {
        self.order = Some((column, Order::Strongest));
        self
    }

    /// The rows from a column's smallest number on instead of in the table's order, those without a value last.
    pub fn ascending(mut self, column: &'a str) -> Listing<'a> {
        self.order = Some((column, Order::Ascending));
        self
    }

    /// At most so many rows; the caption says how many there are.
    pub fn first(mut self, rows: usize) -> Listing<'a> {
        self.limit = rows;
        self
    }

    /// Adds a column under a name of its own.
    pub fn column(mut self, name: impl Into<String>, show: Show<'a>) -> Listing<'a> {
        let text = matches!(show, Show::Text(_) | Show::Head(..) | Show::Flag(_));
        self.columns.push((Heading { name: name.into(), numeric: !text }, show));
        self
    }

    /// The numbers of the rows that are shown, from 0, in the order in which they are.
    ///
    /// # Errors
    /// If a column that rows are chosen or ordered by is missing or of another kind.
    pub fn rows(&self) -> Result<Vec<usize>, TableError> {
        let mut rows = self.chosen()?;
        rows.truncate(self.limit);
        Ok(rows)
    }

    /// The report's table.
    ///
    /// # Errors
    /// If a column is missing or of another kind than it is to be shown as.
    pub fn block(&self, caption: &str) -> Result<TableBlock, TableError> {
        let chosen = self.chosen()?;
        let shown = &chosen[..chosen.len().min(self.limit)];
        let mut rows = vec![Vec::with_capacity(self.columns.len()); shown.len()];
        for (_, show) in &self.columns {
            let cells = cells(self.table, *show)?;
            for (row, at) in rows.iter_mut().zip(shown) {
                row.push(cells(*at));
            }
        }
        let caption = match shown.len() < chosen.len() {
            true => {
                let (shown, all) = (shown.len(), count(chosen.len() as i64));
                format!("{caption} ({shown} of {all} rows; all are in {}.parquet)", self.table.name())
            }
            false => caption.to_owned(),
        };
        let header = self.columns.iter().map(|(heading, _)| heading.clone()).collect();
        Ok(TableBlock { caption, header, rows })
    }

    /// All rows that meet the conditions, in order.
    fn chosen(&self) -> Result<Vec<usize>, TableError> {
        let mut rows: Vec<usize> = (0..self.table.rows()).collect();
        for (column, text) in &self.conditions {
            let cells = self.table.opt_strs(column)?;
            rows.retain(|row| cells[*row] == Some(text));
        }
        if let Some((column, order)) = self.order {
            let cells = self.table.floats(column)?;
            let place = |row: usize| {
                cells[row].map_or(f64::INFINITY, |x| match order {
                    Order::Strongest => -x.abs(),
                    Order::Ascending => x,
                })
            };
            rows.sort_by(|a, b| place(*a).total_cmp(&place(*b)));
        }
        Ok(rows)
    }
}

/// A column's cell by its row.
type Cells<'a> = Box<dyn Fn(usize) -> String + 'a>;

fn cells<'a>(table: &'a Table, show: Show<'_>) -> Result<Cells<'a>, TableError> {
    let floats = |column: &str, write: fn(Option<f64>, usize) -> String, digits: usize| {
        let column = table.floats(column)?;
        Ok::<Cells<'a>, TableError>(Box::new(move |row| write(column[row], digits)))
    };
    match show {
        Show::Text(column) => {
            let column = table.opt_strs(column)?;
            Ok(Box::new(move |row| column[row].unwrap_or(EMPTY).to_owned()))
        }
        Show::Count(column) => {
            let column = table.ints(column)?;
            Ok(Box::new(move |row| count(column[row])))
        }
        Show::Id(column) => {
            let column = table.ints(column)?;
            Ok(Box::new(move |row| column[row].to_string()))
        }
        Show::Number(column, digits) => floats(column, number, digits),
        Show::Exact(column) => floats(column, |x, _| exact(x), 0),
        Show::Signed(column, digits) => floats(column, signed, digits),
        Show::Share(column) => floats(column, |x, _| share(x), 1),
        Show::PValue(column) => floats(column, |x, _| p_value(x), 3),
        Show::Points(column) => floats(column, |x, _| points(x), 1),
        Show::Interval(name, digits) => intervals(table, name, move |ends| {
            let (low, high) = ends.unzip();
            interval(low, high, digits)
        }),
        Show::ShareInterval(name) => intervals(table, name, share_interval),
        Show::PointsInterval(name) => intervals(table, name, points_interval),
        Show::Head(layer, number) => {
            let (layers, numbers) = (table.ints(layer)?, table.ints(number)?);
            Ok(Box::new(move |row| match layers[row] {
                ..0 => EMPTY.to_owned(),
                layer => head(layer, numbers[row]),
            }))
        }
        Show::Flag(column) => {
            let column = table.flags(column)?;
            Ok(Box::new(move |row| if column[row] { "yes" } else { "no" }.to_owned()))
        }
    }
}

/// Intervals, written by `write`.
fn intervals<'a>(
    table: &'a Table,
    name: &str,
    write: impl Fn(Option<(f64, f64)>) -> String + 'a,
) -> Result<Cells<'a>, TableError> {
    let ends_at = <Option<(f64, f64)>>::in_table(table, name)?;
    Ok(Box::new(move |row| write(ends_at(row))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads() -> Table {
        Table::new("heads")
            .opt_str("group", "", [Some("a"), None, Some("b"), Some("a")])
            .and_then(|table| table.int("layer", "", [0, 1, 2, 3]))
            .and_then(|table| table.int("head", "", [5, 6, 7, 12_345]))
            .and_then(|table| table.float("effect", "", [Some(0.1), Some(-0.8), None, Some(0.3)]))
            .and_then(|table| table.float("none", "", [None; 4]))
            .and_then(|table| table.float("low", "", [-0.1, -1.0, 0.0, 0.2]))
            .and_then(|table| table.float("high", "", [Some(0.1), Some(-0.8), None, Some(0.3)]))
            .and_then(|table| table.float("p", "", [0.5, 0.0001, 1.0, 0.049]))
            .and_then(|table| table.flag("kept", "", [true, false, true, false]))
            .unwrap()
    }

    #[test]
    fn the_strongest_come_first_and_rows_without_a_value_last() {
        let heads = heads();
        assert_eq!(Listing::of(&heads).strongest("effect").rows().unwrap(), [1, 3, 0, 2]);
        assert_eq!(Listing::of(&heads).strongest("none").rows().unwrap(), [0, 1, 2, 3], "equal rows stay in order");
    }

    #[test]
    fn every_kind_of_column_is_written_its_own_way() {
        let heads = heads();
        let block = Listing::of(&heads)
            .only("group", "a")
            .column("group", Show::Text("group"))
            .column("head", Show::Head("layer", "head"))
            .column("n", Show::Count("head"))
            .column("token", Show::Id("head"))
            .column("effect", Show::Signed("effect", 1))
            .column("plain", Show::Number("effect", 2))
            .column("share", Show::Share("effect"))
            .column("interval", Show::Interval("", 1))
            .column("of a share", Show::ShareInterval(""))
            .column("points", Show::Points("low"))
            .column("of points", Show::PointsInterval(""))
            .column("p", Show::PValue("p"))
            .column("kept", Show::Flag("kept"))
            .block("Heads")
            .unwrap();
        assert_eq!(block.caption, "Heads");
        assert_eq!(block.rows.len(), 2);
        assert_eq!(
            block.rows[0],
            [
                "a",
                "L0.H5",
                "5",
                "5",
                "+0.1",
                "0.10",
                "10.0\u{a0}%",
                "[−0.1,\u{a0}0.1]",
                "[−10.0,\u{a0}10.0]\u{a0}%",
                "−10.0\u{a0}points",
                "[−10.0,\u{a0}10.0]\u{a0}points",
                "0.500",
                "yes"
            ]
        );
        assert_eq!(block.rows[1][2..4], ["12\u{202f}345", "12345"], "an id can be copied");
        let numeric: Vec<bool> = block.header.iter().map(|heading| heading.numeric).collect();
        assert_eq!(numeric, [&[false, false][..], &[true; 10], &[false]].concat());
    }

    #[test]
    fn a_head_of_a_negative_layer_is_none() {
        let heads = Table::new("c").int("layer", "", [3, -1]).and_then(|t| t.int("head", "", [5, -1])).unwrap();
        let block = Listing::of(&heads).column("gate", Show::Head("layer", "head")).block("Gates").unwrap();
        assert_eq!(block.rows, [["L3.H5"], [EMPTY]]);
    }

    #[test]
    fn a_cut_table_says_of_how_many_rows_and_where_all_are() {
        let heads = heads();
        let listing = Listing::of(&heads).only("group", "a").first(1).column("layer", Show::Count("layer"));
        assert_eq!(listing.block("Heads").unwrap().caption, "Heads (1 of 2 rows; all are in heads.parquet)");
        assert_eq!(listing.clone().first(2).block("Heads").unwrap().caption, "Heads");
        assert_eq!(listing.only("group", "none").block("Heads").unwrap().rows.len(), 0);
    }

    #[test]
    fn a_column_that_is_missing_or_of_another_kind_is_an_error_that_names_it() {
        let heads = heads();
        let message = |listing: Listing<'_>| listing.block("t").unwrap_err().to_string();
        let all = || Listing::of(&heads);
        assert!(message(all().column("x", Show::Share("efect"))).contains("did you mean \"effect\"?"));
        assert!(message(all().column("x", Show::Count("group"))).contains("expected integer values, found text"));
        assert!(message(all().strongest("nothing")).contains("\"nothing\""));
        assert!(message(all().strongest("group")).contains("expected float values, found text"));
        assert!(message(all().only("layer", "1")).contains("expected text values, found integer"));
    }
}
