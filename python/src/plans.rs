//! Plans: what the package's `Plan`, `Run` and `At` are made of.

use crate::errors::{input, of_run};
use crate::models::Model;
use crate::waiting::{Watched, waited};
use gatelens::plan::{
    self, Activation, Alignment, Array, Attribution, Change, Edge, EdgeSet, Entropy, Exchange, Gradient, KlFrom,
    LogProbs, Metric, Part, Positions, Projection, Rank, Reading, RowFunction, Run,
};
use gatelens::run::{Cancel, Engine, Generation, Sampling, Steps};
use gatelens::site::{Site, parse_sites};
use gatelens::study::Study;
use numpy::{PyArray1, PyArrayMethods, PyReadonlyArray1, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::sync::{Arc, Mutex, PoisonError};

/// Runs have numbers: prompts are even, forks odd.
fn number(run: Run) -> usize {
    match run {
        Run::Prompt(p) => 2 * p,
        Run::Fork(f) => 2 * f + 1,
    }
}

fn run_of(number: usize) -> Run {
    if number.is_multiple_of(2) { Run::Prompt(number / 2) } else { Run::Fork(number / 2) }
}

/// Where along a prompt.
#[derive(FromPyObject)]
pub enum Where {
    Named(String),
    At(Vec<usize>),
}

impl Where {
    fn read(self) -> PyResult<Positions> {
        match self {
            Where::At(positions) => Ok(Positions::At(positions)),
            Where::Named(name) if name == "last" => Ok(Positions::Last),
            Where::Named(name) if name == "all" => Ok(Positions::All),
            Where::Named(name) => Err(input(format!("`{name}` names no positions; there are last, all, and numbers"))),
        }
    }
}

/// Which numbers of a row: all, heads or columns.
#[derive(Clone, FromPyObject)]
pub struct PartOf(String, Vec<usize>);

impl From<PartOf> for Part {
    fn from(PartOf(kind, numbers): PartOf) -> Part {
        match kind.as_str() {
            "heads" => Part::Heads(numbers),
            "columns" => Part::Columns(numbers),
            _ => Part::All,
        }
    }
}

/// What is measured of a run.
#[derive(FromPyObject)]
pub enum MetricOf {
    Difference(Vec<u32>, Vec<u32>),
    AboveMean(Vec<u32>),
    Continuation(usize),
}

impl From<MetricOf> for Metric {
    fn from(metric: MetricOf) -> Metric {
        match metric {
            MetricOf::Difference(answer, foil) => Metric::logit_difference(answer, foil),
            MetricOf::AboveMean(tokens) => Metric::AboveMean { tokens },
            MetricOf::Continuation(from) => Metric::Continuation { from },
        }
    }
}

/// A site by its name. Which layers a model has is seen when a plan is run.
fn site_of(name: &str, model: &Model) -> PyResult<Site> {
    let found = parse_sites(name, &model.0.decoder.arch).map_err(input)?;
    match found[..] {
        [site] => Ok(site),
        _ => Err(input(format!("`{name}` names {} sites; name one, as resid_post.3", found.len()))),
    }
}

fn vector_of(vector: Option<PyReadonlyArray1<'_, f32>>) -> PyResult<Arc<[f32]>> {
    let vector = vector.ok_or_else(|| input("this change needs a vector"))?;
    Ok(vector.as_array().iter().copied().collect())
}

/// An edit, made by the package's `At`.
#[pyclass(frozen, module = "gatelens._core")]
pub struct Edit {
    site: String,
    part: PartOf,
    positions: Positions,
    change: Made,
}

/// A change; a function of Python's is wrapped for the plan that runs it.
enum Made {
    Is(Change),
    Function(Py<PyAny>),
}

#[pymethods]
impl Edit {
    #[new]
    #[pyo3(signature = (site, part, positions, change, *, numbers=(0.0, 0.0), vector=None, donor=None, donor_positions=None, function=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        site: String,
        part: PartOf,
        positions: Where,
        change: &str,
        numbers: (f32, f32),
        vector: Option<PyReadonlyArray1<'_, f32>>,
        donor: Option<usize>,
        donor_positions: Option<Vec<usize>>,
        function: Option<Py<PyAny>>,
    ) -> PyResult<Edit> {
        let change = match (change, donor, function) {
            ("zero", ..) => Made::Is(Change::Zero),
            ("set", ..) => Made::Is(Change::Set(vector_of(vector)?)),
            ("add", ..) => Made::Is(Change::Add { vector: vector_of(vector)?, coefficient: numbers.0 }),
            ("project_out", ..) => Made::Is(Change::ProjectOut(vector_of(vector)?)),
            ("scale", ..) => Made::Is(Change::Scale(numbers.0)),
            ("clamp", ..) => Made::Is(Change::Clamp { low: numbers.0, high: numbers.1 }),
            ("from", Some(donor), _) => {
                Made::Is(Change::Interchange { donor: run_of(donor), positions: donor_positions })
            }
            ("map", _, Some(function)) => Made::Function(function),
            (other, ..) => return Err(input(format!("`{other}` is no change that can be made of these arguments"))),
        };
        Ok(Edit { site, part, positions: positions.read()?, change })
    }
}

