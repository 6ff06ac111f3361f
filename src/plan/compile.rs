//! From a plan to its program: whether it makes sense for a model, and where everything that it names stands.

use super::program::{
    AttributionReadout, EdgesReadout, EndReadout, EndWhat, Exchanged, GradientReadout, Made, Matched, Placed, Reads,
    Row, SiteReadout, Take, resolve, row_change,
};
use super::split::sets;
use super::{
    Alignment, Change, EdgeEffects, EdgeEstimate, EdgeSet, Edit, Exchange, Gradient, Graph, Kv, Metric, Part, Plan,
    PlanError, Positions, Program, Projection, Prompt, Reader, Run, What, Writer, columns,
};
use crate::model::arch::Arch;
use crate::site::{Site, SiteKind};
use std::collections::BTreeMap;
use std::ops::Range;

impl Plan {
    /// Checks the plan for a model and resolves all that it names; engines run what comes of it.
    ///
    /// # Errors
    /// Names the prompt, fork or readout, and what is wrong: a token id, length, site, head, column or position out
    /// of range; a base or donor that does not come before its fork; a vector of the wrong length; an empty prompt.
    pub fn compile<'p>(&'p self, arch: &'p Arch) -> Result<Program<'p>, PlanError> {
        if self.kv == Kv::Query && arch.n_kv_heads < arch.n_heads {
            let why =
                "it tells keys and values apart by query head: compile it for the decoder that `Decoder::of` gives";
            return Err(PlanError::Bad { at: "the plan".to_string(), why: why.to_string() });
        }
        if let (Kv::Query, Err(why)) = (self.kv, arch.one_pattern_a_head()) {
            return Err(PlanError::Bad { at: "the plan".to_string(), why });
        }
        for (i, prompt) in self.prompts.iter().enumerate() {
            self.check_prompt(i, prompt, arch)?;
        }
        let mut program = Program {
            plan: self,
            arch,
            roots: Vec::with_capacity(self.forks.len()),
            forked: self.forks.iter().map(|fork| fork.base).collect(),
            edits: Vec::with_capacity(self.forks.len()),
            exchanges: Vec::with_capacity(self.forks.len()),
            cones: Vec::new(),
            sets: Vec::new(),
            at_sites: Vec::new(),
            at_end: Vec::new(),
            attributions: Vec::new(),
            gradients: Vec::new(),
            edges: Vec::new(),
        };
        for (i, fork) in self.forks.iter().enumerate() {
            let run = Run::Fork(i);
            self.check_before(fork.base, run, "base")?;
            program.roots.push(program.root(fork.base));
            let edits = fork.edits.iter().map(|edit| self.placed(&program, run, edit));
            let edits = edits.collect::<Result<Vec<_>, _>>()?;
            program.edits.push(edits);
            let exchanges = fork.exchanges.iter().map(|exchange| self.exchanged(&program, run, exchange));
            let exchanges = exchanges.collect::<Result<Vec<_>, _>>()?;
            program.exchanges.push(exchanges);
        }
        for i in 0..self.readouts.len() {
            self.place_readout(&mut program, i)?;
        }
        program.sets = sets(&program);
        program.find_cones();
        Ok(program)
    }

    /// Checks that the plan makes sense for a model.
    ///
    /// # Errors
    /// As [`Plan::compile`].
    pub fn check(&self, arch: &Arch) -> Result<(), PlanError> {
        self.compile(arch).map(drop)
    }

    fn check_prompt(&self, i: usize, prompt: &Prompt, arch: &Arch) -> Result<(), PlanError> {
        let bad = |why: String| PlanError::Bad { at: self.describe(Run::Prompt(i)), why };
        if prompt.ids.is_empty() {
            return Err(bad("has no tokens".to_string()));
        }
        if prompt.ids.len() > arch.n_ctx {
            let n = prompt.ids.len();
            return Err(bad(format!("is {n} tokens long; the model's context is {}; shorten it", arch.n_ctx)));
        }
        match prompt.ids.iter().position(|id| *id as usize >= arch.vocab) {
            None => Ok(()),
            Some(at) => Err(bad(format!(
                "token id {} at position {at} is out of range; the model has ids 0 to {}",
                prompt.ids[at],
                arch.vocab - 1
            ))),
        }
    }

