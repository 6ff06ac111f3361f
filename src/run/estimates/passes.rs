//! The plan whose readings estimates are made of.

use crate::plan::{
    Activation, Array, Change, Edge, EdgeEstimate, EdgesReadout, Edit, Exchange, Gradient, Graph, Handle, Metric, Part,
    Plan, Positions, Program, Reader, Run,
};
use crate::site::{Site, SiteKind};

/// The plan, and what is read by it.
pub(super) struct Passes {
    pub plan: Plan,
    pub base: Run,
    pub donor: Run,
    /// What the writers add in both runs.
    pub written: Vec<(Run, Site, Handle<Array>)>,
    /// The base's own.
    pub tap: Tap,
    /// Those of the runs on the way from the donor's embedding to the base's.
    pub path: Vec<Tap>,
    pub base_metric: Handle<f64>,
    /// The metric with each writer's edge to the logits taken, where that is asked for.
    pub to_logits: Vec<Handle<f64>>,
}

/// A run's streams, with gradients of the metric.
pub(super) struct Tap {
    pub layers: Vec<LayerTap>,
    /// The gradient at the last residual stream.
    pub last: Handle<Array>,
}

/// Of one layer.
pub(super) struct LayerTap {
    /// The streams that the mixer and the channel read.
    pub mixer: Handle<Array>,
    pub channel: Handle<Array>,
    /// Gradients at queries, keys, values, and at what the channel reads after its norm.
    pub ports: [Handle<Array>; 3],
    pub mlp_in: Handle<Array>,
    /// Values and gradients of what the readers give.
    pub z: [Handle<Array>; 2],
    pub mlp_out: [Handle<Array>; 2],
}

impl Passes {
    /// What estimates need that agree in all but how; `embeds` are the base's and the donor's. `[positions * d_model]` each
    pub fn new(program: &Program, readouts: &[EdgesReadout], embeds: &[Vec<f32>; 2]) -> Passes {
        let (arch, first, mut plan) = (program.arch, &readouts[0], Plan::default());
        let [base, donor] = [first.run, first.donor]
            .map(|run| plan.prompt(program.plan.describe(run).replace('`', ""), program.ids(run).to_vec()));
        let mut kinds = vec![SiteKind::Z, SiteKind::MlpOut];
        if arch.changes_what_is_added() {
            kinds.extend([SiteKind::AttnOut, SiteKind::AttnDelta, SiteKind::MlpDelta]);
        }
        let of_layers = (0..arch.n_layers).flat_map(|l| kinds.iter().map(move |kind| kind.at(l)));
        let sites: Vec<Site> = std::iter::once(SiteKind::Embed.at(0)).chain(of_layers).collect();
        let mut written = Vec::new();
        for run in [base, donor] {
            written.extend(sites.iter().map(|site| (run, *site, plan.read(run, value(*site)))));
        }
        let steps = readouts.iter().find_map(|r| match r.by {
            EdgeEstimate::IntegratedGradients { steps } => Some(steps),
            _ => None,
        });
        let path: Vec<Run> = (0..steps.unwrap_or(0))
            .map(|k| interpolated(&mut plan, base, embeds, k as f32 / steps.unwrap_or(1) as f32))
            .collect();
        let path = path.into_iter().map(|run| Tap::ask(&mut plan, program, run, first.metric)).collect();
        let tap = Tap::ask(&mut plan, program, base, first.metric);
        let base_metric = plan.read(base, first.metric.clone());
        let to_logits = match readouts.iter().any(|r| r.by == EdgeEstimate::Reader) {
            true => to_logits(&mut plan, program, (base, donor), first),
            false => Vec::new(),
        };
        Passes { plan, base, donor, written, tap, path, base_metric, to_logits }
    }
}

/// All positions of a site.
fn value(site: Site) -> Activation {
    Activation { site, positions: Positions::All, part: Part::All }
}

/// A run whose embedding is so far on the way from the donor's to the base's.
fn interpolated(plan: &mut Plan, base: Run, [own, theirs]: &[Vec<f32>; 2], share: f32) -> Run {
    let n = plan.length(base);
    let width = own.len() / n;
    let mixed: Vec<f32> = own.iter().zip(theirs).map(|(own, theirs)| theirs + share * (own - theirs)).collect();
    let edit = |(p, row): (usize, &[f32])| Edit {
        site: SiteKind::Embed.at(0),
        part: Part::All,
        positions: Positions::At(vec![p]),
        change: Change::Set(row.into()),
    };
    plan.fork(base, mixed.chunks_exact(width).enumerate().map(edit).collect())
}

/// The metric with each writer's edge to the logits taken.
fn to_logits(plan: &mut Plan, program: &Program, (base, donor): (Run, Run), of: &EdgesReadout) -> Vec<Handle<f64>> {
    let taken = |writer| {
        let edges = std::iter::once(Edge { writer, reader: Reader::Logits }).collect();
        let positions = Positions::At(of.positions.iter().map(|at| at.own).collect());
        let alignment = of.aligned.iter().copied().collect();
        let run = plan.exchange(base, Exchange { donor, edges, positions, alignment });
        plan.read(run, of.metric.clone())
    };
    Graph::of(program.arch).writers().map(taken).collect()
}

impl Tap {
    fn ask(plan: &mut Plan, program: &Program, run: Run, metric: &Metric) -> Tap {
        let (arch, mid) = (program.arch, !program.arch.parallel);
        let layers = (0..arch.n_layers).map(|l| LayerTap::ask(plan, run, metric, l, mid)).collect();
        let last = plan.read(run, gradient(metric, SiteKind::ResidPost.at(arch.n_layers - 1)));
        Tap { layers, last }
    }
}

impl LayerTap {
    fn ask(plan: &mut Plan, run: Run, metric: &Metric, l: usize, mid: bool) -> LayerTap {
        let mixer = plan.read(run, value(SiteKind::ResidPre.at(l)));
        let channel = if mid { plan.read(run, value(SiteKind::ResidMid.at(l))) } else { mixer };
        let ports = [SiteKind::Q, SiteKind::K, SiteKind::V].map(|kind| plan.read(run, gradient(metric, kind.at(l))));
        let mlp_in = plan.read(run, gradient(metric, SiteKind::MlpIn.at(l)));
        let [z, mlp_out] = [SiteKind::Z, SiteKind::MlpOut].map(|kind| {
            let value = plan.read(run, value(kind.at(l)));
            [value, plan.read(run, gradient(metric, kind.at(l)))]
        });
        LayerTap { mixer, channel, ports, mlp_in, z, mlp_out }
    }
}

/// The gradient of a metric at all positions of a site.
fn gradient(metric: &Metric, site: Site) -> Gradient {
    Gradient { metric: metric.clone(), site, positions: Positions::All, part: Part::All }
}
