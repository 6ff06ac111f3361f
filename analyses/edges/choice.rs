//! Which edges are run exactly, and how all are estimated.

use crate::plan::EdgeEstimate;
use crate::stats;
use rand::seq::index::sample;
use std::fmt;
use std::str::FromStr;

/// A way of estimating edges, as flags and tables name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// Compute the reader anew with what it would read, and the rest to first order
    Reader,
    /// Edge attribution patching: to first order
    Eap,
    /// The same with gradients on the way between the two embeddings
    EapIg,
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Score::Reader => "reader",
            Score::Eap => "eap",
            Score::EapIg => "eap-ig",
        })
    }
}

impl Score {
    /// The column of its estimates.
    pub fn column(self) -> &'static str {
        match self {
            Score::Reader => "reader_exact",
            Score::Eap => "eap",
            Score::EapIg => "eap_ig",
        }
    }

    /// Those that are asked for, each once.
    pub(in crate::analyses) fn each_once(asked: &[Score]) -> Vec<Score> {
        let mut scores: Vec<Score> = Vec::new();
        asked.iter().for_each(|score| scores.extend((!scores.contains(score)).then_some(*score)));
        scores
    }

    /// What a plan reads for it.
    pub(in crate::analyses) fn estimate(self, steps: u32) -> EdgeEstimate {
        match self {
            Score::Reader => EdgeEstimate::Reader,
            Score::Eap => EdgeEstimate::Attribution,
            Score::EapIg => EdgeEstimate::IntegratedGradients { steps: steps as usize },
        }
    }
}

/// Any way of estimating.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Score(Score),
    /// Exactly through so many layers, then to first order.
    Horizon(u32),
}

impl Way {
    /// The column of its estimates.
    pub(super) fn column(self) -> String {
        match self {
            Way::Score(score) => score.column().to_string(),
            Way::Horizon(layers) => format!("{HORIZON}{layers}"),
        }
    }
}

/// What the names of columns of horizons begin with.
pub(in crate::analyses) const HORIZON: &str = "horizon_";

/// How many edges are run exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exact {
    All,
    /// The strongest by an estimate.
    Strongest(u32),
}

impl fmt::Display for Exact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exact::All => f.write_str("all"),
            Exact::Strongest(n) => write!(f, "{n}"),
        }
    }
}

impl FromStr for Exact {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Exact::All),
            n => n.parse().map(Exact::Strongest).map_err(|_| format!("`{text}` is neither all nor a whole number")),
        }
    }
}

impl serde::Serialize for Exact {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Exact {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::parameters::from_text(d)
    }
}

/// Why an edge was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    All,
    Strongest,
    Sample,
}

impl Why {
    pub(super) fn name(self) -> &'static str {
        match self {
            Why::All => "all",
            Why::Strongest => "strongest",
            Why::Sample => "sample",
        }
    }
}

/// The edges that are run, by number, ascending, each with why.
pub(super) struct Chosen {
    pub edges: Vec<usize>,
    pub why: Vec<Why>,
}

impl Chosen {
    /// The strongest by the estimate `by` and a sample of the rest, or all. Where nothing is computed (`counting`), as many spread
    /// over the layers, which cost about as much.
    pub(super) fn of(
        exact: Exact,
        of_rest: usize,
        edges: usize,
        by: Option<&[f64]>,
        seed: u64,
        counting: bool,
    ) -> Chosen {
        let (Exact::Strongest(n), Some(by)) = (exact, by) else {
            return Chosen { edges: (0..edges).collect(), why: vec![Why::All; edges] };
        };
        let n = (n as usize).min(edges);
        let mut order: Vec<usize> = (0..edges).collect();
        match counting {
            true => order.sort_by_key(|e| (e * 7919) % edges.max(1)),
            false => order.sort_by(|a, b| by[*b].abs().total_cmp(&by[*a].abs())),
        }
        let (strongest, rest) = order.split_at(n);
        let drawn = sample(&mut stats::rng(seed, "sample of edges"), rest.len(), of_rest.min(rest.len()));
        let mut chosen: Vec<(usize, Why)> = strongest.iter().map(|e| (*e, Why::Strongest)).collect();
        chosen.extend(drawn.into_iter().map(|k| (rest[k], Why::Sample)));
        chosen.sort_unstable_by_key(|(edge, _)| *edge);
        let (edges, why) = chosen.into_iter().unzip();
        Chosen { edges, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_are_chosen_and_a_sample_of_the_rest_and_each_says_why() {
        let by: Vec<f64> = (0..100).map(|e| if e % 10 == 3 { -f64::from(e) } else { 0.1 }).collect();
        let chosen = Chosen::of(Exact::Strongest(4), 6, 100, Some(&by), 1, false);
        let of = |why| chosen.edges.iter().zip(&chosen.why).filter(move |(_, w)| **w == why).map(|(e, _)| *e);
        assert_eq!(of(Why::Strongest).collect::<Vec<_>>(), [63, 73, 83, 93]);
        assert_eq!(of(Why::Sample).count(), 6);
        assert!(chosen.edges.windows(2).all(|pair| pair[0] < pair[1]));
        let all = Chosen::of(Exact::All, 6, 100, Some(&by), 1, false);
        assert!(all.edges.len() == 100 && all.why.iter().all(|why| *why == Why::All));
        let more = Chosen::of(Exact::Strongest(1000), 6, 100, Some(&by), 1, false);
        assert!(more.edges.len() == 100 && more.why.iter().all(|why| *why == Why::Strongest));
    }

    #[test]
    fn how_many_reads_back_as_it_is_written() {
        for text in ["all", "2000", "0"] {
            assert_eq!(text.parse::<Exact>().unwrap().to_string(), text);
        }
        assert!("most".parse::<Exact>().is_err());
    }
}