    /// A base or donor must exist and come before the fork that names it.
    fn check_before(&self, run: Run, fork: Run, role: &str) -> Result<(), PlanError> {
        let Run::Fork(own) = fork else { return Ok(()) };
        let why = match run {
            Run::Prompt(p) if p >= self.prompts.len() => format!("its {role}, prompt {p}, does not exist"),
            Run::Fork(f) if f >= own => format!("its {role}, fork {f}, does not come before it"),
            _ => return Ok(()),
        };
        Err(PlanError::Bad { at: format!("fork {own}"), why })
    }

    fn placed<'p>(&'p self, program: &Program<'p>, run: Run, edit: &'p Edit) -> Result<Placed<'p>, PlanError> {
        let at = || format!("{}, edit at {}", self.describe(run), edit.site);
        let bad = |why: String| PlanError::Bad { at: at(), why };
        let (arch, keys) = (program.arch, program.length(run));
        edit.site.check(arch).map_err(|source| PlanError::Site { at: at(), source })?;
        let columns =
            columns(edit.site, &edit.part, arch, keys).map_err(|source| PlanError::Site { at: at(), source })?;
        let wide: usize = columns.iter().map(Range::len).sum();
        let positions = resolve(&edit.positions, keys).map_err(bad)?;
        if positions.is_empty() || wide == 0 {
            return Err(bad("changes nothing: no position or no part is chosen".to_string()));
        }
        if repeated(columns.iter().map(|c| c.start)).is_some() {
            return Err(bad("names a head or column twice".to_string()));
        }
        if let Some(twice) = repeated(positions.iter().copied()) {
            return Err(bad(format!("names position {twice} twice")));
        }
        if let Some(found) = edit.change.vector_len().filter(|n| *n != wide) {
            return Err(bad(format!("its vector has {found} numbers; the part has {wide}")));
        }
        if let Change::Clamp { low, high } = edit.change
            && (low > high || low.is_nan() || high.is_nan())
        {
            return Err(bad(format!("clamps to {low}..{high}, which holds no number; give the lower one first")));
        }
        let made = match row_change(&edit.change) {
            Ok(change) => Made::Change(change),
            Err((donor, from)) => {
                self.check_before(donor, run, "donor")?;
                let theirs = program.length(donor);
                let from = self.donor_positions(edit, (donor, theirs), from, &positions, keys).map_err(bad)?;
                if matches!(edit.site.kind, SiteKind::Scores | SiteKind::Pattern) && theirs != keys {
                    return Err(bad(format!(
                        "{} has {theirs} positions, not {keys}: scores and patterns do not fit",
                        self.describe(donor)
                    )));
                }
                Made::Taken { donor, from }
            }
        };
        Ok(Placed { edit, site: edit.site, positions, columns: columns.into(), made })
    }

    /// Those of some positions at which a donor's writers may add something else than a run's: where two prompts begin alike they add
    /// the same. One position stays.
    fn where_unlike(&self, mut positions: Vec<Matched>, run: Run, donor: Run, arch: &Arch) -> Vec<Matched> {
        let (Run::Prompt(run), Run::Prompt(donor)) = (run, donor) else { return positions };
        let [own, theirs] = [run, donor].map(|run| &self.prompts[run].ids);
        // Where prompts of such lengths are rotated in two ways, nothing of them is alike.
        if arch.ropes.iter().any(|rope| rope.regime(own.len()) != rope.regime(theirs.len())) {
            return positions;
        }
        let shared = own.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let last = positions.last().copied();
        positions.retain(|at| at.own >= shared || at.own != at.theirs);
        positions.extend(last.filter(|_| positions.is_empty()));
        positions
    }

    /// For each position of a run the donor's that corresponds to it.
    fn aligned(
        &self,
        program: &Program,
        run: Run,
        donor: Run,
        alignment: &Alignment,
    ) -> Result<Vec<Option<usize>>, String> {
        let found = alignment.resolve(program.length(run), program.length(donor));
        found.map_err(|why| format!("its donor, {}, {why}", self.describe(donor)))
    }

    /// The exchanges of a fork itself.
    fn own_exchanges(&self, run: Run) -> &[Exchange] {
        if let Run::Fork(f) = run { &self.forks[f].exchanges } else { &[] }
    }

    /// Edges that a fork takes, sorted by where their readers are.
    fn exchanged(&self, program: &Program, run: Run, exchange: &Exchange) -> Result<Exchanged, PlanError> {
        let bad = |why: String| PlanError::Bad { at: format!("{}, exchange of edges", self.describe(run)), why };
        self.check_before(exchange.donor, run, "donor")?;
        let aligned = self.aligned(program, run, exchange.donor, &exchange.alignment).map_err(bad)?;
        let positions = matched(&exchange.positions, &aligned).map_err(bad)?;
        let alone = program.edits(run).is_empty()
            && self.own_exchanges(run).iter().all(|other| other.donor == exchange.donor)
            && !program.forked.contains(&run);
        let base = program.base(run).filter(|_| alone).unwrap_or(run);
        let positions = self.where_unlike(positions, base, exchange.donor, program.arch);
        Graph::there(program.arch).map_err(bad)?;
        let (graph, mut named) = (Graph::of(program.arch), BTreeMap::<Reader, Vec<Writer>>::new());
        let (edges, but) = match &exchange.edges {
            EdgeSet::These(edges) => (edges, false),
            EdgeSet::AllBut(edges) => (edges, true),
        };
        for edge in edges.iter() {
            graph.check(*edge).map_err(bad)?;
            named.entry(edge.reader).or_default().push(edge.writer);
        }
        // A circuit reads at every reader, a few edges at theirs alone.
        let readers: Vec<(Reader, Vec<Writer>)> = match but {
            true => graph.readers().map(|reader| (reader, named.remove(&reader).unwrap_or_default())).collect(),
            false => named.into_iter().collect(),
        };
        // Streams that edits change are no sums of what writers add: there, each writer that is taken counts for itself.
        let sums = [run, exchange.donor].into_iter().all(|run| program.edits(run).is_empty());
        let mut sites: BTreeMap<Site, Vec<Reads>> = BTreeMap::new();
        for (reader, mut writers) in readers {
            let before = graph.before(reader);
            writers.sort_unstable_by_key(|writer| graph.number(*writer));
            if writers.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(bad(format!("names an edge to {reader} twice")));
            }
            let taken = if but { before - writers.len() } else { writers.len() };
            if taken == 0 {
                continue;
            }
            let all_but = sums && reader != Reader::Logits && 2 * taken > before;
            if all_but != but {
                writers = others(graph.writers().take(before), &writers);
            }
            sites.entry(reader.site()).or_default().push(Reads { reader, writers, all_but });
        }
        if sites.is_empty() {
            return Err(bad("takes no edge".to_string()));
        }
        Ok(Exchanged { donor: exchange.donor, positions, readers: sites })
    }

    /// The donor's position for each position of an interchange, given those that the plan names, if it names any.
    fn donor_positions(
        &self,
        edit: &Edit,
        (donor, theirs): (Run, usize),
        from: Option<&[usize]>,
        wanted: &[usize],
        keys: usize,
    ) -> Result<Vec<usize>, String> {
        let name = || self.describe(donor);
        let found = match (from, &edit.positions) {
            (Some(list), _) => list.to_vec(),
            (None, Positions::Last) => vec![theirs - 1],
            (None, Positions::All) if theirs != keys => {
                return Err(format!(
                    "the prompt has {keys} tokens and its donor, {}, has {theirs}: give an alignment, or `last`",
                    name()
                ));
            }
            (None, _) => wanted.to_vec(),
        };
        if found.len() != wanted.len() {
            return Err(format!("{} positions take from {} of the donor", wanted.len(), found.len()));
        }
        match found.iter().find(|p| **p >= theirs) {
            Some(p) => Err(format!("its donor, {}, has no position {p}: it has 0 to {}", name(), theirs - 1)),
            None => Ok(found),
        }
    }

    /// Checks a readout and puts it where the pass reads it.
    fn place_readout<'p>(&'p self, program: &mut Program<'p>, i: usize) -> Result<(), PlanError> {
        let readout = &self.readouts[i];
        let run = readout.run;
        if !self.has(run) {
            return Err(PlanError::Bad { at: format!("readout {i}"), why: format!("{run:?} does not exist") });
        }
        let at = Named { plan: self, readout: i, run };
        let (arch, keys) = (program.arch, program.length(run));
        match &readout.what {
            What::Metric(metric) => {
                check_metric(metric, arch, keys).map_err(|why| at.bad(why))?;
                program.read_end(i, run, end_metric(metric, program.ids(run)));
            }
            What::Attribution(metric) => {
                arch.adds_up().map_err(|why| at.bad(why))?;
                check_metric(metric, arch, keys).map_err(|why| at.bad(why))?;
                let (answer, foil) = match metric {
                    Metric::LogitDifference { answer, foil } => (answer, Some(foil.as_slice())),
                    Metric::AboveMean { tokens } => (tokens, None),
                    Metric::Continuation { .. } => {
                        return Err(at.bad("an attribution needs a metric of one position: a logit difference"));
                    }
                };
                program.attributions.push(AttributionReadout { readout: i, run, answer, foil });
            }
            What::KlFrom(other) if !self.has(*other) => return Err(at.bad(format!("{other:?} does not exist"))),
            What::KlFrom(other) => {
                let rows = vec![program.last(run), program.last(*other)];
                program.read_rows(i, rows, EndWhat::Kl);
            }
            What::Entropy => program.read_end(i, run, EndWhat::Entropy),
            What::Rank(token) => {
                known(&[*token], arch).map_err(|why| at.bad(why.replacen("token id", "token", 1)))?;
                program.read_end(i, run, EndWhat::Rank(*token));
            }
            What::LogProbs(of) => {
                known(&of.tokens, arch).map_err(|why| at.bad(why.replacen("token id", "token", 1)))?;
                program.read_end(i, run, EndWhat::LogProbs(&of.tokens));
            }
            What::Activation(of) => {
                let take = Take::Columns(at.columns(of.site, &of.part, arch, keys)?);
                let positions = read_positions(&of.positions, keys).map_err(|why| at.bad(why))?;
                program.read_site(SiteReadout { readout: i, run, site: of.site, positions, take });
            }
            What::Projection(of) => program.read_site(at.projection(of, arch, keys)?),
            What::Gradient(of) => {
                let gradient = at.gradient(of, program)?;
                program.gradients.push(gradient);
            }
            What::EdgeEffects(of) => {
                let edges = at.edges(of, program)?;
                program.edges.push(edges);
            }
        }
        Ok(())
    }
}

