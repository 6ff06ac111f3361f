//! What does finetuning add? Each child of one parent as a vector, which children are alike, and what mixtures are sums of.
//!
//! A child's vector (*delta activations*) is the residual stream after its last layer, before the final norm, at the last token of a
//! few generic prompts, less the parent's, and the mean over the prompts. The prompts are instructions that name no task: what a child
//! does at their end is what it is disposed to do. Children are opened one after another, so that one of them and the parent are in
//! memory. Source: Xu et al. 2025, "Delta Activations: A Representation for Finetuned Large Language Models".

mod children;
mod report;
mod sums;
mod tables;
mod vectors;

pub use report::of_kinds;
pub use tables::{ChildRow, ClusterRow, CutRow, DistanceRow, LABELS, MapRow, SumRow};

use super::paths::{expand, open};
use crate::analyses::inputs::{encoded, rows_read};
use crate::analyses::prelude::*;
use crate::analyses::vectors::to_npy;
use crate::dataset::{Input, read_prompts};
use children::Child;
use std::sync::Arc;
use sums::Sum;
use vectors::Delta;

parameters! {
    /// Compare models that were finetuned from one parent by what each adds to its activations (Delta Activations)
    #[serde(default)]
    pub struct Deltas {
        /// Compare these with the parent, in this order; a name may hold *, as in "out/checkpoint-*" (repeatable)
        children: Vec<String>, [required = true, value_name = "MODEL"];

        /// Read the generic prompts from this file, JSON Lines: {"id"?, "prompt"} (default: five instructions that name no task)
        prompts: Option<Data>, [value_name = "FILE"];

        /// Read the children's kinds from this file, JSON Lines: {"model", "label"}
        ///
        /// A model is named as among the children, or by the last part of its path. It is tested whether children of one kind are
        /// nearer to each other than to the others.
        labels: Option<Data>, [value_name = "FILE"];

        /// Ask whether a child's vector is the sum of two others', as in "mathematics + code = both" (repeatable)
        sums: Vec<String>, [value_name = "SUM"];
    }
}

/// Prompts that name no task, when none are given. They are read as text: a template would be another one for each child.
const GENERIC: [&str; 5] = [
    "Below is an instruction. Write a reply that does what it asks.",
    "You are given a task. Work on it with care and give the result.",
    "Here is a question. Answer it as well as you can.",
    "Read what follows and respond to it in a helpful way.",
    "An assistant receives the next request and carries it out:",
];

/// What messages call these prompts.
const BUILT_IN: &str = "built-in prompts";

/// The prompts as the parent reads them, and the children with how they do.
pub struct Asked {
    set: Dataset<Item>,
    /// The parent's.
    ids: Vec<Vec<u32>>,
    children: Vec<Child>,
    sums: Vec<Sum>,
}

/// The residual stream after a model's last layer, at the last token of each prompt. `[prompts][d_model]`
type Rows = Vec<Vec<f32>>;

/// What was read of the models.
pub struct Measured {
    parent: Rows,
    /// One a child.
    children: Vec<Rows>,
}

impl Analysis for Deltas {
    const NAME: &'static str = "deltas";
    const TITLE: &'static str = "Delta activations";
    const FROM_TABLES: FromTables = FromTables { figures: report::figures, sections: report::sections };
    type Items = Asked;
    type Measured = Measured;

    fn prepare(&self, model: &Model) -> Result<Prepared<Asked>, AnalysisError> {
        let names = expand(&self.children)?;
        if names.is_empty() {
            return Err(AnalysisError::Bad(format!("{}: name one model at least", param("children"))));
        }
        let set = self.set()?;
        let (ids, mut scored) = encoded(model, &set)?;
        let mut sources: Vec<_> = self.prompts.iter().map(|_| set.source()).collect();
        let (mut children, mut noted) = (Vec::new(), Vec::new());
        for name in &names {
            let (child, notes) = Child::read(name, model, &set, &ids)?;
            sources.push((child.name.clone(), child.sample.clone()));
            noted.extend(notes.into_iter().map(|note| (name.as_str(), note)));
            children.push(child);
        }
        scored.note(grouped(&noted));
        if let Some(data) = &self.labels {
            let (labels, source) = children::labels(data, &names)?;
            children.iter_mut().zip(labels).for_each(|(child, label)| child.label = label);
            sources.push(source);
        }
        let sums = self.sums.iter().map(|text| sums::read(text, &names)).collect::<Result<_, _>>()?;
        Ok(Prepared { items: Asked { set, ids, children, sums }, sources, scored })
    }

