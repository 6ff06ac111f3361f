//! Whether a plan makes sense for a model.

use super::{Change, Edit, Metric, Part, Plan, PlanError, Positions, Prompt, Readout, Run, What, columns, resolve};
use crate::model::arch::Arch;
use crate::site::{Site, SiteKind};
use std::ops::Range;

impl Plan {
    /// Checks that the plan makes sense for a model; engines rely on it.
    ///
    /// # Errors
    /// Names the prompt, fork or readout, and what is wrong: a token id, length, site, head, column or position out
    /// of range; a base or donor that does not come before its fork; a vector of the wrong length; an empty prompt.
    pub fn check(&self, arch: &Arch) -> Result<(), PlanError> {
        for (i, prompt) in self.prompts.iter().enumerate() {
            self.check_prompt(i, prompt, arch)?;
        }
        for (i, fork) in self.forks.iter().enumerate() {
            let run = Run::Fork(i);
            self.check_before(fork.base, run, "base")?;
            for edit in &fork.edits {
                self.check_edit(run, edit, arch)?;
            }
        }
        for (i, readout) in self.readouts.iter().enumerate() {
            self.check_readout(i, readout, arch)?;
        }
        Ok(())
    }

    fn check_prompt(&self, i: usize, prompt: &Prompt, arch: &Arch) -> Result<(), PlanError> {
        let bad = |why: String| PlanError::Bad { at: self.describe(Run::Prompt(i)), why };
        if prompt.ids.is_empty() {
            return Err(bad("has no tokens".to_string()));
        }
        if prompt.ids.len() > arch.n_ctx {
            let n = prompt.ids.len();
            return Err(bad(format!("is {n} tokens long; the model's context is {}; shorten it", arch.n_ctx)));
        }
        match prompt.ids.iter().position(|id| *id as usize >= arch.vocab) {
            None => Ok(()),
            Some(at) => Err(bad(format!(
                "token id {} at position {at} is out of range; the model has ids 0 to {}",
                prompt.ids[at],
                arch.vocab - 1
            ))),
        }
    }

    /// A base or donor must exist and come before the fork that names it.
    fn check_before(&self, run: Run, fork: Run, role: &str) -> Result<(), PlanError> {
        let Run::Fork(own) = fork else { return Ok(()) };
        let why = match run {
            Run::Prompt(p) if p >= self.prompts.len() => format!("its {role}, prompt {p}, does not exist"),
            Run::Fork(f) if f >= own => format!("its {role}, fork {f}, does not come before it"),
            _ => return Ok(()),
        };
        Err(PlanError::Bad { at: format!("fork {own}"), why })
    }

    fn check_edit(&self, run: Run, edit: &Edit, arch: &Arch) -> Result<(), PlanError> {
        let at = || format!("{}, edit at {}", self.describe(run), edit.site);
        let bad = |why: String| PlanError::Bad { at: at(), why };
        let keys = self.length(run);
        edit.site.check(arch).map_err(|source| PlanError::Site { at: at(), source })?;
        let columns =
            columns(edit.site, &edit.part, arch, keys).map_err(|source| PlanError::Site { at: at(), source })?;
        let wide: usize = columns.iter().map(Range::len).sum();
        let positions = resolve(&edit.positions, keys).map_err(bad)?;
        if positions.is_empty() || wide == 0 {
            return Err(bad("changes nothing: no position or no part is chosen".to_string()));
        }
        if repeated(columns.iter().map(|c| c.start).collect()).is_some() {
            return Err(bad("names a head or column twice".to_string()));
        }
        if let Some(twice) = repeated(positions) {
            return Err(bad(format!("names position {twice} twice")));
        }
        if let Some(found) = edit.change.vector_len().filter(|n| *n != wide) {
            return Err(bad(format!("its vector has {found} numbers; the part has {wide}")));
        }
        if let Change::Clamp { low, high } = edit.change
            && (low > high || low.is_nan() || high.is_nan())
        {
            return Err(bad(format!("clamps to {low}..{high}, which holds no number; give the lower one first")));
        }
        if let Change::Interchange { donor, positions: from } = &edit.change {
            self.check_before(*donor, run, "donor")?;
            self.donor_positions(edit, *donor, from.as_deref(), keys).map_err(bad)?;
            let ragged = matches!(edit.site.kind, SiteKind::Scores | SiteKind::Pattern);
            if ragged && self.length(*donor) != keys {
                let n = self.length(*donor);
                return Err(bad(format!(
                    "{} has {n} positions, not {keys}: scores and patterns do not fit",
                    self.describe(*donor)
                )));
            }
        }
        Ok(())
    }

