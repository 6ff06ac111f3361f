//! How fast a model runs a plan's rows here: measured, before the plan is run, on some of its own.
//!
//! Layers of a decoder are alike, so that one stands for all: rows of the plan's first prompts and forks, laid out as the engine lays
//! them out, go through the first layer until enough time has passed. A model whose weights are on the disk reads that one layer.
//! What is not in layers (edits, unembedding, gradients' way back) is taken to go as fast, operation for operation.

use super::size::full_runs;
use super::{Engine, Size, batches};
use crate::model::decoder::{Acts, Angles, Decoder, Unwatched};
use crate::ops;
use crate::ops::rows::{Rows, Span};
use crate::plan::{Program, Run};
use crate::site::SiteKind;
use candle_core::Result;
use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Rows to begin with, at least.
const FEWEST: usize = 16;

/// Rows that go through the layer together, at most.
const MOST: usize = 4096;

/// How long one pass through the layer is to take, about.
const PASS: Duration = Duration::from_millis(50);

/// How long the passes take together, about.
const ALL: Duration = Duration::from_millis(250);

/// Floating-point operations a second of a plan's rows in the decoder's first layer, by the clock; `None` where the plan runs nothing.
///
/// # Errors
/// If the layer's weights cannot be read, or candle fails.
pub fn rate(decoder: &Decoder, program: &Program, engine: Engine) -> Result<Option<f64>> {
    let decoder = decoder.of(program.plan.kv);
    let Some(few) = Sample::of(decoder, program, engine, FEWEST)? else { return Ok(None) };
    // The first pass reads the weights.
    few.pass(decoder)?;
    let first = few.pass(decoder)?.as_secs_f64().max(1e-9);
    let rows = (few.acts.rows.len() as f64 * PASS.as_secs_f64() / first) as usize;
    let Some(sample) = Sample::of(decoder, program, engine, rows.clamp(FEWEST, MOST))? else { return Ok(None) };
    sample.pass(decoder)?;
    let (started, mut passes) = (Instant::now(), Vec::new());
    while passes.len() < 3 || started.elapsed() < ALL {
        passes.push(sample.pass(decoder)?);
    }
    passes.sort_unstable();
    let middle = passes[passes.len() / 2].as_secs_f64();
    Ok(Some(sample.flops / middle.max(1e-9)))
}

/// Rows of a plan, as they enter the first layer.
struct Sample {
    acts: Acts,
    angles: Angles,
    flops: f64,
}

impl Sample {
    /// The first runs of a plan that have so many rows together, the first whatever it has; none of a plan without runs.
    fn of(decoder: &Decoder, program: &Program, engine: Engine, most: usize) -> Result<Option<Sample>> {
        let spans = spans(program, engine, most);
        if spans.is_empty() {
            return Ok(None);
        }
        let angles = Angles::new(decoder, program.plan.prompts.iter().map(|p| p.ids.len()))?;
        let (mut rows, mut size) = (Rows::default(), Size::default());
        let (mut ids, mut positions) = (Vec::new(), Vec::new());
        for (prompt, span) in spans {
            let prompt = program.ids(Run::Prompt(prompt));
            size.add(&decoder.arch, 0, span.start, span.rows.len());
            for p in span.start..span.keys() {
                ids.push(prompt[p]);
                positions.push(p as u32);
                rows.entries.push(angles.entry(prompt.len(), p));
            }
            rows.spans.push(span);
        }
        let acts = decoder.begin((&ids, &positions), rows, &mut Unwatched)?;
        Ok(Some(Sample { acts, angles, flops: size.flops }))
    }

    /// One pass through the first layer: how long it takes.
    fn pass(&self, decoder: &Decoder) -> Result<Duration> {
        let mut acts = self.acts.clone();
        let started = Instant::now();
        decoder.layer(0, &self.angles, &mut acts, &mut Unwatched)?;
        // A device has done its work when something of it is here.
        ops::to_vec(&acts.get(SiteKind::ResidPre)?.narrow(0, 0, 1)?)?;
        Ok(started.elapsed())
    }
}