/// What a function of Python's raised while a plan ran.
#[derive(Default)]
struct Raised {
    first: Mutex<Option<PyErr>>,
    /// Stops the run at work.
    cancel: Mutex<Cancel>,
}

impl Raised {
    fn set(&self, e: PyErr) {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
        self.cancel.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    fn is(&self) -> bool {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn take(&self) -> Option<PyErr> {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A run begins, which this stops.
    fn begin(&self, cancel: &Cancel) {
        self.take();
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = cancel.clone();
    }
}

/// A function of Python's on the numbers of an edited row: it is given an array and gives back one as long, or changes its own.
fn row_function(function: Py<PyAny>, raised: Arc<Raised>) -> RowFunction {
    Arc::new(move |row: &mut [f32]| {
        if raised.is() {
            return;
        }
        Python::attach(|py| {
            if let Err(e) = mapped(py, &function, row) {
                raised.set(e);
            }
        });
    })
}

fn mapped(py: Python<'_>, function: &Py<PyAny>, row: &mut [f32]) -> PyResult<()> {
    let own = PyArray1::from_slice(py, row);
    let given = function.call1(py, (&own,))?;
    let given = given.bind(py);
    let array: PyReadwriteArray1<'_, f32> = match given.is_none() {
        true => own.readwrite(),
        false => {
            let numpy = py.import("numpy")?;
            let array = numpy.call_method1("array", (given, "float32"))?;
            array.extract().map_err(|_| {
                PyValueError::new_err(
                    "the function of an edit must give an array of one axis, or None if it changed its own",
                )
            })?
        }
    };
    let array = array.as_array();
    if array.len() != row.len() {
        let why = format!("the function of an edit gave {} numbers for a row of {}", array.len(), row.len());
        return Err(PyValueError::new_err(why));
    }
    row.iter_mut().zip(array).for_each(|(to, from)| *to = *from);
    Ok(())
}

/// Prompts, forks and readouts.
#[pyclass(module = "gatelens._core")]
pub struct Plan {
    /// Shared with the thread that computes it.
    plan: Arc<plan::Plan>,
    model: Py<Model>,
    raised: Arc<Raised>,
}

#[pymethods]
impl Plan {
    #[new]
    fn new(model: Py<Model>) -> Plan {
        Plan { plan: Arc::default(), model, raised: Arc::default() }
    }

    fn prompt(&mut self, name: String, ids: Vec<u32>) -> usize {
        number(self.changed().prompt(name, ids))
    }

    fn fork(&mut self, base: usize, edits: Vec<Py<Edit>>) -> PyResult<usize> {
        let made = edits.iter().map(|edit| {
            let edit = edit.get();
            let change = match &edit.change {
                Made::Is(change) => change.clone(),
                Made::Function(function) => {
                    let function = Python::attach(|py| function.clone_ref(py));
                    Change::Map(row_function(function, self.raised.clone()))
                }
            };
            let site = site_of(&edit.site, self.model.get())?;
            Ok(plan::Edit { site, part: edit.part.clone().into(), positions: edit.positions.clone(), change })
        });
        let made = made.collect::<PyResult<Vec<_>>>()?;
        Ok(number(self.changed().fork(run_of(base), made)))
    }

    /// A fork that takes edges from a donor, or all edges but these.
    fn exchange(
        &mut self,
        base: usize,
        donor: usize,
        edges: Vec<String>,
        all_but: bool,
        positions: Where,
    ) -> PyResult<usize> {
        let edges = edges.iter().map(|edge| edge.parse::<Edge>().map_err(input)).collect::<PyResult<Vec<_>>>()?;
        let edges = if all_but { EdgeSet::AllBut(edges.into()) } else { edges.into() };
        let exchange =
            Exchange { donor: run_of(donor), edges, positions: positions.read()?, alignment: Alignment::Same };
        Ok(number(self.changed().exchange(run_of(base), exchange)))
    }

    fn read_metric(&mut self, run: usize, metric: MetricOf) -> usize {
        self.changed().read(run_of(run), Metric::from(metric)).readout()
    }

    fn read_activation(&mut self, run: usize, site: &str, part: PartOf, positions: Where) -> PyResult<usize> {
        let site = site_of(site, self.model.get())?;
        let what = Activation { site, positions: positions.read()?, part: part.into() };
        Ok(self.changed().read(run_of(run), what).readout())
    }

    fn read_gradient(
        &mut self,
        run: usize,
        metric: MetricOf,
        site: &str,
        part: PartOf,
        positions: Where,
    ) -> PyResult<usize> {
        let site = site_of(site, self.model.get())?;
        let what = Gradient { metric: metric.into(), site, positions: positions.read()?, part: part.into() };
        Ok(self.changed().read(run_of(run), what).readout())
    }

    fn read_projection(
        &mut self,
        run: usize,
        site: &str,
        positions: Where,
        direction: PyReadonlyArray1<'_, f32>,
    ) -> PyResult<usize> {
        let site = site_of(site, self.model.get())?;
        let direction = vector_of(Some(direction))?;
        Ok(self.changed().read(run_of(run), Projection { site, positions: positions.read()?, direction }).readout())
    }

    fn read_attribution(&mut self, run: usize, metric: MetricOf) -> usize {
        self.changed().read(run_of(run), Attribution(metric.into())).readout()
    }

    fn read_log_probs(&mut self, run: usize, tokens: Vec<u32>) -> usize {
        self.changed().read(run_of(run), LogProbs { tokens }).readout()
    }

    fn read_kl(&mut self, run: usize, other: usize) -> usize {
        self.changed().read(run_of(run), KlFrom(run_of(other))).readout()
    }

    fn read_entropy(&mut self, run: usize) -> usize {
        self.changed().read(run_of(run), Entropy).readout()
    }

    fn read_rank(&mut self, run: usize, token: u32) -> usize {
        self.changed().read(run_of(run), Rank(token)).readout()
    }

    /// Prompts, forks and readouts.
    fn extent(&self) -> (usize, usize, usize) {
        (self.plan.prompts.len(), self.plan.forks.len(), self.plan.readouts.len())
    }

    /// All readings, in the order of the readouts: numbers, and arrays that were not copied.
    #[pyo3(signature = (engine, tick=None))]
    fn run<'py>(
        &self,
        py: Python<'py>,
        engine: &str,
        tick: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let (study, watched) = self.study(py, engine)?;
        let cancel = study.cancel.clone();
        let plan = self.plan.clone();
        self.raised.begin(&cancel);
        let readings = waited(py, &cancel, &watched, tick, move || study.session().run(&plan));
        if let Some(e) = self.raised.take() {
            return Err(e);
        }
        let all = readings?.map_err(of_run)?.into_inner();
        // Each is let go of once it is Python's.
        PyList::new(py, all.into_iter().map(|reading| to_python(py, reading)).collect::<PyResult<Vec<_>>>()?)
    }

    /// What some runs come to, token by token: ids, and whether a stop token ended each.
    #[pyo3(signature = (runs, max_tokens, every, stop, temperature=None, top_p=1.0, seed=0, tick=None))]
    #[allow(clippy::too_many_arguments)]
    fn generate(
        &self,
        py: Python<'_>,
        runs: Vec<usize>,
        max_tokens: usize,
        every: bool,
        stop: Vec<u32>,
        temperature: Option<f64>,
        top_p: f64,
        seed: u64,
        tick: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Vec<(Vec<u32>, bool)>> {
        let sampling = match temperature {
            None => Sampling::Greedy,
            Some(temperature) => Sampling::Sample { temperature, top_p, seed },
        };
        let steps = if every { Steps::Every } else { Steps::PromptOnly };
        let runs = runs.into_iter().map(run_of).collect();
        let generation = Generation { runs, max_tokens, sampling, steps, stop };
        let (study, watched) = self.study(py, "wavefront")?;
        let (cancel, plan) = (study.cancel.clone(), self.plan.clone());
        self.raised.begin(&cancel);
        let generated = waited(py, &cancel, &watched, tick, move || study.session().generate(&plan, &generation));
        if let Some(e) = self.raised.take() {
            return Err(e);
        }
        Ok(generated?.map_err(of_run)?.into_iter().map(|run| (run.ids, run.stopped)).collect())
    }
}

impl Plan {
    /// The plan, to be added to.
    fn changed(&mut self) -> &mut plan::Plan {
        Arc::make_mut(&mut self.plan)
    }

    fn study(&self, py: Python<'_>, engine: &str) -> PyResult<(Study, Arc<Watched>)> {
        let watched = Arc::new(Watched::default());
        let model = self.model.bind(py).get().0.clone();
        let study = Study { engine: engine_of(engine)?, progress: Some(watched.clone()), ..Study::of(model) };
        Ok((study, watched))
    }
}

/// An engine by its name.
pub fn engine_of(name: &str) -> PyResult<Engine> {
    let named = |engine: &Engine| engine.to_string() == name;
    let known = [Engine::Wavefront, Engine::Full].into_iter().find(named);
    known.ok_or_else(|| input(format!("`engine`: `{name}` is no engine; there are wavefront and full")))
}

fn to_python(py: Python<'_>, reading: Reading) -> PyResult<Bound<'_, PyAny>> {
    match reading {
        Reading::Number(number) => Ok(number.into_pyobject(py)?.into_any()),
        Reading::Array(Array { shape, values }) => Ok(PyArray1::from_vec(py, values).reshape(shape)?.into_any()),
    }
}
