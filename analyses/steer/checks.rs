//! What does not go together in the parameters of steering, said before anything is computed.

use super::Steer;
use crate::analyses::directions::Recipe;
use crate::analyses::prelude::*;
use crate::analyses::steer::When;
use crate::analyses::vectors::{Given, control};

impl Steer {
    /// Refuses `gcav` where there is no classifier, or one of another place: a probability is that of the place where the
    /// classifier was fitted.
    pub(super) fn check_gcav(&self, site: Site, given: Option<&Given>) -> Result<(), AnalysisError> {
        let bad = |why: String| Err(AnalysisError::Bad(format!("{} {why}", param("gcav"))));
        let fitted = match given {
            None if self.from == Some(Recipe::Cav) => self.vector_position,
            Some(given) if given.named.classifier().is_some() => {
                let name = &given.named.name;
                if !name.ends_with(&format!(".{site}")) {
                    return bad(format!(
                        "at {site}: the classifier `{name}` is of another place; match {} and {}",
                        param("layer"),
                        param("site")
                    ));
                }
                let Some(position) = given.position else {
                    return bad(format!(
                        "with `{name}`: its file does not say at which position it was fitted; make it with `cav`"
                    ));
                };
                position
            }
            _ => {
                let cav = param("from").is("cav");
                return bad(format!("needs a logistic classifier: {cav}, or a logistic vector of cavs.safetensors"));
            }
        };
        if !self.position.is(fitted) {
            let position = param("position").is(self.position);
            return bad(format!("at {position}: the classifier was fitted at position {fitted}"));
        }
        Ok(())
    }

    /// Refuses `export` where it could not be written after the work is done.
    pub(super) fn check_export(&self, site: Site) -> Result<(), AnalysisError> {
        let Some(path) = &self.export else { return Ok(()) };
        if self.from == Some(Recipe::Actadd) {
            let why = "actadd has a vector for each position; a control vector has one for all";
            return Err(AnalysisError::Bad(format!("{}: {why}", param("export"))));
        }
        control::layer_at(site)?;
        control::check_free(path)
    }

    /// Refuses what does not go together.
    pub(super) fn fits(&self, site: Site) -> Result<(), AnalysisError> {
        use SiteKind::{AttnDelta, Embed, MlpDelta, PleOut, ResidMid, ResidPost, ResidPre};
        let in_stream = matches!(site.kind, Embed | ResidPre | ResidMid | ResidPost | AttnDelta | MlpDelta | PleOut);
        let bad = |why: String| Err(AnalysisError::Bad(why));
        let (ablate, select, around) = (param("ablate"), param("select"), param("vector_position"));
        match () {
            () if self.ablate && !in_stream => {
                bad(format!("{ablate} takes a direction out of the residual stream; {} is not in it", param("site")))
            }
            () if self.ablate && self.from == Some(Recipe::Actadd) => {
                bad(format!("{ablate} takes out one direction; actadd has one a position"))
            }
            () if self.select.is_some() && self.from != Some(Recipe::Mean) => {
                let (mean, layer) = (param("from").is("mean"), param("layer"));
                bad(format!("{select}: a layer is chosen for the difference of means; give {mean}, or {layer}"))
            }
            () if self.select.is_some() && site.kind != Recipe::Mean.site() => {
                bad(format!("{select}: the direction is made and added at resid_pre; leave {} out", param("site")))
            }
            () if self.vector_position == Position::All => {
                let all = param("vector_position").is("all");
                bad(format!("{all}: a vector is made at one position; give last or a number"))
            }
            () if self.from == Some(Recipe::Actadd) && self.vector_position != Position::Last => {
                bad(format!("{around}: actadd takes all positions; leave it out"))
            }
            () if self.steps == Some(When::Every) && self.prompt_only() => {
                let (every, last) = (param("steps").is("every"), param("position").is("last"));
                bad(format!("{every}: actadd and a numbered position are of the prompt alone; use {last} or all"))
            }
            () => Ok(()),
        }
    }
}