    fn measure(&self, runner: &dyn Runner, items: &Asked) -> Result<Measured, AnalysisError> {
        let parent = last_rows(runner, &items.set, &items.ids)?;
        let mut children = Vec::new();
        for child in &items.children {
            let model = Arc::new(open(&child.name, &runner.model().options)?);
            children.push(last_rows(runner.beside(&model).as_ref(), &items.set, &child.ids)?);
        }
        Ok(Measured { parent, children })
    }

    fn tables(&self, about: &About, items: &Asked, measured: Measured) -> Result<Output, AnalysisError> {
        let Measured { parent, children } = measured;
        let deltas: Vec<Delta> = children.iter().map(|rows| Delta::of(rows, &parent)).collect();
        let tables = tables::tables((about.model, about.seed), items, &parent, &deltas)?;
        let vectors: Vec<f32> = deltas.iter().flat_map(|delta| &delta.mean).copied().collect();
        let shape = [deltas.len(), about.loaded.decoder.arch.d_model];
        Ok(Output { tables, files: vec![("deltas.npy".to_string(), to_npy(&shape, &vectors))] })
    }
}

/// What is to be said of models, each thing once, whichever they are.
fn grouped(noted: &[(&str, String)]) -> Vec<String> {
    let mut by_text: Vec<(&str, Vec<&str>)> = Vec::new();
    for (name, text) in noted {
        match by_text.iter_mut().find(|(known, _)| known == text) {
            Some((_, names)) => names.push(name),
            None => by_text.push((text, vec![name])),
        }
    }
    let line = |(text, names): (&str, Vec<&str>)| match names.len() {
        1 => format!("model `{}`: {text}", names[0]),
        n => format!("model `{}` and {} more: {text}", names[0], n - 1),
    };
    by_text.into_iter().map(line).collect()
}

impl Deltas {
    /// The prompts.
    fn set(&self) -> Result<Dataset<Item>, AnalysisError> {
        if let Some(data) = &self.prompts {
            return Ok(read_prompts(data)?);
        }
        let items: Vec<Item> = GENERIC.iter().map(|text| Item::new(Input::text(*text))).collect();
        Ok(Dataset { path: BUILT_IN.into(), ..read_prompts(items)? })
    }
}

/// What is read of a model.
fn last_rows(runner: &dyn Runner, set: &Dataset<Item>, ids: &[Vec<u32>]) -> Result<Rows, AnalysisError> {
    let arch = &runner.model().decoder.arch;
    let last = SiteKind::ResidPost.at(arch.n_layers - 1);
    let mut rows = Rows::new();
    for some in batches(ids.len(), rows_read(&[last], arch, Position::Last, 1)) {
        let mut plan = Plan::default();
        let mut read = |i: usize| {
            let run = plan.prompt(set.items[i].id.clone(), ids[i].clone());
            plan.read(run, Activation { site: last, positions: Positions::Last, part: Part::All })
        };
        let asked: Vec<Handle<Array>> = some.map(&mut read).collect();
        let readings = runner.run(&plan)?;
        rows.extend(asked.into_iter().map(|handle| readings[handle].values.clone()));
    }
    match rows.iter().flatten().all(|x| x.is_finite()) {
        true => Ok(rows),
        false => {
            let (name, dtype) = (&runner.model().name, param("dtype"));
            Err(AnalysisError::Failed(format!("model `{name}`: its activations are not finite; try another {dtype}")))
        }
    }
}
