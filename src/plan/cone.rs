//! Causal cones: which positions of a fork can differ from its base, layer by layer.
//!
//! An edit at a position reaches that position, and from the next attention on those after it, as far as the layer's
//! window lets them look back; a channel that reads the position before carries it one further. A fork needs rows for its cone alone;
//! all else it shares with its base. Where a layer reads the keys and values of an earlier one, what was changed there lies within the
//! cone already, which never narrows: the layer's own reach is counted from at least as far.

use super::{Matched, Placed, Program, Run};
use crate::site::{Site, SiteKind};
use std::collections::HashSet;
use std::ops::Range;

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

/// The cones of a program's forks.
pub(super) fn cones(program: &Program) -> Vec<Cone> {
    let opened = opened(program);
    let n = program.edits.len();
    let mut cones: Vec<Cone> = Vec::with_capacity(n);
    for f in 0..n {
        // A layer's heads are edited one after another.
        let as_before = f > 0 && opened.is_empty() && reach_alike(program, f - 1, f);
        cones.push(if as_before { cones[f - 1].clone() } else { cone(program, f, &opened) });
    }
    cones
}

/// Whether two forks part from one base at the same sites and positions.
fn reach_alike(program: &Program, a: usize, b: usize) -> bool {
    let alike = |(a, b): (&Placed, &Placed)| a.site == b.site && a.positions == b.positions;
    let reach = |f: usize| {
        let all = program.exchanges[f].iter().map(|e| (e.readers.keys().collect::<Vec<_>>(), &e.positions));
        all.collect::<Vec<_>>()
    };
    let same = program.base(Run::Fork(a)) == program.base(Run::Fork(b)) && reach(a) == reach(b);
    let (a, b) = (&program.edits[a], &program.edits[b]);
    same && a.len() == b.len() && a.iter().zip(b).all(alike)
}

/// Whether a site's rows are as long as the prompt.
fn ragged(site: Site) -> bool {
    matches!(site.kind, SiteKind::Scores | SiteKind::Pattern)
}

/// Runs and layers of which whole rows of scores or patterns are wanted: there a fork is as long as its prompt.
fn opened(program: &Program) -> HashSet<(Run, usize)> {
    let mut wanted = HashSet::new();
    // What a fork has no row for is read from those that it descends from.
    let mut want = |run: Run, layer: usize| {
        let forks = std::iter::successors(Some(run), |run| program.base(*run));
        wanted.extend(forks.filter(|run| matches!(run, Run::Fork(_))).map(|run| (run, layer)));
    };
    for f in 0..program.edits.len() {
        for edit in program.lineage(Run::Fork(f)).flatten().filter(|e| ragged(e.site)) {
            want(Run::Fork(f), edit.site.layer);
            if let Some(donor) = edit.donor() {
                want(donor, edit.site.layer);
            }
        }
    }
    for read in program.at_sites.iter().filter(|read| ragged(read.site)) {
        want(read.run, read.site.layer);
    }
    wanted
}

fn cone(program: &Program, f: usize, opened: &HashSet<(Run, usize)>) -> Cone {
    let (run, arch) = (Run::Fork(f), program.arch);
    let length = program.length(run);
    let own = changes(program, f);
    let join = own.iter().map(|(site, _)| *site).min_by_key(|site| site.flow(arch)).unwrap_or(SiteKind::Logits.at(0));
    // A row whose scores or pattern are edited may look ahead of itself, or further back than the window: what the fork
    // changes anywhere reaches it.
    let looks_anywhere = |e: &&Placed| ragged(e.site) && e.site.flow(arch) > join.flow(arch);
    let anywhere: Vec<&Placed> = program.lineage(run).flatten().filter(looks_anywhere).collect();
    let starts = own.iter().map(|(_, span)| span.start).chain(anywhere.iter().map(|e| span(&e.positions).start));
    let start = starts.min().unwrap_or(length);
    let mut cone = Cone { join, start, ends: vec![start as u32; arch.n_layers] };
    let end_of = |here: &dyn Fn(Site) -> bool| {
        own.iter().filter(|(site, _)| here(*site)).map(|(_, span)| span.end).max().unwrap_or(start)
    };
    let mut end = start;
    for l in cone.first_layer(arch.n_layers)..arch.n_layers {
        let mixed = |s: Site| arch.layers[l].mixes(s.kind);
        let before =
            |s: Site| (s.kind == SiteKind::Embed && l == 0) || (s.kind.in_layers() && s.layer == l && mixed(s));
        let between = |s: Site| s.kind.in_layers() && s.layer == l && !mixed(s) && s.kind <= SiteKind::MlpIn;
        let after = |s: Site| s.kind.in_layers() && s.layer == l && !mixed(s) && s.kind > SiteKind::MlpIn;
        end = end.max(end_of(&before));
        if end > start {
            end = arch.layers[l].mixer.reach(end, length);
            let ragged = anywhere.iter().filter(|e| e.site.layer == l).map(|e| span(&e.positions).end);
            end = end.max(ragged.max().unwrap_or(start));
        }
        end = end.max(end_of(&between));
        if end > start {
            end = arch.layers[l].channel.reach(end, length);
        }
        end = end.max(end_of(&after));
        // Rows are wanted whole here; the extra ones equal the base's and change nothing.
        cone.ends[l] = if opened.contains(&(run, l)) { length } else { end } as u32;
    }
    cone
}

/// Where a fork itself is changed, by edits and by edges that it takes: sites, each with its positions from the first to the last.
fn changes(program: &Program, f: usize) -> Vec<(Site, Range<usize>)> {
    let edits = program.edits[f].iter().map(|edit| (edit.site, span(&edit.positions)));
    let exchange =
        program.exchanges[f].iter().flat_map(|e| e.readers.keys().map(|site| (*site, span_of(&e.positions))));
    edits.chain(exchange).collect()
}

