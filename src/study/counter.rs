//! What an analysis asks for its readings: a session, which computes them, or a counter, which adds up what they would cost.

use super::progress::Work;
use super::session::{Limits, Session, SessionError};
use super::stand_ins::zeros;
use crate::model::Model;
use crate::plan::{Extent, Plan, Program, Reading, Readings};
use crate::run::{Cancel, Engine, Generated, Generation, RunError, Size, continued_alone, whole_and_prompts};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

/// Runs an analysis' plans.
pub trait Runner {
    /// The model that plans are for.
    fn model(&self) -> &Model;

    /// The seed of everything random.
    fn seed(&self) -> u64;

    /// Computes a plan's readings, one for each of its readouts.
    ///
    /// # Errors
    /// If the plan does not make sense for the model, or whatever stops the work.
    fn run(&self, plan: &Plan) -> Result<Readings, SessionError>;

    /// Continues runs of a plan; see [`generate`](crate::run::generate).
    ///
    /// # Errors
    /// As [`Runner::run`]; and if the generation does not make sense for the plan.
    fn generate(&self, plan: &Plan, generation: &Generation) -> Result<Vec<Generated>, SessionError>;

    /// Computes plans one after another and keeps what the gatherer makes of all their readings, in place of these: where they are
    /// many and little of them counts. `how` tells what is made from whatever else could be made of the same plans: all that it depends
    /// on besides their readings.
    ///
    /// # Errors
    /// As [`Runner::run`].
    fn gather(&self, plans: &[Plan], how: &str, gatherer: &mut dyn Gather) -> Result<Vec<Reading>, SessionError>;

    /// What is made of the model in another way than by running a plan: of its weights alone, say.
    ///
    /// # Errors
    /// If it cannot be made, or whatever stops the work.
    fn make(&self, what: &Making, make: &mut Make) -> Result<Vec<Reading>, SessionError>;

    /// A runner of the same study for another model: of the same engine and seed.
    fn beside(&self, model: &Arc<Model>) -> Box<dyn Runner>;

    /// Whether readings are stand-ins, zeros of the right shape, and answers are empty. Where earlier readings decide what is run,
    /// an analysis makes a choice then that costs about as much.
    fn is_counting(&self) -> bool {
        false
    }

    /// Says what is a part of the work, and the plan that would be run for that part alone: whoever counts may want to know what it
    /// costs.
    ///
    /// # Errors
    /// If the plan does not make sense for the model.
    fn name_part(&self, _name: &str, _plan: &dyn Fn() -> Plan) -> Result<(), SessionError> {
        Ok(())
    }
}

/// What is made of a model, other than readings of a plan.
pub struct Making<'a> {
    /// All that it depends on besides the model: two things that differ must not be called alike, or one is taken for the other.
    pub of: &'a str,
    /// About how many floating-point operations it takes.
    pub flops: f64,
    /// How many readings it is.
    pub n: usize,
}

/// Makes it.
pub type Make<'a> = dyn FnMut() -> Result<Vec<Reading>, String> + 'a;

/// Makes a few readings of those of several plans.
pub trait Gather {
    /// Takes the readings of the plan of this number.
    ///
    /// # Errors
    /// Whatever stops it.
    fn take(&mut self, plan: usize, readings: &Readings) -> Result<(), SessionError>;

    /// How many readings it makes.
    fn made(&self) -> usize;

    /// What it made of all that it took.
    fn finish(&mut self) -> Vec<Reading>;
}

impl Runner for Session {
    fn model(&self) -> &Model {
        &self.model
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn run(&self, plan: &Plan) -> Result<Readings, SessionError> {
        Session::run(self, plan)
    }

    fn gather(&self, plans: &[Plan], how: &str, gatherer: &mut dyn Gather) -> Result<Vec<Reading>, SessionError> {
        Session::gather(self, plans, how, gatherer)
    }

    fn generate(&self, plan: &Plan, generation: &Generation) -> Result<Vec<Generated>, SessionError> {
        Session::generate(self, plan, generation)
    }

    fn make(&self, what: &Making, make: &mut Make) -> Result<Vec<Reading>, SessionError> {
        Session::make(self, what, make)
    }

    fn beside(&self, model: &Arc<Model>) -> Box<dyn Runner> {
        Box::new(Session::beside(self, model))
    }
}

/// What plans would cost: nothing is computed.
pub struct Counter {
    model: Arc<Model>,
    seed: u64,
    engines: Vec<Engine>,
    cancel: Cancel,
    /// By all counters of one study, one a model.
    counted: Rc<RefCell<Counted>>,
    /// Whether the model is another one than the study's.
    beside: bool,
}

/// What was counted.
#[derive(Default)]
pub struct Counted {
    pub extent: Extent,
    /// By each of the counter's engines.
    pub sizes: Vec<Size>,
    /// Operations of the first engine that generate texts, token by token.
    pub of_tokens: f64,
    /// About how many pieces are kept, each as a part.
    pub pieces: usize,
    /// Parts that were named, in the order in which they were first, with their sizes by each engine.
    pub parts: Vec<(String, Vec<Size>)>,
    /// The plan for the study's own model that costs most by the first engine: of plans that differ, it says how fast they go.
    pub dearest: Option<(f64, Plan)>,
}

impl Counter {
    /// A counter of what these engines would do.
    pub fn new(model: &Arc<Model>, engines: Vec<Engine>, seed: u64) -> Self {
        let sizes = vec![Size::default(); engines.len()];
        let counted = Rc::new(RefCell::new(Counted { sizes, ..Counted::default() }));
        Counter { model: model.clone(), seed, engines, cancel: Cancel::default(), counted, beside: false }
    }

