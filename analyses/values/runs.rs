//! What is done to replies: neurons silenced and vectors added; and how likely the replies are then.

use super::found::Sets;
use super::items::{OfValue, Reply};
use super::{CONTEXTS, SETS};
use crate::analyses::directions;
use crate::analyses::neurons::{self, Layer, Neuron, by_layer};
use crate::analyses::prelude::*;
use crate::stats::rng;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Something that is done to every reply.
pub struct Condition {
    pub done: Done,
    /// 0: what was found; from 1 on: something random of the same size.
    pub control: usize,
}

/// What is done.
pub enum Done {
    /// Neurons are set to 0 at every position.
    Silence {
        /// The number of the set.
        set: usize,
        /// The columns of the neurons of each layer.
        layers: BTreeMap<usize, Vec<usize>>,
    },
    /// A vector is added after a layer where the reply's tokens are read, and where the first of them is told.
    Add {
        /// 0: the intrinsic vector; 1: the prompted one.
        vector: usize,
        layer: usize,
        coefficient: f64,
        row: Arc<[f32]>,
    },
}

impl Done {
    /// How many edits it takes.
    fn edits(&self) -> usize {
        match self {
            Done::Silence { layers, .. } => layers.len(),
            Done::Add { .. } => 1,
        }
    }

    /// How many neurons are silenced.
    pub fn neurons(&self) -> usize {
        match self {
            Done::Silence { layers, .. } => layers.values().map(Vec::len).sum(),
            Done::Add { .. } => 0,
        }
    }

    /// Whether it is the same but for what is random.
    pub fn is_like(&self, other: &Done) -> bool {
        match (self, other) {
            (Done::Silence { set: a, .. }, Done::Silence { set: b, .. }) => a == b,
            (
                Done::Add { vector: a, layer: on_a, coefficient: by_a, .. },
                Done::Add { vector: b, layer: on_b, coefficient: by_b, .. },
            ) => (a, on_a) == (b, on_b) && by_a.total_cmp(by_b).is_eq(),
            _ => false,
        }
    }

    /// What is edited of a reply.
    pub fn of(&self, reply: &Reply) -> Vec<Edit> {
        match self {
            Done::Silence { layers, .. } => layers
                .iter()
                .map(|(layer, columns)| Edit {
                    site: SiteKind::MlpAct.at(*layer),
                    part: Part::Columns(columns.clone()),
                    positions: Positions::All,
                    change: Change::Zero,
                })
                .collect(),
            Done::Add { layer, coefficient, row, .. } => vec![Edit {
                site: SiteKind::ResidPost.at(*layer),
                part: Part::All,
                positions: Positions::At((reply.from - 1..reply.ids.len()).collect()),
                change: Change::Add { vector: row.clone(), coefficient: *coefficient as f32 },
            }],
        }
    }
}

/// Each set of neurons silenced, and after it random ones: as many of each layer, none of which is a value neuron.
pub fn silenced(of: &[Layer], sets: &Sets, controls: usize, (seed, value): (u64, &str)) -> Vec<Condition> {
    let all = sets.all();
    let mut conditions = Vec::new();
    for (set, own) in sets.neurons.iter().enumerate().filter(|(_, own)| !own.is_empty()) {
        let silence = |neurons: &[Neuron], control| Condition {
            done: Done::Silence { set, layers: by_layer(of, neurons) },
            control,
        };
        conditions.push(silence(own, 0));
        let random = (1..=controls).map_while(|control| {
            let mut rng = rng(seed, &format!("values.{value}.{}.{control}", SETS[set]));
            Some(silence(&neurons::random_like(of, own, &all, &mut rng)?, control))
        });
        conditions.extend(random);
    }
    conditions
}

/// A vector added times each coefficient, and after each the same of random directions of its norm.
pub fn added((vector, layer): (usize, usize), own: &[f32], grid: &[f64], controls: usize, seed: u64) -> Vec<Condition> {
    let random = |control: usize| {
        // A number of its own for each direction.
        let number = (2 * layer + vector) * controls + control - 1;
        directions::random_like(&[own.to_vec()], seed, number).concat()
    };
    let rows = std::iter::once(own.to_vec()).chain((1..=controls).map(random)).map(Arc::from);
    let rows: Vec<Arc<[f32]>> = rows.collect();
    let at = |coefficient: f64| {
        let one = move |(control, row): (usize, &Arc<[f32]>)| Condition {
            done: Done::Add { vector, layer, coefficient, row: row.clone() },
            control,
        };
        rows.iter().enumerate().map(one).collect::<Vec<_>>()
    };
    grid.iter().flat_map(|coefficient| at(*coefficient)).collect()
}

/// How likely the reply with the value is, and the one without: log-probability of their own tokens, nats a token. First as they are,
/// then under each condition.
pub type Said = Vec<[f64; 2]>;

/// What the replies of the items that were held out come to. `[contexts][items]`
pub fn said(runner: &dyn Runner, of: &OfValue, conditions: &[Condition]) -> Result<[Vec<Said>; 2], AnalysisError> {
    let held_out = of.half(true);
    let mut replies: Vec<(String, &Reply)> = Vec::new();
    for (c, context) in CONTEXTS.iter().enumerate() {
        for item in held_out.iter().map(|i| &of.items[*i]) {
            let both = item.replies[c].iter().zip(["with", "without"]);
            replies.extend(both.map(|(reply, which)| (format!("{}, {context}, {which}", item.id), reply)));
        }
    }
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(replies.len());
    for some in batches(replies.len(), conditions.iter().map(|condition| condition.done.edits()).sum()) {
        let mut plan = Plan::default();
        let asked: Vec<Vec<Handle<f64>>> =
            replies[some.clone()].iter().map(|(name, reply)| ask(&mut plan, name, reply, conditions)).collect();
        let readings = runner.run(&plan)?;
        for ((_, reply), handles) in replies[some].iter().zip(asked) {
            found.push(handles.into_iter().map(|handle| readings[handle] / reply.own() as f64).collect());
        }
    }
    let mut items = found.chunks_exact(2).map(|both| both[0].iter().zip(&both[1]).map(|(a, b)| [*a, *b]).collect());
    let unprompted = items.by_ref().take(held_out.len()).collect();
    Ok([unprompted, items.collect()])
}

/// The likelihood of a reply as it is, and under each condition.
fn ask(plan: &mut Plan, name: &str, reply: &Reply, conditions: &[Condition]) -> Vec<Handle<f64>> {
    let run = plan.prompt(name.to_string(), reply.ids.clone());
    let metric = || Metric::Continuation { from: reply.from };
    let mut handles = vec![plan.read(run, metric())];
    for condition in conditions {
        let fork = plan.fork(run, condition.done.of(reply));
        handles.push(plan.read(fork, metric()));
    }
    handles
}