/// The rows of runs in their order, each with its prompt: whole prompts, and of forks what their edits reach in the end. By the full
/// engine one run, which it runs by itself.
fn spans(program: &Program, engine: Engine, most: usize) -> Vec<(usize, Span)> {
    if engine == Engine::Full {
        let first = full_runs(program).into_iter().next().or_else(|| program.runs().next());
        let whole = |run: Run| (program.root(run), Span::new(0..program.length(run), 0, Vec::new()));
        return first.map(whole).into_iter().collect();
    }
    let mut runs: Vec<Run> = batches::sets(program).into_iter().flat_map(|set| set.runs).collect();
    if runs.is_empty() {
        // Of which gradients alone are read.
        runs.extend((0..program.plan.prompts.len()).map(Run::Prompt));
    }
    let (mut found, mut n) = (Vec::new(), 0);
    let mut of_prompt: HashMap<usize, Range<usize>> = HashMap::new();
    for run in runs {
        let prompt = program.root(run);
        let positions = match run {
            Run::Prompt(_) => 0..program.length(run),
            Run::Fork(f) => program.cone(f).start..program.cone(f).ends.last().map_or(0, |end| *end as usize),
        };
        let rows = n..n + positions.len();
        if rows.is_empty() || (!found.is_empty() && rows.end > most) {
            continue;
        }
        let prefix = match (run, of_prompt.get(&prompt)) {
            (Run::Prompt(_), _) => Vec::new(),
            (Run::Fork(_), Some(of)) if positions.start > 0 => vec![of.start..of.start + positions.start],
            (Run::Fork(_), Some(_)) => Vec::new(),
            (Run::Fork(_), None) => continue,
        };
        n = rows.end;
        if matches!(run, Run::Prompt(_)) {
            of_prompt.insert(prompt, rows.clone());
        }
        found.push((prompt, Span::new(rows, positions.start, prefix)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, Options};
    use crate::plan::{Change, Edit, Entropy, Part, Plan, Positions};

    /// Two prompts, the first with two forks at its last position and one from its third on.
    fn plan() -> Plan {
        let mut plan = Plan::default();
        let [a, b] = [9, 5].map(|n| plan.prompt("p", (0..n).collect()));
        for positions in [Positions::Last, Positions::Last, Positions::At(vec![2])] {
            let (site, change) = (SiteKind::Z.at(1), Change::Zero);
            let fork = plan.fork(a, vec![Edit { site, part: Part::Heads(vec![0]), positions, change }]);
            plan.read(fork, Entropy);
        }
        plan.read(b, Entropy);
        plan
    }

    #[test]
    fn rows_are_the_plans_own_and_each_fork_reads_its_prompt_before_them() {
        for max_memory in [None, Some(0)] {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama");
            let model = Model::open(dir, &Options { max_memory, ..Options::default() }).unwrap();
            let (plan, decoder) = (plan(), &model.decoder);
            let program = plan.compile(&decoder.arch).unwrap();
            let found = spans(&program, Engine::Wavefront, MOST);
            let shape = |(prompt, span): &(usize, Span)| (*prompt, span.start, span.rows.len());
            // The edit at position 2 reaches all after it in the next layer.
            assert_eq!(
                found.iter().map(shape).collect::<Vec<_>>(),
                [(0, 0, 9), (0, 8, 1), (0, 8, 1), (0, 2, 7), (1, 0, 5)]
            );
            assert!(found.iter().all(|(_, span)| span.fits(23)) && found[1].1.prefix == [0..8]);
            // What does not fit is left out, but the first run whatever it has.
            assert_eq!(spans(&program, Engine::Wavefront, 10).len(), 2);
            assert_eq!(spans(&program, Engine::Wavefront, 3).iter().map(shape).collect::<Vec<_>>(), [(0, 0, 9)]);
            assert_eq!(spans(&program, Engine::Full, MOST).len(), 1);
            for engine in [Engine::Wavefront, Engine::Full] {
                let rate = rate(decoder, &program, engine).unwrap().unwrap();
                assert!(rate.is_finite() && rate > 1e5, "{engine}: {rate} operations a second");
            }
            let nothing = Plan::default();
            let nothing = nothing.compile(&decoder.arch).unwrap();
            assert_eq!(rate(decoder, &nothing, Engine::Wavefront).unwrap(), None);
        }
    }
}
