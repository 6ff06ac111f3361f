//! Sessions: where an analysis runs its plans.
//!
//! A session holds what all plans of one analysis share: the model, the engine, the seed. It cuts a plan into pieces that
//! take seconds to minutes and, with a folder for them, keeps each piece's readings as a part, so that a run which was
//! stopped goes on where it was. Where a plan is cut depends on the plan, the model and whether its weights are streamed,
//! and readings do not depend on it. What to run, and what readings mean, is left to the analyses.

use super::counter::{Gather, Make, Making};
use super::parts::{BadPart, Made, Of, Part, Parts, has_functions, lane};
use super::progress::{Progress, Work};
use super::rundir::RunDirError;
use super::scores::Asked;
pub use super::scores::{Scores, Wanted};
use super::share::claims::Claim;
use super::share::{Sharing, Whose};
use super::stand_ins::{Draw, zeros};
use crate::files::WriteError;
use crate::model::Model;
use crate::model::decoder::Decoder;
use crate::plan::{Piece, Plan, Program, Reading, Readings, Run};
use crate::run::{
    Cancel, Cancelled, Engine, Generated, Generation, Options, RunError, Size, Told, generate_samples, generation_size,
    run_program, samples, size, whole_and_prompts,
};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

/// How large a piece is at most. Readings do not depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Floating-point operations.
    pub flops: f64,
    /// Bytes of the residual streams that are held at once, in f32.
    pub bytes: f64,
    /// Runs that generate together, and whose answers are one part.
    pub runs: usize,
}

impl Limits {
    /// Half a minute on two cores, and as much memory as activations may take. A streamed model is read from its file once a
    /// piece, and so gets larger ones.
    pub fn of(decoder: &Decoder) -> Self {
        let flops = if decoder.streamed() { 60e12 } else { 3e12 };
        Limits { flops, bytes: Options::default().budget as f64, runs: 256 }
    }
}

/// Where an analysis runs its plans.
pub struct Session {
    pub model: Arc<Model>,
    pub engine: Engine,
    /// The seed of everything random.
    pub seed: u64,
    limits: Limits,
    parts: Option<Parts>,
    /// What other processes share, if any do.
    sharing: Option<Rc<Sharing>>,
    progress: Option<Arc<dyn Progress>>,
    cancel: Cancel,
    /// Of all sessions of one study, one a model.
    total: Rc<RefCell<Size>>,
    /// The digests of the plans whose prompts and forks were counted: runs of a plan may be read and go on.
    counted: RefCell<HashSet<String>>,
    /// The number of the next plan that is run, by any session of the study.
    next: Rc<Cell<usize>>,
    asked: Asked,
    /// What the model is called, where it is another one than the study's: checkpoints of one training may be alike in all that
    /// [`Model::sample`] looks at.
    beside: Option<String>,
    /// Told the scores once, when all are found.
    scored: Box<dyn Fn(&Scores)>,
}

/// What stops a session's run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Part(#[from] RunDirError),
    #[error(transparent)]
    BadPart(#[from] BadPart),
    #[error("{0}")]
    Unmade(String),
}

impl From<WriteError> for SessionError {
    fn from(e: WriteError) -> Self {
        SessionError::Part(e.into())
    }
}

impl From<Cancelled> for SessionError {
    fn from(e: Cancelled) -> Self {
        SessionError::Run(e.into())
    }
}

impl Session {
    /// A session that keeps nothing.
    pub fn new(model: &Arc<Model>, engine: Engine, seed: u64) -> Self {
        let (model, limits) = (model.clone(), Limits::of(&model.decoder));
        let (total, counted, next, asked, cancel) = Default::default();
        let (parts, sharing, progress, beside, scored) = (None, None, None, None, Box::new(|_: &Scores| {}));
        Session {
            model,
            engine,
            seed,
            limits,
            parts,
            sharing,
            progress,
            cancel,
            total,
            counted,
            next,
            asked,
            beside,
            scored,
        }
    }