/// A readout by the name that messages give it.
struct Named<'p> {
    plan: &'p Plan,
    readout: usize,
    run: Run,
}

impl<'p> Named<'p> {
    fn at(&self) -> String {
        format!("readout {} of {}", self.readout, self.plan.describe(self.run))
    }

    fn bad(&self, why: impl Into<String>) -> PlanError {
        PlanError::Bad { at: self.at(), why: why.into() }
    }

    /// The columns of a site's part, which must have one at least.
    fn columns(&self, site: Site, part: &Part, arch: &Arch, keys: usize) -> Result<Vec<Range<usize>>, PlanError> {
        let found = site.check(arch).and_then(|site| columns(site, part, arch, keys));
        let found = found.map_err(|source| PlanError::Site { at: self.at(), source })?;
        match found.iter().map(Range::len).sum::<usize>() {
            0 => Err(self.bad("reads nothing: no part is chosen")),
            _ => Ok(found),
        }
    }

    fn projection(&self, of: &'p Projection, arch: &Arch, keys: usize) -> Result<SiteReadout<'p>, PlanError> {
        let Projection { site, positions, direction } = of;
        if site.kind == SiteKind::Scores {
            return Err(self.bad(format!(
                "scores of hidden keys are minus infinity, which has no inner product; read {site} whole, or project {}",
                SiteKind::Pattern.at(site.layer)
            )));
        }
        let wide: usize = self.columns(*site, &Part::All, arch, keys)?.iter().map(Range::len).sum();
        let positions = read_positions(positions, keys).map_err(|why| self.bad(why))?;
        if direction.len() != wide && direction.len() != wide * positions.len() {
            return Err(self.bad(format!("its direction has {} numbers; {site} has {wide}", direction.len())));
        }
        let (readout, run, take) = (self.readout, self.run, Take::Along(direction));
        Ok(SiteReadout { readout, run, site: *site, positions, take })
    }

    /// Estimates of edges: of a prompt and from a prompt, both as they are.
    fn edges(&self, of: &'p EdgeEffects, program: &Program<'p>) -> Result<EdgesReadout<'p>, PlanError> {
        let EdgeEffects { metric, donor, positions, alignment, by } = of;
        Graph::there(program.arch).map_err(|why| self.bad(why))?;
        if !self.plan.has(*donor) {
            return Err(self.bad(format!("{donor:?} does not exist")));
        }
        if let Some(fork) = [self.run, *donor].iter().find(|run| matches!(run, Run::Fork(_))) {
            let fork = self.plan.describe(*fork);
            return Err(self.bad(format!("edges are estimated between prompts as they are, and {fork} is edited")));
        }
        let aligned = self.plan.aligned(program, self.run, *donor, alignment).map_err(|why| self.bad(why))?;
        if matches!(by, EdgeEstimate::IntegratedGradients { steps: 0 }) {
            return Err(self.bad("integrated gradients need one step at least"));
        }
        check_metric(metric, program.arch, aligned.len()).map_err(|why| self.bad(why))?;
        let mut positions = matched(positions, &aligned).map_err(|why| self.bad(why))?;
        positions.sort_unstable();
        let positions = self.plan.where_unlike(positions, self.run, *donor, program.arch);
        Ok(EdgesReadout { readout: self.readout, run: self.run, donor: *donor, metric, positions, aligned, by: *by })
    }