    /// Stops with [`RunError::Cancelled`] before the next plan, once the handle says so.
    pub fn cancelled_by(self, cancel: Cancel) -> Self {
        Counter { cancel, ..self }
    }

    /// What was counted so far.
    pub fn counted(self) -> Counted {
        self.counted.take()
    }

    fn compiled<'p>(&'p self, plan: &'p Plan) -> Result<Program<'p>, RunError> {
        Ok(plan.compile(&self.model.decoder.of(plan.kv).arch)?)
    }

    /// What a plan costs, by each engine.
    fn sizes(&self, program: &Program) -> Result<Vec<Size>, SessionError> {
        self.cancel.check()?;
        let of = |engine: &Engine| Ok(Session::new(&self.model, *engine, self.seed).size_of(program)?);
        self.engines.iter().map(of).collect()
    }

    /// Counts what a plan costs; gives the operations by the first engine.
    fn count(&self, program: &Program) -> Result<f64, SessionError> {
        let (plan, sizes) = (program.plan, self.sizes(program)?);
        let flops = sizes.first().map_or(0.0, |size| size.flops);
        let mut counted = self.counted.borrow_mut();
        counted.extent.include(plan);
        counted.sizes.iter_mut().zip(&sizes).for_each(|(total, size)| total.include(size));
        if !self.beside && counted.dearest.as_ref().is_none_or(|(most, _)| flops > *most) {
            counted.dearest = Some((flops, plan.clone()));
        }
        Ok(flops)
    }

    /// Counts pieces that are kept.
    fn keep(&self, pieces: usize) {
        self.counted.borrow_mut().pieces += pieces;
    }

    fn limits(&self) -> Limits {
        Limits::of(&self.model.decoder)
    }
}

impl Runner for Counter {
    fn model(&self) -> &Model {
        &self.model
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn run(&self, plan: &Plan) -> Result<Readings, SessionError> {
        let program = self.compiled(plan)?;
        let flops = self.count(&program)?;
        self.keep((flops / self.limits().flops).ceil().max(1.0) as usize);
        Ok(zeros(&program))
    }

    fn gather(&self, plans: &[Plan], _how: &str, gatherer: &mut dyn Gather) -> Result<Vec<Reading>, SessionError> {
        plans.iter().try_for_each(|plan| self.count(&self.compiled(plan)?).map(drop))?;
        self.keep(1);
        Ok(gatherer.finish())
    }

    fn generate(&self, plan: &Plan, generation: &Generation) -> Result<Vec<Generated>, SessionError> {
        // How long answers are is not known before: as long as they may be.
        let first = |plan: &Plan| {
            Ok::<Size, SessionError>(self.sizes(&self.compiled(plan)?)?.first().copied().unwrap_or_default())
        };
        let [whole, prompts] = whole_and_prompts(plan, generation, first)?;
        self.counted.borrow_mut().of_tokens += whole.flops - prompts.flops;
        self.count(&self.compiled(&continued_alone(plan, &generation.runs, generation.max_tokens))?)?;
        self.keep(generation.runs.len().div_ceil(self.limits().runs));
        Ok(vec![Generated { ids: Vec::new(), stopped: true }; generation.runs.len()])
    }

    fn make(&self, what: &Making, _: &mut Make) -> Result<Vec<Reading>, SessionError> {
        self.cancel.check()?;
        let size = Size { flops: what.flops, ..Size::default() };
        self.counted.borrow_mut().sizes.iter_mut().for_each(|total| total.include(&size));
        self.keep(1);
        Ok(vec![Reading::Number(0.0); what.n])
    }

    fn beside(&self, model: &Arc<Model>) -> Box<dyn Runner> {
        let (model, engines, cancel) = (model.clone(), self.engines.clone(), self.cancel.clone());
        Box::new(Counter { model, seed: self.seed, engines, cancel, counted: self.counted.clone(), beside: true })
    }

    fn is_counting(&self) -> bool {
        true
    }

    fn name_part(&self, name: &str, plan: &dyn Fn() -> Plan) -> Result<(), SessionError> {
        let sizes = self.sizes(&self.compiled(&plan())?)?;
        let parts = &mut self.counted.borrow_mut().parts;
        match parts.iter_mut().find(|(known, _)| known == name) {
            Some((_, total)) => total.iter_mut().zip(&sizes).for_each(|(total, size)| total.include(size)),
            None => parts.push((name.to_string(), sizes)),
        }
        Ok(())
    }
}

impl Counted {
    /// What all plans cost by the first engine.
    pub fn work(&self) -> Work {
        let of = |size: &Size| Work { rows: size.rows, flops: size.flops, of_tokens: self.of_tokens };
        self.sizes.first().map_or(Work::default(), of)
    }
}