    /// Cuts plans into pieces of another size.
    pub fn limited(self, limits: Limits) -> Self {
        Session { limits, ..self }
    }

    /// Keeps finished pieces among these parts, and takes up those that are there.
    pub fn resumable(self, parts: Parts) -> Self {
        Session { parts: Some(parts), ..self }
    }

    /// Leaves to other processes what they compute of the same parts.
    pub(super) fn sharing(self, sharing: Rc<Sharing>) -> Self {
        Session { sharing: Some(sharing), ..self }
    }

    /// Tells of every layer that rows went through, and of what an earlier run had done.
    pub fn watched(self, progress: Arc<dyn Progress>) -> Self {
        Session { progress: Some(progress), ..self }
    }

    /// Stops with [`RunError::Cancelled`] once the handle says so. What was finished before stays among the parts.
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Session { cancel, ..self }
    }

    /// Reads how likely tokens are after prompts, wherever a plan runs those prompts, and tells when all were read.
    pub fn scoring(self, wanted: Wanted, scored: impl Fn(&Scores) + 'static) -> Self {
        Session { asked: Asked::new(wanted), scored: Box::new(scored), ..self }
    }

    /// A session of the same study for another model: of the same engine and seed, with the same parts and whoever watches.
    pub fn beside(&self, model: &Arc<Model>) -> Session {
        let new = Session::new(model, self.engine, self.seed).cancelled_by(self.cancel.clone());
        let (parts, progress, beside) = (self.parts.clone(), self.progress.clone(), Some(model.name.clone()));
        let (total, next, sharing) = (self.total.clone(), self.next.clone(), self.sharing.clone());
        Session { parts, sharing, progress, beside, total, next, ..new }
    }

    /// What is made of the model in another way than by running a plan, as `n` readings: those that were kept, or new ones.
    ///
    /// # Errors
    /// If it cannot be made, or a part cannot be kept or read.
    pub fn make(&self, what: &Making, make: &mut Make) -> Result<Vec<Reading>, SessionError> {
        let (plan, work) = (Plan::default(), Work { flops: what.flops, ..Work::default() });
        let digest = plan.digest();
        self.total.borrow_mut().include(&Size { flops: what.flops, ..Size::default() });
        self.next_plan();
        let made = Made { plan: &plan, digest: &digest, number: 0, more: format!("made: {}", what.of), lane: None };
        let make = || {
            self.cancel.check()?;
            let readings = make().map_err(SessionError::Unmade)?;
            tell(&self.progress, (work, false));
            Ok(readings)
        };
        let stand_in = |mut draw: Draw| draw.readings(vec![Reading::Number(0.0); what.n]);
        Ok(self.part(&made, what.n, make, stand_in)?.told(|_| self.kept(work)))
    }

    /// How likely tokens were, after those of the prompts asked about that were run.
    pub fn scores(&self) -> Scores {
        self.asked.found()
    }

    /// What was run so far.
    pub fn total(&self) -> Size {
        *self.total.borrow()
    }

    /// Computes a plan's readings, one for each of its readouts.
    ///
    /// # Errors
    /// As [`crate::run::run`]; and if a part cannot be kept or read.
    pub fn run(&self, plan: &Plan) -> Result<Readings, SessionError> {
        let program = self.compiled(plan)?;
        let (digest, cost) = (plan.digest(), size(&program, self.engine));
        self.count(plan, &digest, cost);
        self.next_plan();
        let number = self.next.replace(self.next.get() + 1);
        let extended = self.asked.extended(&program);
        let mut found = Vec::with_capacity(plan.readouts.len());
        let mut take = |i: usize, reading: Reading| match &extended {
            Some(more) if i >= plan.readouts.len() => self.asked.take(more, i, &reading),
            _ => found.push((i, reading)),
        };
        let all_asked = || {
            if extended.is_some() {
                self.asked.completed().inspect(|scores| (self.scored)(scores));
            }
        };
        // Compiling and naming a plan of small runs takes a while: a plan that is one piece is not cut, and done once.
        let program = match &extended {
            None => program,
            Some(more) => self.compiled(more)?,
        };
        match self.pieces(&program) {
            None => {
                let (cost, name) = match &extended {
                    None => (cost, digest.clone()),
                    Some(more) => (size(&program, self.engine), more.digest()),
                };
                let readings = self.piece((&program, cost), &name, number, lane(&digest, 0))?;
                readings.into_iter().enumerate().for_each(|(i, reading)| take(i, reading));
                all_asked();
            }
            Some(pieces) => {
                for (place, Piece { plan, readouts }) in pieces.iter().enumerate() {
                    let program = self.compiled(plan)?;
                    let cost = size(&program, self.engine);
                    let readings = self.piece((&program, cost), &plan.digest(), number, lane(&digest, place))?;
                    readouts.iter().zip(readings).for_each(|(i, reading)| take(*i, reading));
                    all_asked();
                }
            }
        }
        // Every readout is in one piece.
        found.sort_unstable_by_key(|(i, _)| *i);
        Ok(Readings::new(found.into_iter().map(|(_, reading)| reading).collect()))
    }

    /// Computes plans one after another; what the gatherer makes of all their readings is one part.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn gather(&self, plans: &[Plan], how: &str, gatherer: &mut dyn Gather) -> Result<Vec<Reading>, SessionError> {
        let number = self.next.replace(self.next.get() + 1);
        let programs = plans.iter().map(|plan| self.compiled(plan)).collect::<Result<Vec<_>, _>>()?;
        let mut sizes = Vec::with_capacity(plans.len());
        self.next_plan();
        for (plan, program) in plans.iter().zip(&programs) {
            let (size, digest) = (size(program, self.engine), plan.digest());
            self.count(plan, &digest, size);
            sizes.push((size, digest));
        }
        let Some(first) = plans.first() else { return Ok(gatherer.finish()) };
        let digests: Vec<&str> = sizes.iter().map(|(_, digest)| digest.as_str()).collect();
        let more = format!("gathered: {how}");
        let made = Made { plan: first, digest: &digests.join(" "), number, more, lane: None };
        let (n, gatherer) = (gatherer.made(), RefCell::new(gatherer));
        let compute = || {
            let mut gatherer = gatherer.borrow_mut();
            for (i, (program, (size, _))) in programs.iter().zip(&sizes).enumerate() {
                gatherer.take(i, &self.computed(program, *size)?)?;
            }
            Ok(gatherer.finish())
        };
        let stand_in = |mut draw: Draw| draw.readings(gatherer.borrow_mut().finish());
        Ok(self.part(&made, n, compute, stand_in)?.told(|_| {
            let of = |f: fn(&Size) -> f64| sizes.iter().map(|(size, _)| f(size)).sum::<f64>();
            let rows = sizes.iter().map(|(size, _)| size.rows).sum();
            self.kept(Work { rows, flops: of(|size| size.flops), of_tokens: 0.0 });
        }))
    }

    fn compiled<'p>(&'p self, plan: &'p Plan) -> Result<Program<'p>, RunError> {
        Ok(plan.compile(&self.model.decoder.of(plan.kv).arch)?)
    }

    /// Continues runs of a plan; see [`generate`](crate::run::generate).
    ///
    /// # Errors
    /// As [`generate`](crate::run::generate); and if a part cannot be kept or read.
    pub fn generate(&self, plan: &Plan, generation: &Generation) -> Result<Vec<Generated>, SessionError> {
        let program = self.compiled(plan)?;
        self.next_plan();
        let (number, digest) = (self.next.replace(self.next.get() + 1), plan.digest());
        let (samples, at_once) = (samples(&generation.runs), self.limits.runs.max(1));
        let mut generated = Vec::with_capacity(generation.runs.len());
        for (place, (runs, samples)) in generation.runs.chunks(at_once).zip(samples.chunks(at_once)).enumerate() {
            let some = Generation { runs: runs.to_vec(), ..generation.clone() };
            let more = format!("{some:?} {samples:?}");
            let lane = Some(lane(&digest, place));
            let made = Made { plan, digest: &digest, number, more, lane };
            generated.extend(self.generated(&program, &made, &some, samples)?);
        }
        Ok(generated)
    }

    /// What some runs came to: what was kept, or new answers. `samples` says how often each run was listed before.
    fn generated(
        &self,
        program: &Program,
        made: &Made,
        some: &Generation,
        samples: &[u64],
    ) -> Result<Vec<Generated>, SessionError> {
        let (decoder, plan) = (self.model.decoder.of(made.plan.kv), made.plan);
        let expected = self.of_texts(plan, some)?;
        let watching = &self.progress;
        let progress = |told: Told| tell(watching, expected.told(told));
        let options = self.options(&progress);
        let cost = |answers: &[Generated]| generation_size(program, some, answers, options.budget);
        let n = some.runs.len();
        let compute = || {
            self.cancel.check()?;
            Ok(generate_samples(decoder, program, some, samples, &options)?)
        };
        let stand_in = |mut draw: Draw| draw.texts(n, decoder.arch.vocab);
        let found = self.part(made, n, compute, stand_in)?;
        let size = cost(found.get())?;
        self.count(plan, made.digest, size);
        Ok(found.told(|answers| {
            let tokens = answers.iter().map(Generated::steps).sum::<usize>() * decoder.arch.n_layers;
            let most = n * some.max_tokens.saturating_sub(1) * decoder.arch.n_layers;
            self.kept(expected.done(size.rows, tokens as u64));
            tell(watching, expected.told(Told::Spared(most.saturating_sub(tokens) as u64)));
        }))
    }

    /// A part: what is kept of it, or what is computed now and then kept; a stand-in, where another process is to compute it.
    fn part<T: Part>(
        &self,
        made: &Made,
        n: usize,
        compute: impl FnOnce() -> Result<T, SessionError>,
        stand_in: impl FnOnce(Draw) -> T,
    ) -> Result<Found<T>, SessionError> {
        let Some((parts, of)) = self.place(made) else { return compute().map(Found::New) };
        let file = of.file::<T>();
        let kept = || -> Result<Option<Found<T>>, SessionError> {
            let Some(found) = parts.kept(&of, n)? else { return Ok(None) };
            let is_news = self.sharing.as_ref().is_none_or(|sharing| sharing.is_news(file.clone()));
            Ok(Some(if is_news { Found::Kept(found) } else { Found::New(found) }))
        };
        let found = || -> Result<Found<T>, SessionError> {
            if let Some(found) = kept()? {
                return Ok(found);
            }
            let mut claim = None;
            if let Some(sharing) = &self.sharing {
                let lane = made.lane.unwrap_or_else(|| of.seed());
                match sharing.whose(&of, &file, lane, !has_functions(made.plan))? {
                    Whose::Ours(ours) => claim = Some(ours),
                    Whose::Others(seed) => return Ok(Found::New(stand_in(Draw::new(seed)))),
                }
            }
            // It may have been finished between the look and the claim.
            let meanwhile = if claim.is_some() { kept()? } else { None };
            let found = match meanwhile {
                Some(found) => found,
                None => {
                    let found = compute()?;
                    parts.keep(&of, &found)?;
                    self.sharing.iter().for_each(|sharing| _ = sharing.is_news(file.clone()));
                    Found::New(found)
                }
            };
            claim.into_iter().for_each(Claim::made_good);
            Ok(found)
        };
        found().inspect_err(|_| self.sharing.iter().for_each(|sharing| sharing.failed()))
    }

    /// The next plan is made after what was read before.
    fn next_plan(&self) {
        self.sharing.iter().for_each(|sharing| sharing.next_plan());
    }

    /// Where what is made of a plan is kept, and as what; none where nothing is.
    fn place(&self, made: &Made) -> Option<(&Parts, Of)> {
        let parts = self.parts.as_ref()?;
        let named = |name: &String| Made { more: format!("{} of {name}", made.more), ..*made };
        let named = self.beside.as_ref().map(named);
        Some((parts, Of::new(named.as_ref().unwrap_or(made), &self.model, self.engine, parts)))
    }

    /// What it is expected to cost to let runs of a plan go on. How long texts are is not known before.
    fn of_texts(&self, plan: &Plan, some: &Generation) -> Result<OfTexts, RunError> {
        if self.progress.is_none() {
            return Ok(OfTexts::default());
        }
        let size_of = |plan: &Plan| Ok::<Size, RunError>(size(&self.compiled(plan)?, self.engine));
        let [whole, prompts] = whole_and_prompts(plan, some, size_of)?;
        Ok(OfTexts { whole, prompts })
    }

    fn options<'a>(&'a self, progress: &'a (dyn Fn(Told) + Sync)) -> Options<'a> {
        Options { engine: self.engine, progress, cancel: Some(&self.cancel), ..Options::default() }
    }

    fn kept(&self, done: Work) {
        self.progress.iter().for_each(|progress| progress.kept(done));
    }

    /// Counts what was run of a plan with this digest.
    fn count(&self, plan: &Plan, digest: &str, cost: Size) {
        let new = self.counted.borrow_mut().insert(digest.to_string());
        let (prompts, forks) = if new { (plan.prompts.len(), plan.forks.len()) } else { (0, 0) };
        self.total.borrow_mut().include(&Size { prompts, forks, ..cost });
    }

    /// What the engine would do for a plan: as [`size`] says, but that a plan that is cut holds one piece's residual streams at
    /// once.
    ///
    /// # Errors
    /// If the plan does not make sense for the model.
    pub fn size(&self, plan: &Plan) -> Result<Size, RunError> {
        self.size_of(&self.compiled(plan)?)
    }

    /// As [`Session::size`], of a plan that is compiled.
    pub(super) fn size_of(&self, program: &Program) -> Result<Size, RunError> {
        let mut whole = size(program, self.engine);
        if whole.resid_bytes as f64 > self.limits.bytes
            && let Some(pieces) = self.pieces(program)
        {
            let held = |piece: &Piece| Ok(size(&self.compiled(&piece.plan)?, self.engine).resid_bytes);
            let held = pieces.iter().map(held).collect::<Result<Vec<_>, RunError>>()?;
            whole.resid_bytes = held.into_iter().max().unwrap_or(0);
        }
        Ok(whole)
    }

    /// The pieces that a plan is computed in; none where it is one.
    fn pieces(&self, program: &Program) -> Option<Vec<Piece>> {
        let arch = &self.model.decoder.arch;
        // Rows times layers, and rows that are held, as a share of what a piece may have.
        let share = |rows: usize, held: usize| {
            let flops = rows as f64 * 2.0 * arch.layer_params() as f64;
            (flops / self.limits.flops).max((held * arch.d_model * 4) as f64 / self.limits.bytes)
        };
        match self.engine {
            Engine::Full => program.split(1.0, &|run| share(program.length(run) * arch.n_layers, 0)),
            Engine::Wavefront => program.split(1.0, &|run| match run {
                Run::Prompt(_) => share(program.length(run) * arch.n_layers, program.length(run)),
                Run::Fork(f) => {
                    let rows = (0..arch.n_layers).map(|l| program.cone(f).rows(l));
                    share(rows.sum(), program.most_rows(run))
                }
            }),
        }
    }

    /// The readings of a piece of this cost and digest: those that were kept, or new ones. `number` is that of its plan.
    fn piece(
        &self,
        (program, cost): (&Program, Size),
        digest: &str,
        number: usize,
        lane: u64,
    ) -> Result<Vec<Reading>, SessionError> {
        let plan = program.plan;
        let made = Made { plan, digest, number, more: String::new(), lane: Some(lane) };
        let compute = || Ok(self.computed(program, cost)?.into_inner());
        let stand_in = |mut draw: Draw| draw.readings(zeros(program).into_inner());
        let found = self.part(&made, plan.readouts.len(), compute, stand_in)?;
        Ok(found.told(|_| self.kept(Work { rows: cost.rows, flops: cost.flops, of_tokens: 0.0 })))
    }

    /// New readings of a program of this cost.
    fn computed(&self, program: &Program, cost: Size) -> Result<Readings, SessionError> {
        self.cancel.check()?;
        let a_row = cost.flops / cost.rows.max(1) as f64;
        let work = |rows: u64| Work { rows, flops: rows as f64 * a_row, of_tokens: 0.0 };
        let watching = &self.progress;
        let progress = |told: Told| tell(watching, (work(told.computed()), false));
        Ok(run_program(&self.model.decoder, program, &self.options(&progress))?)
    }
}