    fn gradient(&self, of: &'p Gradient, program: &Program<'p>) -> Result<GradientReadout<'p>, PlanError> {
        let Gradient { metric, site, positions, part } = of;
        let (arch, keys) = (program.arch, program.length(self.run));
        let columns = self.columns(*site, part, arch, keys)?;
        check_metric(metric, arch, keys).map_err(|why| self.bad(why))?;
        let positions = read_positions(positions, keys).map_err(|why| self.bad(why))?;
        if program.exchanges(self.run).iter().any(|exchange| exchange.readers.keys().any(|at| at > site)) {
            return Err(
                self.bad("gradients are not read of runs that take edges after the site: read them of the base")
            );
        }
        // States go on from each other.
        let later = |p: &&Placed| {
            site.kind == SiteKind::State && p.site == *site && p.positions.iter().max() > positions.iter().min()
        };
        let unknown =
            |p: &&Placed| matches!(p.edit.change, Change::Map(_)) && (p.site.flow(arch) > site.flow(arch) || later(p));
        match program.edits(self.run).into_iter().find(unknown) {
            None => Ok(GradientReadout { readout: self.readout, run: self.run, metric, site: *site, positions, columns }),
            Some(placed) => Err(self.bad(format!(
                "{} is edited at {} by a function of the caller's, whose derivative is not known: read gradients at that site \
                 or after it, or edit by one of the other changes",
                self.plan.describe(self.run),
                placed.site
            ))),
        }
    }
}

