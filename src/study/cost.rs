//! What a study would cost, before it is run.

use super::session::Session;
use super::{Study, StudyError};
use crate::analyses::{Analysis, Plans};
use crate::measured::ShownPrompt;
use crate::plan::{Extent, Plan};
use crate::run::{Engine, RunError, Size, rate};

/// Both engines, in the order of [`Cost::sizes`].
pub const ENGINES: [Engine; 2] = [Engine::Wavefront, Engine::Full];

/// What an analysis would cost.
pub struct Cost {
    /// Prompts, edited runs and readouts of all plans.
    pub extent: Extent,
    /// By the wavefront, and by the full engine.
    pub sizes: [Size; 2],
    /// How long each would compute, in seconds, by a rate that was measured on some of the plan's rows; none where nothing is run.
    pub seconds: [Option<f64>; 2],
    /// Parts of it that are said by themselves, with what they are.
    pub parts: Vec<(String, [Size; 2])>,
    /// The engine that is asked for.
    pub engine: Engine,
    /// The first prompt, as the model reads it.
    pub first_prompt: Option<ShownPrompt>,
}

impl Cost {
    pub(super) fn of<A: Analysis>(analysis: &A, study: &Study) -> Result<Cost, StudyError> {
        let model = &study.model;
        let items = analysis.prepare(model)?;
        let first_prompt = A::scored(&items).first_prompt().cloned();
        let mut count = Count { study, extent: Extent::default(), dearest: None };
        let sizes = count.all(analysis.plans(model, &items)?, true)?;
        let parts = analysis.parts(model, &items)?.into_iter();
        let parts = parts.map(|(what, plans)| Ok((what, count.all(plans, false)?)));
        let parts = parts.collect::<Result<_, StudyError>>()?;
        let seconds = count.seconds(&sizes)?;
        Ok(Cost { extent: count.extent, sizes, seconds, parts, engine: study.engine, first_prompt })
    }
}

/// Counts plans.
struct Count<'a> {
    study: &'a Study,
    extent: Extent,
    /// Of plans that differ, the one that costs most says how fast it goes.
    dearest: Option<(f64, Plan)>,
}

impl Count<'_> {
    /// What plans cost by each engine; those that are `counted` are part of the whole.
    fn all(&mut self, plans: Plans<'_>, counted: bool) -> Result<[Size; 2], StudyError> {
        let sessions = ENGINES.map(|engine| Session::new(&self.study.model, engine, 0));
        let mut sizes = [Size::default(); 2];
        for plan in plans {
            let plan = plan?;
            let mut of = [Size::default(); 2];
            for ((size, all), session) in of.iter_mut().zip(&mut sizes).zip(&sessions) {
                *size = session.size(&plan)?;
                all.include(size);
            }
            if counted {
                self.extent.include(&plan);
                if self.dearest.as_ref().is_none_or(|(flops, _)| of[0].flops > *flops) {
                    self.dearest = Some((of[0].flops, plan));
                }
            }
        }
        Ok(sizes)
    }

    /// How long each engine would compute.
    fn seconds(&self, sizes: &[Size; 2]) -> Result<[Option<f64>; 2], StudyError> {
        let mut seconds = [None; 2];
        let Some((_, plan)) = &self.dearest else { return Ok(seconds) };
        let decoder = &self.study.model.decoder;
        let program = plan.compile(&decoder.arch).map_err(RunError::from)?;
        for ((seconds, size), engine) in seconds.iter_mut().zip(sizes).zip(ENGINES) {
            let failed = |e: candle_core::Error| StudyError::Failed(format!("{}: {e}", self.study.model.name));
            *seconds = rate(decoder, &program, engine).map_err(failed)?.map(|rate| size.flops / rate);
        }
        Ok(seconds)
    }
}