    fn check_readout(&self, i: usize, readout: &Readout, arch: &Arch) -> Result<(), PlanError> {
        if !self.has(readout.run) {
            let (at, why) = (format!("readout {i}"), format!("{:?} does not exist", readout.run));
            return Err(PlanError::Bad { at, why });
        }
        let at = || format!("readout {i} of {}", self.describe(readout.run));
        let bad = |why: String| PlanError::Bad { at: at(), why };
        let keys = self.length(readout.run);
        let site_width = |site: Site, part: &Part| {
            let of = |source| PlanError::Site { at: at(), source };
            let columns = site.check(arch).and_then(|site| columns(site, part, arch, keys)).map_err(of)?;
            match columns.iter().map(Range::len).sum::<usize>() {
                0 => Err(bad("reads nothing: no part is chosen".to_string())),
                wide => Ok(wide),
            }
        };
        match &readout.what {
            What::Attribution(Metric::Continuation { .. }) => {
                Err(bad("an attribution needs a metric of one position: a logit difference".to_string()))
            }
            What::Metric(metric) | What::Attribution(metric) => check_metric(metric, arch, keys).map_err(bad),
            What::KlFrom(other) if !self.has(*other) => Err(bad(format!("{other:?} does not exist"))),
            What::KlFrom(_) | What::Entropy => Ok(()),
            What::LogProbs { tokens } => match tokens.iter().find(|id| **id as usize >= arch.vocab) {
                Some(id) => Err(bad(format!("token {id} is out of range; the model has ids 0 to {}", arch.vocab - 1))),
                None => Ok(()),
            },
            What::Activation { site, positions, part } => {
                site_width(*site, part)?;
                read_positions(positions, keys).map_err(bad)
            }
            What::Projection { site, .. } if site.kind == SiteKind::Scores => Err(bad(format!(
                "scores of hidden keys are minus infinity, which has no inner product; read {site} whole, or project {}",
                SiteKind::Pattern.at(site.layer)
            ))),
            What::Projection { site, positions, direction } => {
                let wide = site_width(*site, &Part::All)?;
                if wide != direction.len() {
                    return Err(bad(format!("its direction has {} numbers; {site} has {wide}", direction.len())));
                }
                read_positions(positions, keys).map_err(bad)
            }
            What::Gradient { metric, site, positions, part } => {
                site_width(*site, part)?;
                check_metric(metric, arch, keys).map_err(bad)?;
                read_positions(positions, keys).map_err(bad)?;
                let unknown = |e: &&Edit| matches!(e.change, Change::Map(_)) && e.site > *site;
                match self.edits(readout.run).into_iter().find(unknown) {
                    None => Ok(()),
                    Some(edit) => Err(bad(format!(
                        "{} is edited at {} by a function of the caller's, whose derivative is not known: read gradients at \
                         that site or after it, or edit by one of the other changes",
                        self.describe(readout.run),
                        edit.site
                    ))),
                }
            }
        }
    }
}

/// Checks a metric of a run of `keys` positions.
fn check_metric(metric: &Metric, arch: &Arch, keys: usize) -> Result<(), String> {
    let known = |ids: &[u32]| match ids.iter().find(|id| **id as usize >= arch.vocab) {
        Some(id) => Err(format!("token id {id} is out of range; the model has ids 0 to {}", arch.vocab - 1)),
        None => Ok(()),
    };
    match metric {
        Metric::LogitDifference { answer, foil } => {
            known(answer)?;
            known(foil)?;
            if answer.is_empty() || foil.is_empty() {
                return Err("a logit difference needs answer and foil tokens".to_string());
            }
            Ok(())
        }
        Metric::AboveMean { tokens } if tokens.is_empty() => Err("half of a logit difference needs tokens".to_string()),
        Metric::AboveMean { tokens } => known(tokens),
        Metric::Continuation { from } if *from == 0 || *from >= keys => {
            Err(format!("a continuation from position {from} of {keys} has nothing before it, or nothing in it"))
        }
        Metric::Continuation { .. } => Ok(()),
    }
}

/// Checks the positions of a readout, which must name one at least.
fn read_positions(positions: &Positions, length: usize) -> Result<(), String> {
    match resolve(positions, length)?.is_empty() {
        true => Err("reads nothing: no position is chosen".to_string()),
        false => Ok(()),
    }
}

/// A number that is there twice, if any is.
fn repeated(mut list: Vec<usize>) -> Option<usize> {
    list.sort_unstable();
    list.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}