impl<'p> Program<'p> {
    /// A run's last row.
    fn last(&self, run: Run) -> Row {
        (run, self.length(run) - 1)
    }

    /// A readout of the end of the pass: of the last row, or, of a continuation, of those that its tokens come after.
    fn read_end(&mut self, readout: usize, run: Run, what: EndWhat<'p>) {
        let last = self.last(run);
        let rows = match &what {
            EndWhat::Continuation(ids) => (last.1 - ids.len()..last.1).map(|p| (run, p)).collect(),
            _ => vec![last],
        };
        self.read_rows(readout, rows, what);
    }

    fn read_rows(&mut self, readout: usize, rows: Vec<Row>, what: EndWhat<'p>) {
        let logits_are_edited = rows.iter().any(|(run, _)| self.edits_at(*run, SiteKind::Logits));
        self.at_end.push(EndReadout { readout, rows, what, logits_are_edited });
    }

    /// A readout of a site: of the end of the pass, or while it goes by.
    fn read_site(&mut self, read: SiteReadout<'p>) {
        let rows = || read.positions.iter().map(|p| (read.run, *p)).collect();
        match read.site.kind {
            SiteKind::FinalNorm => self.read_rows(read.readout, rows(), EndWhat::Normed(read.take)),
            SiteKind::Logits => self.read_rows(read.readout, rows(), EndWhat::Logits(read.take)),
            _ => self.at_sites.push(read),
        }
    }
}

