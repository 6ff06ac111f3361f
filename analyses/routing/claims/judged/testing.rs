//! Minimal tables of every analysis that claims are judged by, of a checkpoint that was measured and refuses; tests change a cell
//! and look at what is said.

use super::{Claim, Evidence, Ground, Judged, Other};
use crate::table::Table;
use std::collections::{BTreeMap, HashMap};

/// A column's cells; NaN is an empty one.
#[derive(Clone)]
pub(super) enum Cells {
    Texts(Vec<&'static str>),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Flags(Vec<bool>),
}

impl<const N: usize> From<[&'static str; N]> for Cells {
    fn from(cells: [&'static str; N]) -> Self {
        Cells::Texts(cells.into())
    }
}

impl<const N: usize> From<[i64; N]> for Cells {
    fn from(cells: [i64; N]) -> Self {
        Cells::Ints(cells.into())
    }
}

impl<const N: usize> From<[f64; N]> for Cells {
    fn from(cells: [f64; N]) -> Self {
        Cells::Floats(cells.into())
    }
}

impl<const N: usize> From<[bool; N]> for Cells {
    fn from(cells: [bool; N]) -> Self {
        Cells::Flags(cells.into())
    }
}

/// A table by its columns.
type Columns = Vec<(&'static str, Cells)>;

/// The tables of a checkpoint, `analysis/table`.
#[derive(Clone)]
pub(super) struct Suite(HashMap<&'static str, Columns>);

/// The heads of the table of methods, one a row; the gate is [`GATE`].
const HEADS: usize = 20;

/// The gate's row in the table of methods: layer 2, head 1, of four heads a layer.
pub(super) const GATE: usize = 9;

impl Suite {
    /// One that refuses half of the positive and a tenth of the negative prompts, and whose gate is L2.H1.
    pub(super) fn refusing() -> Self {
        let floats = |x: f64| Cells::from([x; HEADS]);
        let mut methods: Columns = vec![
            ("layer", Cells::Ints((0..HEADS as i64).map(|h| h / 4).collect())),
            ("head", Cells::Ints((0..HEADS as i64).map(|h| h % 4).collect())),
            ("n", [120; HEADS].into()),
            ("rank_interchange", Cells::Ints((1..=HEADS as i64).collect())),
            ("rank_dla", Cells::Ints((1..=HEADS as i64).collect())),
        ];
        let columns = [
            ("interchange_mean", -0.4),
            ("interchange_ci_low", -0.5),
            ("interchange_ci_high", -0.3),
            ("interchange_crossed", 0.2),
            ("interchange_crossed_ci_low", 0.1),
            ("interchange_crossed_ci_high", 0.3),
            ("interchange_q", 0.002),
            ("interchange_p_max", 0.0005),
            ("ablation_mean", -0.1),
            ("ablation_crossed", 0.05),
            ("ablation_crossed_ci_low", -0.01),
            ("ablation_crossed_ci_high", 0.1),
            ("ablation_p", 0.2),
            ("ablation_q", 0.4),
            ("dla_mean", 0.01),
            ("dla_ci_low", 0.0),
            ("dla_ci_high", 0.02),
            ("dla_share", 0.004),
            ("dla_share_ci_low", 0.003),
            ("dla_share_ci_high", 0.005),
        ];
        methods.extend(columns.map(|(name, x)| (name, floats(x))));
        let tables: [(&str, Columns); 9] = [
            ("contrast-methods/heads", methods),
            ("behaviour/rates", rates()),
            ("behaviour/separation", separation()),
            ("screen/circuit", vec![("layer", [2].into()), ("head", [1].into()), ("sufficiency", [0.3].into())]),
            ("screen/held_out", held_out()),
            (
                "contrast-methods/missed",
                vec![
                    ("layer", [2].into()),
                    ("head", [1].into()),
                    ("ablation_misses", [true].into()),
                    ("dla_misses", [true].into()),
                ],
            ),
            (
                "contrast-methods/agreement",
                vec![
                    ("first", ["interchange"].into()),
                    ("second", ["ablation"].into()),
                    ("spearman_size", [0.5].into()),
                ],
            ),
            ("cascade/components", components()),
            ("cascade/repair", repair()),
        ];
        Suite(tables.into_iter().collect())
    }

    /// Sets a cell.
    pub(super) fn set(mut self, table: &str, column: &str, row: usize, value: impl Into<Cells>) -> Self {
        let columns = self.0.get_mut(table).unwrap();
        let (_, cells) = columns.iter_mut().find(|(name, _)| *name == column).unwrap();
        match (cells, value.into()) {
            (Cells::Texts(cells), Cells::Texts(value)) => cells[row] = value[0],
            (Cells::Ints(cells), Cells::Ints(value)) => cells[row] = value[0],
            (Cells::Floats(cells), Cells::Floats(value)) => cells[row] = value[0],
            (Cells::Flags(cells), Cells::Flags(value)) => cells[row] = value[0],
            _ => panic!("{table}: {column} is of another kind"),
        }
        self
    }

    /// Sets a cell of the gate's in the table of methods.
    pub(super) fn gate(self, column: &str, value: impl Into<Cells>) -> Self {
        self.set("contrast-methods/heads", column, GATE, value)
    }

    /// Takes all rows out of a table.
    pub(super) fn empty(mut self, table: &str) -> Self {
        for (_, cells) in self.0.get_mut(table).unwrap() {
            match cells {
                Cells::Texts(cells) => cells.clear(),
                Cells::Ints(cells) => cells.clear(),
                Cells::Floats(cells) => cells.clear(),
                Cells::Flags(cells) => cells.clear(),
            }
        }
        self
    }

    fn tables(&self) -> BTreeMap<String, Vec<Table>> {
        let mut suite: BTreeMap<String, Vec<Table>> = BTreeMap::new();
        for (path, columns) in &self.0 {
            let (analysis, name) = path.split_once('/').unwrap();
            suite.entry(analysis.to_string()).or_default().push(table(name, columns));
        }
        suite
    }

    /// The checkpoint as one of the others.
    pub(super) fn other(&self, model: &str, parameters: u64) -> Other {
        Other { model: model.to_string(), parameters, tables: self.tables() }
    }

    /// What a claim says of the checkpoint, which has 100 parameters.
    pub(super) fn judge(&self, claim: fn(&Ground) -> Judged) -> Claim {
        self.beside(claim, &[], None)
    }

    /// The same beside other checkpoints.
    pub(super) fn beside(&self, claim: fn(&Ground) -> Judged, others: &[Other], overlap: Option<&Table>) -> Claim {
        let (tables, left_out) = (self.tables(), BTreeMap::new());
        let evidence = Evidence { tables: &tables, left_out: &left_out, overlap, parameters: 100, others };
        claim(&Ground::of(&evidence).unwrap()).unwrap()
    }
}

/// A table of these columns.
pub(super) fn table(name: &str, columns: &[(&'static str, Cells)]) -> Table {
    let add = |table: Table, (name, cells): &(&str, Cells)| match cells.clone() {
        Cells::Texts(cells) => table.str(name, "", cells).unwrap(),
        Cells::Ints(cells) => table.int(name, "", cells).unwrap(),
        Cells::Floats(cells) => table.float(name, "", cells).unwrap(),
        Cells::Flags(cells) => table.flag(name, "", cells).unwrap(),
    };
    columns.iter().fold(Table::new(name), add)
}

fn rates() -> Columns {
    vec![
        ("side", ["positive", "negative"].into()),
        ("by", ["all", "all"].into()),
        ("value", ["", ""].into()),
        ("n", [120, 120].into()),
        ("refusal", [0.5, 0.1].into()),
        ("evasion", [0.1, 0.0].into()),
        ("answer", [0.4, 0.9].into()),
        ("refusal_low", [0.41, 0.06].into()),
        ("refusal_high", [0.59, 0.17].into()),
    ]
}

fn separation() -> Columns {
    vec![
        ("half", ["held out"].into()),
        ("lang", [""].into()),
        ("basis", ["refusals"].into()),
        ("auc", [0.8].into()),
        ("ci_low", [0.7].into()),
        ("ci_high", [0.9].into()),
    ]
}

fn held_out() -> Columns {
    vec![
        ("half", ["first", "second", "both"].into()),
        ("layer", [2, 2, 2].into()),
        ("head", [1, 1, 1].into()),
        ("necessity", [0.1, 0.2, 0.15].into()),
        ("necessity_ci_low", [0.0, 0.1, 0.08].into()),
        ("necessity_ci_high", [0.2, 0.3, 0.22].into()),
        ("sufficiency", [0.3, 0.2, 0.25].into()),
        ("sufficiency_ci_low", [0.2, 0.1, 0.15].into()),
        ("sufficiency_ci_high", [0.4, 0.3, 0.35].into()),
    ]
}

fn components() -> Columns {
    vec![
        ("layer", [3, 4].into()),
        ("component", ["head.0", "head.2"].into()),
        ("share_of_effect", [0.3, 0.1].into()),
        ("amplifier", [true, false].into()),
    ]
}

fn repair() -> Columns {
    vec![
        ("n", [120].into()),
        ("total_mean", [-0.4].into()),
        ("direct_mean", [-0.1].into()),
        ("later_heads_mean", [-0.2].into()),
        ("later_mlps_mean", [-0.1].into()),
        ("later_heads_share", [0.5].into()),
        ("later_heads_share_ci_low", [0.2].into()),
        ("later_heads_share_ci_high", [0.8].into()),
    ]
}