/// A part, and whether it had been there.
enum Found<T> {
    /// It had been, and whoever watches was not told so.
    Kept(T),
    New(T),
}

impl<T> Found<T> {
    fn get(&self) -> &T {
        match self {
            Found::Kept(part) | Found::New(part) => part,
        }
    }

    /// The part; `tell` says of one that it had been there.
    fn told(self, tell: impl FnOnce(&T)) -> T {
        match self {
            Found::Kept(part) => {
                tell(&part);
                part
            }
            Found::New(part) => part,
        }
    }
}

/// Tells whoever watches, from any thread, of work that was done or spared.
fn tell(progress: &Option<Arc<dyn Progress>>, (work, spared): (Work, bool)) {
    progress.iter().for_each(|progress| if spared { progress.spared(work) } else { progress.advance(work) });
}

/// What texts are expected to cost, as long as they may be, and what of that their prompts do.
#[derive(Clone, Copy, Default)]
struct OfTexts {
    whole: Size,
    prompts: Size,
}

impl OfTexts {
    /// Prompts with so many rows of tokens, in so many rows together.
    fn done(&self, rows: u64, tokens: u64) -> Work {
        let of_tokens = self.tokens(tokens).of_tokens;
        Work { rows, flops: self.prompts.flops + of_tokens, of_tokens }
    }