/// A metric as it is read at the end of the pass over a prompt's ids.
fn end_metric<'p>(metric: &'p Metric, ids: &'p [u32]) -> EndWhat<'p> {
    match metric {
        Metric::LogitDifference { answer, foil } => EndWhat::Difference { answer, foil },
        Metric::AboveMean { tokens } => EndWhat::AboveMean(tokens),
        Metric::Continuation { from } => EndWhat::Continuation(&ids[*from..]),
    }
}

/// Checks that the model has all these tokens.
fn known(ids: &[u32], arch: &Arch) -> Result<(), String> {
    match ids.iter().find(|id| **id as usize >= arch.vocab) {
        Some(id) => Err(format!("token id {id} is out of range; the model has ids 0 to {}", arch.vocab - 1)),
        None => Ok(()),
    }
}

/// Checks a metric of a run of `keys` positions.
fn check_metric(metric: &Metric, arch: &Arch, keys: usize) -> Result<(), String> {
    match metric {
        Metric::LogitDifference { answer, foil } => {
            known(answer, arch)?;
            known(foil, arch)?;
            if answer.is_empty() || foil.is_empty() {
                return Err("a logit difference needs answer and foil tokens".to_string());
            }
            Ok(())
        }
        Metric::AboveMean { tokens } if tokens.is_empty() => Err("half of a logit difference needs tokens".to_string()),
        Metric::AboveMean { tokens } => known(tokens, arch),
        Metric::Continuation { from } if *from == 0 || *from >= keys => {
            Err(format!("a continuation from position {from} of {keys} has nothing before it, or nothing in it"))
        }
        Metric::Continuation { .. } => Ok(()),
    }
}

/// The positions of a readout, which must name one at least.
fn read_positions(positions: &Positions, length: usize) -> Result<Vec<usize>, String> {
    match resolve(positions, length)? {
        found if found.is_empty() => Err("reads nothing: no position is chosen".to_string()),
        found => Ok(found),
    }
}

/// Those of a run's positions that correspond to one of the donor's, with that one.
fn matched(positions: &Positions, aligned: &[Option<usize>]) -> Result<Vec<Matched>, String> {
    let wanted = read_positions(positions, aligned.len())?;
    if let Some(twice) = repeated(wanted.iter().copied()) {
        return Err(format!("names position {twice} twice"));
    }
    let found: Vec<Matched> =
        wanted.into_iter().filter_map(|own| aligned[own].map(|theirs| Matched { own, theirs })).collect();
    match found.is_empty() {
        true => Err("none of its positions corresponds to one of the donor's".to_string()),
        false => Ok(found),
    }
}

/// A number that is there twice, if any is.
fn repeated(list: impl Iterator<Item = usize>) -> Option<usize> {
    let mut list: Vec<usize> = list.collect();
    list.sort_unstable();
    list.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
/// Writers but for some; both are in the order of the flow.
fn others(all: impl Iterator<Item = Writer>, but: &[Writer]) -> Vec<Writer> {
    let mut but = but.iter().peekable();
    all.filter(|writer| but.next_if_eq(&writer).is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::tiny_arch;

    #[test]
    fn a_gradient_is_not_read_before_edges_that_a_run_takes() {
        let asked = |site: Site| {
            let mut plan = Plan::default();
            let [own, donor] = [3, 4].map(|id| plan.prompt("p", vec![id; 4]));
            let edges = EdgeSet::from(vec!["m0->m1".parse().unwrap()]);
            let exchange = Exchange { donor, edges, positions: Positions::Last, alignment: Alignment::Same };
            let fork = plan.exchange(own, exchange);
            let metric = Metric::logit_difference(vec![1], vec![2]);
            plan.read(fork, Gradient { metric, site, positions: Positions::Last, part: Part::All });
            plan.check(&tiny_arch())
        };
        let refused = asked(SiteKind::MlpOut.at(0)).unwrap_err().to_string();
        assert!(refused.contains("take edges after the site"), "{refused}");
        asked(SiteKind::MlpIn.at(1)).unwrap();
        asked(SiteKind::ResidPost.at(1)).unwrap();
    }
}
