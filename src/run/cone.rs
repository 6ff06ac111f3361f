//! Causal cones: which positions of a fork can differ from its base, layer by layer.
//!
//! An edit at a position reaches that position, and from the next attention on those after it, as far as the layer's
//! window lets them look back. A fork needs rows for its cone alone; all else it shares with its base.

use crate::model::arch::Arch;
use crate::plan::{Plan, Run, What, resolve};
use crate::site::{Site, SiteKind};
use std::collections::HashSet;

/// The cone of one fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cone {
    /// The site of its first edit, where the fork parts from its base.
    pub join: Site,
    /// Its first position.
    pub start: usize,
    /// The end of its positions in each layer; `start` where it has none. `[n_layers]`
    pub ends: Vec<u32>,
}

impl Cone {
    /// The layer from which on the fork has rows: `n_layers` if it parts after the last.
    pub fn first_layer(&self, n_layers: usize) -> usize {
        self.join.first_layer(n_layers)
    }

    /// How many rows the fork has in a layer.
    pub fn rows(&self, layer: usize) -> usize {
        (self.ends[layer] as usize).saturating_sub(self.start)
    }
}

/// The cones of a plan's forks. The plan must be sound ([`Plan::check`]).
pub fn cones(plan: &Plan, arch: &Arch) -> Vec<Cone> {
    let opened = opened(plan);
    (0..plan.forks.len()).map(|f| cone(plan, arch, f, &opened)).collect()
}

/// Whether a site's rows are as long as the prompt.
fn ragged(site: Site) -> bool {
    matches!(site.kind, SiteKind::Scores | SiteKind::Pattern)
}

/// Runs and layers of which whole rows of scores or patterns are wanted: there a fork is as long as its prompt.
fn opened(plan: &Plan) -> HashSet<(Run, usize)> {
    let mut wanted = HashSet::new();
    // What a fork has no row for is read from those that it descends from.
    let mut want = |mut run: Run, layer: usize| {
        while let Run::Fork(f) = run {
            wanted.insert((run, layer));
            run = plan.forks[f].base;
        }
    };
    for f in 0..plan.forks.len() {
        for edit in plan.edits(Run::Fork(f)).into_iter().filter(|e| ragged(e.site)) {
            want(Run::Fork(f), edit.site.layer);
            if let crate::plan::Change::Interchange { donor, .. } = edit.change {
                want(donor, edit.site.layer);
            }
        }
    }
    for readout in &plan.readouts {
        match &readout.what {
            What::Activation { site, .. } | What::Projection { site, .. } if ragged(*site) => {
                want(readout.run, site.layer);
            }
            _ => {}
        }
    }
    wanted
}

fn cone(plan: &Plan, arch: &Arch, f: usize, opened: &HashSet<(Run, usize)>) -> Cone {
    let run = Run::Fork(f);
    let length = plan.length(run);
    let edits = &plan.forks[f].edits;
    let span = |e: &crate::plan::Edit| {
        let positions = resolve(&e.positions, length).unwrap_or_default();
        let first = positions.iter().copied().min().unwrap_or(0);
        (first, positions.iter().copied().max().unwrap_or(0) + 1)
    };
    let join = edits.iter().map(|e| e.site).min().unwrap_or(SiteKind::Logits.at(0));
    // A row whose scores or pattern are edited may look ahead of itself, so that what the fork changes after it reaches it.
    let looks_ahead = |e: &&crate::plan::Edit| ragged(e.site) && e.site > join;
    let start = edits.iter().chain(plan.edits(run).into_iter().filter(looks_ahead)).map(|e| span(e).0).min();
    let start = start.unwrap_or(length);
    let mut cone = Cone { join, start, ends: vec![start as u32; arch.n_layers] };
    let first = cone.first_layer(arch.n_layers);
    let reach_of =
        |kinds: &dyn Fn(Site) -> bool| edits.iter().filter(|e| kinds(e.site)).map(|e| span(e).1).max().unwrap_or(start);
    let mut end = start;
    for l in first..arch.n_layers {
        let before = |s: Site| {
            (s.kind == SiteKind::Embed && l == 0) || (s.kind.in_layers() && s.layer == l && s.kind < SiteKind::Z)
        };
        let after = |s: Site| s.kind.in_layers() && s.layer == l && s.kind >= SiteKind::Z;
        end = end.max(reach_of(&before));
        if end > start {
            end = arch.layers[l].window.map_or(length, |w| length.min(end + w - 1));
        }
        end = end.max(reach_of(&after));
        // Rows are wanted whole here; the extra ones equal the base's and change nothing.
        cone.ends[l] = if opened.contains(&(run, l)) { length } else { end } as u32;
    }
    cone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Change, Edit, Part, Positions};

    fn arch(windows: &[Option<usize>]) -> Arch {
        let mut arch = crate::model::tests::tiny_arch();
        arch.n_layers = windows.len();
        arch.layers = windows.iter().map(|w| crate::model::arch::Layer { window: *w, rope: 0 }).collect();
        arch
    }

    fn ends(arch: &Arch, kind: SiteKind, layer: usize, at: usize) -> Vec<u32> {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", vec![1; 10]);
        let site = kind.at(layer);
        plan.fork(
            prompt,
            vec![Edit { site, part: Part::All, positions: Positions::At(vec![at]), change: Change::Zero }],
        );
        cones(&plan, arch).remove(0).ends
    }

    #[test]
    fn an_edit_after_attention_reaches_later_positions_from_the_next_layer_on() {
        let arch = arch(&[None; 4]);
        assert_eq!(ends(&arch, SiteKind::Z, 1, 3), [3, 4, 10, 10]);
        assert_eq!(ends(&arch, SiteKind::Z, 1, 9), [9, 10, 10, 10]);
    }

    #[test]
    fn an_edit_before_attention_reaches_them_at_once() {
        let arch = arch(&[None; 3]);
        assert_eq!(ends(&arch, SiteKind::V, 1, 3), [3, 10, 10]);
        assert_eq!(ends(&arch, SiteKind::Embed, 0, 3), [10, 10, 10]);
    }

    #[test]
    fn a_window_of_w_carries_an_edit_w_minus_one_positions_a_layer() {
        let arch = arch(&[Some(3), Some(3), None]);
        assert_eq!(ends(&arch, SiteKind::ResidPre, 0, 1), [4, 6, 10]);
    }

    #[test]
    fn an_edit_of_the_logits_needs_no_rows() {
        assert_eq!(ends(&arch(&[None; 2]), SiteKind::Logits, 0, 9), [9, 9]);
    }
}