    /// So many rows of tokens.
    fn tokens(&self, rows: u64) -> Work {
        let (flops, of) = (self.whole.flops - self.prompts.flops, self.whole.rows.saturating_sub(self.prompts.rows));
        let flops = rows as f64 * flops / of.max(1) as f64;
        Work { rows, flops, of_tokens: flops }
    }

    /// What the engine tells, in operations; and whether it is spared.
    fn told(&self, told: Told) -> (Work, bool) {
        match told {
            Told::Rows(rows) => {
                let flops = rows as f64 * self.prompts.flops / self.prompts.rows.max(1) as f64;
                (Work { rows, flops, of_tokens: 0.0 }, false)
            }
            Told::Tokens(rows) => (self.tokens(rows), false),
            Told::Spared(rows) => (self.tokens(rows), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Metric;

    #[test]
    fn a_piece_holds_no_more_residual_streams_than_it_may() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/llama");
        for max_memory in [None, Some(1000)] {
            let options = crate::model::Options { max_memory, ..Default::default() };
            let model = Arc::new(Model::open(dir, &options).unwrap());
            let mut plan = Plan::default();
            for i in 0..40 {
                let prompt = plan.prompt("p", vec![i; 8]);
                plan.read(prompt, Metric::logit_difference(vec![1], vec![2]));
            }
            let limits = Limits::of(&model.decoder);
            assert!(limits.bytes <= Options::default().budget as f64);
            let limits = Limits { bytes: 5000.0, ..limits };
            let pieces = Session::new(&model, Engine::Wavefront, 0)
                .limited(limits)
                .pieces(&plan.compile(&model.decoder.arch).unwrap())
                .unwrap();
            let arch = &model.decoder.arch;
            let held = |piece: &Piece| size(&piece.plan.compile(arch).unwrap(), Engine::Wavefront).resid_bytes;
            // A prompt has 8 rows of 48 numbers.
            assert!(pieces.iter().all(|piece| held(piece) == 3 * 8 * 48 * 4 || held(piece) == 8 * 48 * 4));
            assert_eq!(pieces.len(), 14);
        }
    }
}
