//! What a study would cost, before it is run.

use super::counter::{Counted, Counter};
use super::runner::prepared;
use super::{Study, StudyError};
use crate::analyses::{Analysis, Prepared};
use crate::measured::ShownPrompt;
use crate::plan::Extent;
use crate::run::{Engine, RunError, Size, rate};
use candle_core::DType;

/// Both engines, in the order of [`Cost::sizes`].
pub const ENGINES: [Engine; 2] = [Engine::Wavefront, Engine::Full];

/// How many times as long an operation of a token takes as one of a row: measured between 2.2 and 3.5 with a dozen texts or more at
/// once. Every step reads all weights for a row a text.
pub(crate) const TOKENS_SLOWER: f64 = 3.0;

/// The share of its longest that a text takes, before any has ended: between those of half the length, and those that never end.
pub(crate) const TEXTS_NEED: f64 = 0.75;

/// What an analysis would cost.
pub struct Cost {
    /// Prompts, edited runs and readouts of all plans.
    pub extent: Extent,
    /// By the wavefront, and by the full engine.
    pub sizes: Vec<Size>,
    /// How long each would compute, in seconds, by a rate that was measured on some of the plan's rows; none where nothing is
    /// run, or the model has no weights. Texts are taken to be three quarters as long as they may be, and each of their tokens
    /// to take three times as long as a row.
    pub seconds: Vec<Option<f64>>,
    /// The share of the operations by the first engine that generate texts.
    pub of_texts: f64,
    /// About how many pieces it is computed in: no more processes than that can share it.
    pub pieces: usize,
    /// Parts of it that are said by themselves, with what they are.
    pub parts: Vec<(String, Vec<Size>)>,
    /// The engine that is asked for.
    pub engine: Engine,
    /// The dtype that the study's model computes in, and what all of its weights take in it, in bytes.
    pub weights: (DType, u64),
    /// The first prompt, as the model reads it; none where prompts are only counted.
    pub first_prompt: Option<ShownPrompt>,
}

impl Cost {
    pub(super) fn of<A: Analysis>(analysis: &A, study: &Study) -> Result<Cost, StudyError> {
        let Prepared { items, scored, .. } = prepared(analysis, study)?;
        let first_prompt = scored.first_prompt().cloned();
        let counter = Counter::new(&study.model, ENGINES.to_vec(), study.seed).cancelled_by(study.cancel.clone());
        analysis.measure(&counter, &items)?;
        let Counted { extent, sizes, parts, dearest, of_tokens, pieces } = counter.counted();
        let mut seconds = vec![None; ENGINES.len()];
        // Texts go one way, whatever the engine.
        let slower = of_tokens * (TEXTS_NEED * TOKENS_SLOWER - 1.0);
        let of_texts = sizes.first().map_or(0.0, |size| of_tokens / size.flops.max(1.0));
        let own = &study.model.decoder;
        if let Some((_, plan)) = dearest.filter(|_| own.has_weights()) {
            let decoder = own.of(plan.kv);
            let program = plan.compile(&decoder.arch).map_err(RunError::from)?;
            for ((seconds, size), engine) in seconds.iter_mut().zip(&sizes).zip(ENGINES) {
                let failed = |e: candle_core::Error| StudyError::Failed(format!("{}: {e}", study.model.name));
                *seconds = rate(decoder, &program, engine).map_err(failed)?.map(|rate| (size.flops + slower) / rate);
            }
        }
        let weights = (own.dtype, own.weight_bytes(own.dtype));
        Ok(Cost { extent, sizes, seconds, of_texts, pieces, parts, engine: study.engine, weights, first_prompt })
    }
}
