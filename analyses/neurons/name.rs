//! How neurons are named: `L5.N1234`, `L5.E3.N12` of an expert, and files that list some.

use crate::analyses::inputs::{Sources, list_of, listed};
use crate::analyses::prelude::*;
use crate::model::arch::{Arch, Numbering};
use crate::report::cells;
use crate::table::TableError;
use crate::table::rows::{At, Cells, Named};
use std::collections::HashSet;

/// A neuron by its layer, its expert if it is of one that rows choose, and its number there, all from 0. They are ordered as they
/// stand in `mlp_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neuron {
    pub layer: usize,
    /// None where all rows go through the neuron: in an MLP, or in a shared expert.
    pub expert: Option<usize>,
    pub neuron: usize,
}

impl std::fmt::Display for Neuron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&cells::neuron(self.layer as i64, self.in_table().0, self.neuron as i64))
    }
}

impl std::str::FromStr for Neuron {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let named = || {
            let (place, neuron) = s.strip_prefix('L')?.split_once(".N")?;
            let (layer, expert) = match place.split_once(".E") {
                Some((layer, expert)) => (layer, Some(expert.parse().ok()?)),
                None => (place, None),
            };
            Some(Neuron { layer: layer.parse().ok()?, expert, neuron: neuron.parse().ok()? })
        };
        named().ok_or_else(|| format!("`{s}` is no neuron; write L5.N1234, or L5.E3.N12 of an expert"))
    }
}

impl serde::Serialize for Neuron {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Neuron {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

/// A layer that has neurons.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub layer: usize,
    /// How many it has.
    pub width: usize,
    /// Whether its activations go far below 0.
    pub gated: bool,
    numbering: Numbering,
}

impl Layer {
    /// A layer of a model.
    ///
    /// # Errors
    /// Why it has no neurons.
    pub fn of(arch: &Arch, layer: usize) -> Result<Self, String> {
        SiteKind::MlpAct.at(layer).check(arch).map_err(|why| why.to_string())?;
        if arch.layers[layer].feeds() {
            return Err(format!(
                "the neurons of layer {layer} add nothing to the residual stream: its recurrent mixer alone reads what they give"
            ));
        }
        let channel = &arch.layers[layer].channel;
        let numbering = channel.neurons();
        Ok(Layer { layer, width: numbering.total(), gated: channel.gated(), numbering })
    }

    /// The neuron of a column of `mlp_act`.
    pub fn name(&self, column: usize) -> Neuron {
        let Numbering { common, of_each, .. } = self.numbering;
        match column.checked_sub(common) {
            Some(i) if of_each > 0 => Neuron { layer: self.layer, expert: Some(i / of_each), neuron: i % of_each },
            _ => Neuron { layer: self.layer, expert: None, neuron: column },
        }
    }

    /// The column of one of its neurons.
    pub fn column(&self, neuron: Neuron) -> usize {
        self.columns(neuron.expert).start + neuron.neuron
    }

    /// The columns of an expert's neurons, or of those that all rows go through.
    pub fn columns(&self, expert: Option<usize>) -> Range<usize> {
        let Numbering { common, of_each, .. } = self.numbering;
        expert.map_or(0..common, |expert| common + expert * of_each..common + (expert + 1) * of_each)
    }

    /// All its neurons, by column.
    pub fn neurons(self) -> impl Iterator<Item = Neuron> {
        (0..self.width).map(move |column| self.name(column))
    }
}

impl Neuron {
    /// Whether the model has it.
    ///
    /// # Errors
    /// Why it has not.
    fn check(self, arch: &Arch) -> Result<(), String> {
        if self.layer >= arch.n_layers {
            return Err(format!("{self}: the model has layers 0 to {}", arch.n_layers - 1));
        }
        let of = Layer::of(arch, self.layer).map_err(|why| format!("{self}: {why}"))?.numbering;
        let Numbering { common, experts, of_each } = of;
        match self.expert {
            None if self.neuron < common => Ok(()),
            None if common == 0 => {
                Err(format!("{self}: the layer has experts 0 to {}; write L{}.E0.N0", experts - 1, self.layer))
            }
            None => Err(format!("{self}: the layer has neurons 0 to {}", common - 1)),
            Some(_) if experts == 0 => Err(format!(
                "{self}: the layer has one MLP, not several experts; write L{}.N{}",
                self.layer, self.neuron
            )),
            Some(expert) if expert >= experts => Err(format!("{self}: the layer has experts 0 to {}", experts - 1)),
            Some(_) if self.neuron < of_each => Ok(()),
            Some(_) => Err(format!("{self}: each expert of the layer has neurons 0 to {}", of_each - 1)),
        }
    }