/// From the first position of the run to the last.
fn span_of(positions: &[Matched]) -> Range<usize> {
    span(&positions.iter().map(|at| at.own).collect::<Vec<_>>())
}

/// From the first position to the last.
fn span(positions: &[usize]) -> Range<usize> {
    let (first, last) = (positions.iter().min(), positions.iter().max());
    first.copied().unwrap_or(0)..last.map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::arch::Arch;
    use crate::model::tests::windowed as arch;
    use crate::plan::program::resolve;
    use crate::plan::{Change, Edit, Part, Plan, Positions};
    use crate::site::KINDS;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    fn ends(arch: &Arch, kind: SiteKind, layer: usize, at: usize) -> Vec<u32> {
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", vec![1; 10]);
        let site = kind.at(layer);
        plan.fork(
            prompt,
            vec![Edit { site, part: Part::All, positions: Positions::At(vec![at]), change: Change::Zero }],
        );
        plan.compile(arch).expect("a sound plan").cones()[0].ends.clone()
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

    /// The positions at which a fork differs from its base within each layer, by the definition of attention.
    fn differing(plan: &Plan, arch: &Arch, f: usize) -> Vec<BTreeSet<usize>> {
        let fork = |run: Run| if let Run::Fork(f) = run { Some(&plan.forks[f]) } else { None };
        let lineage = std::iter::successors(fork(Run::Fork(f)), |child| fork(child.base));
        let (n, all) = (plan.length(Run::Fork(f)), lineage.flat_map(|fork| &fork.edits).collect::<Vec<&Edit>>());
        let edited = |edits: &mut dyn Iterator<Item = &Edit>, site: Site| -> BTreeSet<usize> {
            let here = edits.filter(|e| e.site == site);
            here.flat_map(|e| resolve(&e.positions, n).expect("sound positions")).collect()
        };
        let own = |site: Site| edited(&mut plan.forks[f].edits.iter(), site);
        let mut resid = own(SiteKind::Embed.at(0));
        let mut found = Vec::new();
        for (l, layer) in arch.layers.iter().enumerate() {
            let at = |kinds: &[SiteKind]| -> Vec<usize> { kinds.iter().flat_map(|kind| own(kind.at(l))).collect() };
            use SiteKind::*;
            resid.extend(at(&[ResidPre]));
            let (mut rows, mut keys) = (resid.clone(), resid.clone());
            rows.extend(at(&[AttnIn, Q, RotQ, Scores, Pattern]));
            keys.extend(at(&[AttnIn, K, V, RotK]));
            let opened = [Scores, Pattern].map(|kind| edited(&mut all.iter().copied(), kind.at(l)));
            let sees = |i: usize, j: usize| {
                let as_usual = j <= i && layer.mixer.window().is_none_or(|w| i - j < w);
                as_usual || opened.iter().any(|rows| rows.contains(&i))
            };
            rows.extend((0..n).filter(|i| keys.iter().any(|j| sees(*i, *j))));
            rows.extend(keys);
            let rest =
                [Z, HeadOut, AttnOut, AttnDelta, ResidMid, MlpIn, MlpGate, MlpPre, MlpAct, MlpOut, MlpDelta, ResidPost];
            rows.extend(at(&rest));
            resid.clone_from(&rows);
            found.push(rows);
        }
        found
    }

    /// An edit anywhere in four layers, of scores and patterns more often than of the other twenty.
    fn any_edit(random: &mut ChaCha8Rng, n: usize) -> Edit {
        // Those that these models have.
        let there = |kind: &SiteKind| kind.at(0).check(&arch(&[None])).is_ok();
        let kinds: Vec<_> = KINDS[..KINDS.len() - 2].iter().filter(|(kind, _)| there(kind)).collect();
        let ragged = [SiteKind::Scores, SiteKind::Pattern][random.random_range(0..2)];
        let kind = if random.random_bool(0.3) { ragged } else { kinds[random.random_range(0..kinds.len())].0 };
        let positions = match random.random_range(0..8) {
            0 => Positions::Last,
            1 => Positions::All,
            _ => Positions::At(vec![random.random_range(0..n)]),
        };
        Edit { site: kind.at(random.random_range(0..4)), part: Part::All, positions, change: Change::Zero }
    }

    #[test]
    fn a_cone_covers_every_position_that_differs_whatever_the_edits_and_windows() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for case in 0..20_000 {
            let windows: Vec<Option<usize>> =
                (0..4).map(|_| Some(random.random_range(1..9)).filter(|w| *w < 7)).collect();
            let arch = arch(&windows);
            let (mut plan, n) = (Plan::default(), random.random_range(1..=20));
            let mut run = plan.prompt("p", vec![1; n]);
            for _ in 0..random.random_range(1..4) {
                let mut edits = vec![any_edit(&mut random, n), any_edit(&mut random, n)];
                let base = run;
                run = plan.fork(base, edits.clone());
                // Beside it one that differs from it in one edit.
                edits[1] = any_edit(&mut random, n);
                plan.fork(base, edits);
            }
            for (f, cone) in plan.compile(&arch).expect("a sound plan").cones().iter().enumerate() {
                for (l, rows) in differing(&plan, &arch, f).into_iter().enumerate() {
                    let covered = cone.start..cone.ends[l] as usize;
                    let missed = rows.iter().find(|row| !covered.contains(row));
                    assert!(missed.is_none(), "case {case}: {missed:?} of fork {f} in layer {l}: {cone:?}, {plan:?}");
                }
            }
        }
    }
}
