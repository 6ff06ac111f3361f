//! What a study would cost, before it is run.

use super::counter::{Counted, Counter};
use super::runner::prepared;
use super::{Study, StudyError};
use crate::analyses::{Analysis, Prepared};
use crate::measured::ShownPrompt;
use crate::plan::Extent;
use crate::run::{Engine, RunError, Size, rate};

/// Both engines, in the order of [`Cost::sizes`].
pub const ENGINES: [Engine; 2] = [Engine::Wavefront, Engine::Full];

/// What an analysis would cost.
pub struct Cost {
    /// Prompts, edited runs and readouts of all plans.
    pub extent: Extent,
    /// By the wavefront, and by the full engine.
    pub sizes: Vec<Size>,
    /// How long each would compute, in seconds, by a rate that was measured on some of the plan's rows; none where nothing is run.
    pub seconds: Vec<Option<f64>>,
    /// Parts of it that are said by themselves, with what they are.
    pub parts: Vec<(String, Vec<Size>)>,
    /// The engine that is asked for.
    pub engine: Engine,
    /// The first prompt, as the model reads it.
    pub first_prompt: Option<ShownPrompt>,
}

impl Cost {
    pub(super) fn of<A: Analysis>(analysis: &A, study: &Study) -> Result<Cost, StudyError> {
        let Prepared { items, scored, .. } = prepared(analysis, study)?;
        let first_prompt = scored.first_prompt().cloned();
        let counter = Counter::new(&study.model, ENGINES.to_vec(), study.seed).cancelled_by(study.cancel.clone());
        analysis.measure(&counter, &items)?;
        let Counted { extent, sizes, parts, dearest, .. } = counter.counted();
        let mut seconds = vec![None; ENGINES.len()];
        if let Some((_, plan)) = dearest {
            let decoder = study.model.decoder.of(plan.kv);
            let program = plan.compile(&decoder.arch).map_err(RunError::from)?;
            for ((seconds, size), engine) in seconds.iter_mut().zip(&sizes).zip(ENGINES) {
                let failed = |e: candle_core::Error| StudyError::Failed(format!("{}: {e}", study.model.name));
                *seconds = rate(decoder, &program, engine).map_err(failed)?.map(|rate| size.flops / rate);
            }
        }
        Ok(Cost { extent, sizes, seconds, parts, engine: study.engine, first_prompt })
    }
}