    /// Its expert as a table has it.
    pub fn in_table(self) -> OfExpert {
        OfExpert(self.expert.map(|expert| expert as i64))
    }
}

/// A neuron's expert in a table: -1 for neurons that all rows go through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OfExpert(pub Option<i64>);

/// What a table says of that column.
pub const EXPERT: &str =
    "the neuron's expert, from 0; -1 where every position goes through the neuron: in an MLP, or in a shared expert";

impl<'t> Cells<'t> for OfExpert {
    /// With whether any neuron is of an expert.
    type Columns = (<i64 as Cells<'t>>::Columns, bool);

    fn columns(named: Named<'_>) -> Self::Columns {
        (i64::columns(named), false)
    }

    fn add(self, (columns, any): &mut Self::Columns) {
        *any |= self.0.is_some();
        self.0.unwrap_or(-1).add(columns);
    }

    fn any((_, any): &Self::Columns) -> bool {
        *any
    }

    fn finish((columns, _): Self::Columns, table: Table) -> Result<Table, TableError> {
        i64::finish(columns, table)
    }

    fn is_in(table: &Table, name: &str) -> bool {
        i64::is_in(table, name)
    }

    fn in_table(table: &'t Table, name: &str) -> Result<At<'t, Self>, TableError> {
        let expert = i64::in_table(table, name)?;
        Ok(Box::new(move |row| OfExpert(Some(expert(row)).filter(|expert| *expert >= 0))))
    }
}

/// Neurons that a parameter names, or a file; each once, in order. None where neither names any.
///
/// # Errors
/// If the file cannot be read, a line of it is no neuron, the model has not one, or one is named twice.
pub fn named(
    given: &[Neuron],
    file: Option<&Data>,
    arch: &Arch,
) -> Result<Option<(Vec<Neuron>, Sources)>, AnalysisError> {
    let bad = |why: String| AnalysisError::Bad(why);
    let Some(data) = file else {
        let by = param("neuron");
        let mut seen = HashSet::new();
        for neuron in given {
            neuron.check(arch).map_err(|why| bad(format!("{by}: {why}")))?;
            if !seen.insert(neuron) {
                return Err(bad(format!("{by} names {neuron} twice")));
            }
        }
        return Ok((!given.is_empty()).then(|| (given.to_vec(), Sources::new())));
    };
    let (units, source) = listed::<Neuron>(data)?;
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for (line, neuron) in units {
        let at = |why: String| bad(format!("{}: line {line}: {why}", data.display()));
        neuron.check(arch).map_err(at)?;
        if !seen.insert(neuron) {
            return Err(at(format!("{neuron} was named before")));
        }
        found.push(neuron);
    }
    match found.is_empty() {
        true => Err(bad(format!("{}: names no neuron; write one a line, as L5.N1234 or L5.E3.N12", data.display()))),
        false => Ok(Some((found, vec![source]))),
    }
}

/// The file that lists neurons, which [`named`] reads.
pub fn file(neurons: &[Neuron], about: &str) -> Vec<u8> {
    list_of(neurons, about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::tiny_arch;

    fn neuron(layer: usize, expert: Option<usize>, neuron: usize) -> Neuron {
        Neuron { layer, expert, neuron }
    }

    #[test]
    fn a_neuron_is_written_as_it_is_read() {
        for (text, expected) in [("L5.N1234", neuron(5, None, 1234)), ("L5.E3.N12", neuron(5, Some(3), 12))] {
            let read: Neuron = text.parse().unwrap();
            assert_eq!((read, read.to_string().as_str()), (expected, text));
        }
        for wrong in ["", "5.1234", "L5", "L5.H3", "L5.N", "L-1.N2", "l5.n2", "L5.E.N2", "L5.E3", "L5.N2.E3"] {
            assert!(wrong.parse::<Neuron>().is_err_and(|why| why.contains("L5.N1234")), "{wrong}");
        }
    }

    #[test]
    fn columns_go_from_the_shared_expert_to_the_last_and_names_with_them() {
        let numbering = Numbering { common: 3, experts: 4, of_each: 5 };
        let layer = Layer { layer: 2, width: numbering.total(), gated: true, numbering };
        let names: Vec<Neuron> = layer.neurons().collect();
        assert_eq!([names[2], names[3], names[22]], [neuron(2, None, 2), neuron(2, Some(0), 0), neuron(2, Some(3), 4)]);
        assert!(names.is_sorted() && names.len() == 23);
        assert!(names.iter().enumerate().all(|(column, name)| layer.column(*name) == column));
    }

    #[test]
    fn a_table_without_experts_goes_without_the_column() {
        rows! {
            struct Row in "rows" {
                neuron: i64 = "neuron",
                expert: OfExpert [if any] = EXPERT,
            }
        }
        let of = |experts: &[Option<i64>]| {
            let rows: Vec<Row> = experts.iter().map(|e| Row { neuron: 1, expert: OfExpert(*e) }).collect();
            let table = Row::table(rows.clone()).unwrap();
            assert_eq!(Row::read(&table).unwrap(), rows);
            table.has("expert")
        };
        assert!(of(&[None, Some(0), Some(7)]) && !of(&[None, None]));
    }

    #[test]
    fn a_file_of_neurons_names_its_line_when_it_is_wrong() {
        let arch = tiny_arch();
        let read = |text: &str| {
            let data = Data::in_memory("set.txt", text.as_bytes().to_vec());
            named(&[], Some(&data), &arch).map(|found| found.map(|(neurons, _)| neurons)).map_err(|e| e.to_string())
        };
        let pair = vec![neuron(1, None, 3), neuron(0, None, 2)];
        assert_eq!(read("# two\nL1.N3, L0.N2 # here\n\n"), Ok(Some(pair.clone())));
        let written = String::from_utf8(file(&pair, "two")).unwrap();
        assert_eq!(read(&written), Ok(Some(pair)));
        for (text, said) in [
            ("L0.N1\nL0.H1\n", "line 2: `L0.H1` is no neuron"),
            ("L0.N1\nL0.N1\n", "line 2: L0.N1 was named before"),
            ("L77.N1", "line 1: L77.N1: the model has layers 0 to"),
            ("L0.N99999", "line 1: L0.N99999: the layer has neurons 0 to"),
            ("L0.E1.N2", "line 1: L0.E1.N2: the layer has one MLP, not several experts; write L0.N2"),
            ("# nothing\n", "names no neuron"),
        ] {
            assert!(read(text).is_err_and(|why| why.contains(said)), "{text}: {:?}", read(text));
        }
    }
}
