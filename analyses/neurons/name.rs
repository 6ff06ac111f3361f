//! How neurons are named: `L5.N1234`, and files that list some.

use crate::analyses::inputs::{Sources, list_of, listed};
use crate::analyses::prelude::*;
use crate::model::arch::Arch;
use crate::site::Units;
use std::collections::HashSet;

/// A neuron by its layer and its number there, both from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neuron {
    pub layer: usize,
    pub neuron: usize,
}

impl std::fmt::Display for Neuron {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "L{}.N{}", self.layer, self.neuron)
    }
}

impl std::str::FromStr for Neuron {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parts = || s.strip_prefix('L')?.split_once(".N");
        let number =
            |(layer, neuron): (&str, &str)| Some(Neuron { layer: layer.parse().ok()?, neuron: neuron.parse().ok()? });
        parts().and_then(number).ok_or_else(|| format!("`{s}` is no neuron; write L5.N1234"))
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

/// How many neurons a layer has; why it has none.
///
/// # Errors
/// If the layer has no neurons.
pub fn width(arch: &Arch, layer: usize) -> Result<usize, String> {
    let site = SiteKind::MlpAct.at(layer).check(arch).map_err(|why| why.to_string())?;
    match site.units(arch) {
        Units::Columns { width } => Ok(width),
        _ => Err(format!("layer {layer} has no neurons")),
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
        match width(arch, self.layer).map_err(|why| format!("{self}: {why}"))? {
            width if self.neuron < width => Ok(()),
            width => Err(format!("{self}: the layer has neurons 0 to {}", width - 1)),
        }
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
        true => Err(bad(format!("{}: names no neuron; write one a line, as L5.N1234", data.display()))),
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

    #[test]
    fn a_neuron_is_written_as_it_is_read() {
        let neuron: Neuron = "L5.N1234".parse().unwrap();
        assert_eq!((neuron, neuron.to_string().as_str()), (Neuron { layer: 5, neuron: 1234 }, "L5.N1234"));
        for wrong in ["", "5.1234", "L5", "L5.H3", "L5.N", "L-1.N2", "l5.n2"] {
            assert!(wrong.parse::<Neuron>().is_err_and(|why| why.contains("L5.N1234")), "{wrong}");
        }
    }

    #[test]
    fn a_file_of_neurons_names_its_line_when_it_is_wrong() {
        let arch = tiny_arch();
        let read = |text: &str| {
            let data = Data::in_memory("set.txt", text.as_bytes().to_vec());
            named(&[], Some(&data), &arch).map(|found| found.map(|(neurons, _)| neurons)).map_err(|e| e.to_string())
        };
        let pair = vec![Neuron { layer: 1, neuron: 3 }, Neuron { layer: 0, neuron: 2 }];
        assert_eq!(read("# two\nL1.N3, L0.N2 # here\n\n"), Ok(Some(pair.clone())));
        let written = String::from_utf8(file(&pair, "two")).unwrap();
        assert_eq!(read(&written), Ok(Some(pair)));
        for (text, said) in [
            ("L0.N1\nL0.H1\n", "line 2: `L0.H1` is no neuron"),
            ("L0.N1\nL0.N1\n", "line 2: L0.N1 was named before"),
            ("L77.N1", "line 1: L77.N1: the model has layers 0 to"),
            ("L0.N99999", "line 1: L0.N99999: the layer has neurons 0 to"),
            ("# nothing\n", "names no neuron"),
        ] {
            assert!(read(text).is_err_and(|why| why.contains(said)), "{text}: {:?}", read(text));
        }
    }
}
