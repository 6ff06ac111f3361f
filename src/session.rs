//! Sessions: where an analysis runs its plans.
//!
//! A session holds what all plans of one analysis share: the model, the engine, the seed. It cuts a plan into pieces that
//! take seconds to minutes and, with a run directory, keeps each piece's readings as a part, so that a run which was
//! stopped goes on where it was. Where a plan is cut depends on the plan and the model alone, and readings do not depend
//! on it. What to run, and what readings mean, is left to the analyses.

mod parts;

use crate::model::Model;
use crate::plan::{Piece, Plan, Run};
use crate::run::{
    Engine, Generated, Generation, Options, Reading, RunError, Size, cones, generate, generation_size, run, size,
};
use crate::rundir::{RunDir, RunDirError};
use std::cell::{Cell, RefCell};

/// Floating-point operations after which a piece ends: half a minute on two cores. A streamed model is read from its file
/// once a piece, and so gets larger ones.
const PIECE_FLOPS: f64 = 3e12;
const STREAMED_PIECE_FLOPS: f64 = 60e12;

/// Runs that generate together, and whose answers are one part.
const RUNS_AT_ONCE: usize = 256;

/// Where an analysis runs its plans.
pub struct Session<'a> {
    pub model: &'a Model,
    pub engine: Engine,
    /// The seed of everything random.
    pub seed: u64,
    parts: Option<&'a RunDir>,
    progress: &'a (dyn Fn(u64) + Sync),
    total: RefCell<Size>,
    /// The number of the next plan that is run.
    next: Cell<usize>,
}

/// Generated answers as a part.
#[derive(serde::Serialize, serde::Deserialize)]
struct Answers {
    /// What they are of.
    of: String,
    answers: Vec<Generated>,
}

/// What stops a session's run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Part(#[from] RunDirError),
    #[error("{path}: {why}; start anew with --force")]
    BadPart { path: String, why: String },
}

impl<'a> Session<'a> {
    /// A session that keeps nothing.
    pub fn new(model: &'a Model, engine: Engine, seed: u64) -> Self {
        Session { model, engine, seed, parts: None, progress: &|_| {}, total: RefCell::default(), next: Cell::new(0) }
    }

    /// Keeps finished pieces in a run directory, and takes up those that are there.
    pub fn resumable(self, directory: &'a RunDir) -> Self {
        Session { parts: Some(directory), ..self }
    }

    /// Tells of every layer that rows went through: how many did.
    pub fn watched(self, progress: &'a (dyn Fn(u64) + Sync)) -> Self {
        Session { progress, ..self }
    }

    /// What was run so far.
    pub fn total(&self) -> Size {
        *self.total.borrow()
    }

    /// Computes a plan's readings, one for each of its readouts.
    ///
    /// # Errors
    /// As [`run`]; and if a part cannot be kept or read.
    pub fn run(&self, plan: &Plan) -> Result<Vec<Reading>, SessionError> {
        plan.check(&self.model.decoder.arch).map_err(RunError::from)?;
        self.total.borrow_mut().include(&size(plan, &self.model.decoder.arch, self.engine));
        let number = self.next.replace(self.next.get() + 1);
        let mut readings: Vec<Option<Reading>> = vec![None; plan.readouts.len()];
        for (k, piece) in self.pieces(plan).iter().enumerate() {
            let found = self.piece(piece, &format!("plan-{number:03}-{k:05}.safetensors"))?;
            for (i, reading) in piece.readouts.iter().zip(found) {
                readings[*i] = Some(reading);
            }
        }
        // Every readout is in one piece.
        Ok(readings.into_iter().flatten().collect())
    }

    /// Continues runs of a plan; see [`generate`].
    ///
    /// # Errors
    /// As [`generate`]; and if a part cannot be kept or read.
    pub fn generate(&self, plan: &Plan, generation: &Generation) -> Result<Vec<Generated>, SessionError> {
        let decoder = &self.model.decoder;
        plan.check(&decoder.arch).map_err(RunError::from)?;
        let number = self.next.replace(self.next.get() + 1);
        let budget = Options::default().budget;
        let at_once = if decoder.streamed() { generation.runs.len().max(1) } else { RUNS_AT_ONCE };
        let mut generated = Vec::with_capacity(generation.runs.len());
        for (k, runs) in generation.runs.chunks(at_once).enumerate() {
            let some = Generation { runs: runs.to_vec(), ..generation.clone() };
            self.total.borrow_mut().include(&generation_size(plan, &decoder.arch, &some, budget));
            generated.extend(self.generated(plan, &some, &format!("generation-{number:03}-{k:05}.json"))?);
        }
        Ok(generated)
    }

    fn generated(&self, plan: &Plan, some: &Generation, name: &str) -> Result<Vec<Generated>, SessionError> {
        let digest = format!("{} {some:?}", plan.digest());
        if let Some(path) = self.parts.and_then(|directory| directory.part(name)) {
            let bad = |why: String| SessionError::BadPart { path: path.display().to_string(), why };
            let bytes = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
            let part: Answers = serde_json::from_slice(&bytes).map_err(|e| bad(e.to_string()))?;
            if part.of != digest || part.answers.len() != some.runs.len() {
                return Err(bad(parts::ANOTHER.to_string()));
            }
            (self.progress)(generation_size(plan, &self.model.decoder.arch, some, Options::default().budget).rows);
            return Ok(part.answers);
        }
        let options = Options { engine: self.engine, progress: self.progress, ..Options::default() };
        let answers = generate(&self.model.decoder, plan, some, &options)?;
        let part = Answers { of: digest, answers };
        if let Some(directory) = self.parts {
            directory.commit_part(name, &serde_json::to_vec(&part).unwrap_or_default())?;
        }
        Ok(part.answers)
    }

    fn pieces(&self, plan: &Plan) -> Vec<Piece> {
        let arch = &self.model.decoder.arch;
        let a_row = 2.0 * arch.layer_params() as f64;
        let most = if self.model.decoder.streamed() { STREAMED_PIECE_FLOPS } else { PIECE_FLOPS };
        let whole = |run: Run| (plan.length(run) * arch.n_layers) as f64 * a_row;
        match self.engine {
            Engine::Full => plan.split(most, &whole),
            Engine::Wavefront => {
                let cones = cones(plan, arch);
                plan.split(most, &|run| match run {
                    Run::Prompt(_) => whole(run),
                    Run::Fork(f) => (0..arch.n_layers).map(|l| cones[f].rows(l)).sum::<usize>() as f64 * a_row,
                })
            }
        }
    }

    /// A piece's readings: those that were kept, or new ones.
    fn piece(&self, piece: &Piece, name: &str) -> Result<Vec<Reading>, SessionError> {
        if let Some(path) = self.parts.and_then(|directory| directory.part(name)) {
            let bad = |why: String| SessionError::BadPart { path: path.display().to_string(), why };
            let bytes = std::fs::read(&path).map_err(|e| bad(format!("cannot be read: {e}")))?;
            let readings = parts::decode(&bytes, piece.plan.readouts.len(), &piece.plan.digest()).map_err(bad)?;
            (self.progress)(size(&piece.plan, &self.model.decoder.arch, self.engine).rows);
            return Ok(readings);
        }
        let options = Options { engine: self.engine, progress: self.progress, ..Options::default() };
        let readings = run(&self.model.decoder, &piece.plan, &options)?;
        if let Some(directory) = self.parts {
            directory.commit_part(name, &parts::encode(&readings, &piece.plan.digest()))?;
        }
        Ok(readings)
    }
}
