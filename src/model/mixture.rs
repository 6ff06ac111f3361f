//! Mixtures of models: `base + coefficient x (plus - minus)` for each of some terms, tensor by tensor.
//!
//! That is task arithmetic (Ilharco et al. 2023, "Editing Models with Task Arithmetic"): what a child learned beyond its parent is
//! added to a model, taken off it, or given to another one. A [`Recipe`] describes a mixture, in a TOML file or in memory:
//!
//! ```toml
//! base = "models/base"
//!
//! [[term]]
//! coefficient = 0.5
//! plus = "models/child"
//! minus = "models/parent"     # the base, if it is left out
//! tensors = ["*.mlp.*"]       # all, if they are left out
//! ```
//!
//! The file is a model wherever one is asked for: weights are mixed as they are read ([`super::checkpoint`]), and all else is the
//! base's.
//!
//! ```
//! use gatelens::model::mixture::{Recipe, Term};
//! let terms = vec!["0.5*(models/child - models/parent)".parse::<Term>()?];
//! let recipe = Recipe { terms, ..Recipe::of("models/base") };
//! assert_eq!(recipe.to_string(), "models/base + 0.5 x (models/child - models/parent)");
//! assert_eq!(recipe.scaled(-2.0).to_string(), "models/base - 1 x (models/child - models/parent)");
//! # Ok::<(), gatelens::model::mixture::MixtureError>(())
//! ```

use super::ModelError;
use super::adapter::Adapter;
use super::checkpoint::{Checkpoint, CheckpointError, Difference};
use super::files::{LARGEST_CONFIG, read_bounded};
use super::source::{self, Source, SourceError};
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A mixture, described. Models are named as everywhere: a folder, `hf:OWNER/NAME`, the folder of an adapter.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The model that differences are added to, and whose tokenizer and configuration the mixture has.
    pub base: String,
    /// What all coefficients are multiplied by.
    #[serde(default = "one")]
    pub scale: f64,
    /// What is added, in this order.
    #[serde(default, rename = "term")]
    pub terms: Vec<Term>,
}

/// A difference between two models, times a coefficient.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    pub coefficient: f64,
    pub plus: String,
    /// The base, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minus: Option<String>,
    /// Patterns of the names of the base's tensors that it is added to, with `*` for any characters and `?` for one; all where
    /// there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tensors: Vec<String>,
}

fn one() -> f64 {
    1.0
}

/// What is wrong with the description of a mixture.
#[derive(Debug, thiserror::Error)]
pub enum MixtureError {
    #[error("{path}: {why}", path = path.display())]
    File { path: PathBuf, why: String },
    #[error(
        "`{text}` is no term of a mixture: {why}; write 0.5*(CHILD - PARENT), or -1*CHILD to take what CHILD has beyond the \
         base off it"
    )]
    Term { text: String, why: String },
    #[error(
        "term {number} of the mixture, {term}: {coefficient} times {scale} is no number of f32; give a smaller one"
    )]
    Coefficient { number: usize, term: String, coefficient: f64, scale: f64 },
}

impl Recipe {
    /// A base to which nothing is added yet.
    pub fn of(base: impl Into<String>) -> Self {
        Recipe { base: base.into(), scale: 1.0, terms: Vec::new() }
    }

    /// Reads a recipe. Paths in it that are there from the folder of the file lead there, all others start from the current one.
    ///
    /// # Errors
    /// If it cannot be read, is no recipe, has no term, or has a coefficient that is no number.
    pub fn read(path: &Path) -> Result<Self, MixtureError> {
        let bad = |why: String| MixtureError::File { path: path.to_path_buf(), why };
        let text = read_bounded(path, LARGEST_CONFIG).map_err(|e| bad(e.to_string()))?;
        let text = text.ok_or_else(|| bad("there is no such file".to_string()))?;
        let text = String::from_utf8(text).map_err(|e| bad(format!("not UTF-8: {e}")))?;
        let recipe = parse(&text).map_err(bad)?;
        if recipe.terms.is_empty() {
            return Err(bad("has no [[term]], so that nothing is added to the base".to_string()));
        }
        recipe.coefficients()?;
        Ok(recipe.found_from(crate::files::parent(path)))
    }

    /// The recipe with all coefficients multiplied by a number.
    pub fn scaled(&self, by: f64) -> Self {
        Recipe { scale: self.scale * by, ..self.clone() }
    }

    /// What each difference is multiplied by.
    ///
    /// # Errors
    /// If f32 cannot hold one.
    pub fn coefficients(&self) -> Result<Vec<f32>, MixtureError> {
        let one = |(i, term): (usize, &Term)| {
            let c = (self.scale * term.coefficient) as f32;
            c.is_finite().then_some(c).ok_or_else(|| MixtureError::Coefficient {
                number: i + 1,
                term: term.difference(&self.base),
                coefficient: term.coefficient,
                scale: self.scale,
            })
        };
        self.terms.iter().enumerate().map(one).collect()
    }

    /// The same, with paths that are there from a folder written from there.
    fn found_from(mut self, folder: &Path) -> Self {
        let models = self.terms.iter_mut().flat_map(|term| std::iter::once(&mut term.plus).chain(&mut term.minus));
        for name in models.chain([&mut self.base]) {
            let there = folder.join(&*name);
            if let (true, Some(path)) = (there.exists(), there.to_str()) {
                *name = path.to_string();
            }
        }
        self
    }

    /// Finds the recipe's models; returns with them what a user should know about how they were found.
    ///
    /// # Errors
    /// If one is not there or is no folder of safetensors, or a coefficient is no number.
    pub(super) fn find(&self, progress: bool) -> Result<(Found, Vec<String>), ModelError> {
        let mut warnings = Vec::new();
        let mut folder = |name: &str| -> Result<Folder, ModelError> {
            let (found, told) = source::resolve(name, progress)?;
            warnings.extend(told.into_iter().map(|warning| format!("`{name}` {warning}")));
            Folder::of(name, found)
        };
        let base = folder(&self.base)?;
        let mut terms = Vec::with_capacity(self.terms.len());
        for (term, coefficient) in self.terms.iter().zip(self.coefficients()?) {
            let plus = folder(&term.plus)?;
            let minus = term.minus.as_deref().map(&mut folder).transpose()?;
            terms.push(FoundTerm { coefficient, plus, minus, tensors: term.tensors.clone() });
        }
        Ok((Found { base, terms }, warnings))
    }
}

#[cfg(feature = "report")]
fn parse(text: &str) -> Result<Recipe, String> {
    toml::from_str(text).map_err(|e| format!("no recipe of a mixture: {e}"))
}

/// Says that this build cannot.
#[cfg(not(feature = "report"))]
fn parse(_: &str) -> Result<Recipe, String> {
    Err("this build reads no recipes; build it with the feature `report`, or make the recipe in memory".to_string())
}

/// The models of a recipe, on this machine.
pub(super) struct Found {
    pub base: Folder,
    pub terms: Vec<FoundTerm>,
}

/// A difference whose models were found.
pub(super) struct FoundTerm {
    coefficient: f32,
    pub plus: Folder,
    pub minus: Option<Folder>,
    tensors: Vec<String>,
}

/// A folder of safetensors, with the adapter that changes it if one does.
pub(super) struct Folder {
    pub dir: PathBuf,
    pub adapter: Option<Adapter>,
}

impl Found {
    /// What is to be added to the base.
    ///
    /// # Errors
    /// If weights are not sound.
    pub(super) fn differences(&self) -> Result<Vec<Difference>, CheckpointError> {
        self.terms.iter().map(FoundTerm::open).collect()
    }

    /// The weights of the mixture.
    ///
    /// # Errors
    /// If weights are not sound, or do not fit each other.
    pub(super) fn open(&self) -> Result<Checkpoint, CheckpointError> {
        self.base.open()?.mixed(self.differences()?)
    }

    /// The folders of whole models, the base's first.
    pub(super) fn models(&self) -> impl Iterator<Item = &Path> {
        let of_terms = self.terms.iter().flat_map(|term| std::iter::once(&term.plus).chain(&term.minus));
        std::iter::once(&self.base).chain(of_terms).map(|folder| folder.dir.as_path())
    }

    /// All folders, with the adapters' own: what must not be written to.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let of_terms = self.terms.iter().flat_map(|term| std::iter::once(&term.plus).chain(&term.minus));
        let all = std::iter::once(&self.base).chain(of_terms);
        all.flat_map(|folder| {
            let adapter = folder.adapter.as_ref().map(|adapter| adapter.folder.clone());
            std::iter::once(folder.dir.clone()).chain(adapter)
        })
        .collect()
    }
}

impl FoundTerm {
    fn open(&self) -> Result<Difference, CheckpointError> {
        let minus = self.minus.as_ref().map(Folder::open).transpose()?;
        let (coefficient, tensors) = (self.coefficient, self.tensors.clone());
        Ok(Difference { coefficient, plus: self.plus.open()?, minus, tensors })
    }
}

impl Folder {
    /// A model that was found under a name.
    ///
    /// # Errors
    /// If it is no folder of safetensors.
    fn of(name: &str, found: Source) -> Result<Self, ModelError> {
        let refused = |why: &str| {
            let (name, why) = (name.to_string(), format!("a mixture is of folders of safetensors: {why}"));
            Err(SourceError::Unusable { name, why }.into())
        };
        match found {
            Source::Folder(dir) => Ok(Folder { dir, adapter: None }),
            Source::Adapter { adapter, base } => Ok(Folder { dir: base, adapter: Some(Adapter::read(&adapter)?) }),
            Source::Gguf(_) => refused("take the checkpoint from which the GGUF file was made"),
            Source::Mixed { .. } => refused("write the terms of this recipe into the other, or merge it first"),
            Source::Described(_) => refused("a description alone has no weights to mix"),
        }
    }

    /// Its weights.
    ///
    /// # Errors
    /// If they are not sound.
    pub(super) fn open(&self) -> Result<Checkpoint, CheckpointError> {
        let checkpoint = Checkpoint::open_folder(&self.dir)?;
        match &self.adapter {
            Some(adapter) => checkpoint.merged(adapter),
            None => Ok(checkpoint),
        }
    }

    /// The folder whose tokenizer counts: the adapter's, if it has one.
    pub(super) fn of_tokenizer(&self) -> &Path {
        let own = self.adapter.as_ref().map(|adapter| adapter.folder.as_path());
        own.filter(|folder| folder.join("tokenizer.json").exists()).unwrap_or(&self.dir)
    }
}

impl Term {
    /// The two models, as a difference.
    fn difference(&self, base: &str) -> String {
        let of = if self.tensors.is_empty() { String::new() } else { format!(" in {}", self.tensors.join(", ")) };
        format!("({} - {}){of}", self.plus, self.minus.as_deref().unwrap_or(base))
    }
}

/// `base + 0.5 x (a - b)`
impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base)?;
        self.terms.iter().try_for_each(|term| {
            // As it counts: in f32.
            let c = (self.scale * term.coefficient) as f32;
            let sign = if c.is_sign_negative() { '-' } else { '+' };
            write!(f, " {sign} {} x {}", c.abs(), term.difference(&self.base))
        })
    }
}

/// `0.5*(CHILD - PARENT)`, `-1*CHILD`, `CHILD`: of one model the difference is that from the base.
impl FromStr for Term {
    type Err = MixtureError;

    fn from_str(text: &str) -> Result<Self, MixtureError> {
        let bad = |why: String| MixtureError::Term { text: text.to_string(), why };
        let (coefficient, models) = match text.split_once('*') {
            None => (1.0, text.trim()),
            Some((number, models)) => {
                let found = number.trim().parse::<f64>().ok().filter(|c| c.is_finite());
                let why = || bad(format!("`{}` is no number", number.trim()));
                (found.ok_or_else(why)?, models.trim())
            }
        };
        let (plus, minus) = match models.strip_prefix('(').map(|inner| inner.strip_suffix(')')) {
            Some(None) => return Err(bad("the parenthesis is not closed".to_string())),
            Some(Some(inner)) => {
                let sides: Vec<&str> = inner.split(" - ").map(str::trim).collect();
                let [plus, minus] = sides[..] else {
                    let why = "a difference is of two models, with spaces around its minus, because names hold hyphens";
                    return Err(bad(why.to_string()));
                };
                (plus, Some(minus))
            }
            None if models.contains(" - ") => {
                return Err(bad("a difference stands in parentheses".to_string()));
            }
            None => (models, None),
        };
        if plus.is_empty() || minus.is_some_and(str::is_empty) {
            return Err(bad("it names no model".to_string()));
        }
        let (plus, minus) = (plus.to_string(), minus.map(str::to_string));
        Ok(Term { coefficient, plus, minus, tensors: Vec::new() })
    }
}

/// Whether a name is as a pattern says: `*` stands for any characters, dots too, `?` for one.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // The last `*`, and how much of the name it stands for.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), star) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
            }
            (Some(c), _) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            (_, Some((at, to))) => {
                star = Some((at, to + 1));
                (p, n) = (at + 1, to + 1);
            }
            (_, None) => return false,
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(text: &str) -> (f64, String, Option<String>) {
        let Term { coefficient, plus, minus, .. } = text.parse().unwrap();
        (coefficient, plus, minus)
    }

    #[test]
    fn terms_are_read_as_people_write_them() {
        let some = |text: &str| Some(text.to_string());
        assert_eq!(term("0.5*(a/child-7b - a/parent-7b)"), (0.5, "a/child-7b".into(), some("a/parent-7b")));
        assert_eq!(term("-1*hf:owner/a-b"), (-1.0, "hf:owner/a-b".into(), None));
        assert_eq!(term(" -2e-1 * ( a - b ) "), (-0.2, "a".into(), some("b")));
        assert_eq!(term("(a - b)"), (1.0, "a".into(), some("b")));
        assert_eq!(term("models/child"), (1.0, "models/child".into(), None));
    }

    #[test]
    fn what_is_no_term_says_what_was_meant() {
        for (text, said) in [
            ("0,5*(a - b)", "`0,5` is no number"),
            ("inf*a", "`inf` is no number"),
            ("0.5*(a-b)", "spaces around its minus"),
            ("(a - b - c)", "of two models"),
            ("(a - b", "is not closed"),
            ("a - b", "stands in parentheses"),
            ("0.5*", "names no model"),
            ("( - b)", "names no model"),
            ("", "names no model"),
        ] {
            let error = text.parse::<Term>().unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("0.5*(CHILD - PARENT)"), "{text}: {error}");
        }
    }

    #[test]
    fn a_recipe_is_told_with_the_coefficients_that_count() {
        let terms = vec![term_of("0.5*(a - b)", &["*.mlp.*", "lm_head.*"]), term_of("-3*c", &[])];
        let recipe = Recipe { scale: 2.0, terms, ..Recipe::of("base") };
        assert_eq!(recipe.to_string(), "base + 1 x (a - b) in *.mlp.*, lm_head.* - 6 x (c - base)");
        assert_eq!(recipe.scaled(0.5).coefficients().unwrap(), [0.5, -3.0]);
        let error = recipe.scaled(1e300).coefficients().unwrap_err().to_string();
        assert!(error.contains("term 1") && error.contains("(a - b)"), "{error}");
    }

    fn term_of(text: &str, tensors: &[&str]) -> Term {
        Term { tensors: tensors.iter().map(|t| (*t).to_string()).collect(), ..text.parse().unwrap() }
    }

    #[cfg(feature = "report")]
    #[test]
    fn a_recipes_paths_start_from_its_folder_if_they_are_there() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("child")).unwrap();
        let path = dir.path().join("mix.toml");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Recipe::read(&path).map_err(|e| e.to_string())
        };
        let recipe = read("base = \"elsewhere\"\n[[term]]\ncoefficient = 1\nplus = \"child\"\n").unwrap();
        assert_eq!(recipe.base, "elsewhere");
        assert_eq!(recipe.terms[0].plus, dir.path().join("child").to_str().unwrap());
        assert_eq!((recipe.scale, &recipe.terms[0].minus, recipe.terms[0].coefficient), (1.0, &None, 1.0));
        for (text, said) in [
            ("base = \"a\"\n", "has no [[term]]"),
            ("base = \"a\"\n[[term]]\nplus = \"b\"\n", "coefficient"),
            ("base = \"a\"\n[[term]]\ncoefficient = 1\nplus = \"b\"\nless = \"c\"\n", "less"),
            ("base = \"a\"\nscale = nan\n[[term]]\ncoefficient = 1\nplus = \"b\"\n", "no number of f32"),
            ("[[term]]\ncoefficient = 1\nplus = \"b\"\n", "base"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn patterns_are_of_whole_names_and_stars_reach_over_dots() {
        for (pattern, name, is) in [
            ("*.mlp.*", "model.layers.3.mlp.up_proj.weight", true),
            ("*.mlp.*", "model.layers.3.self_attn.q_proj.weight", false),
            ("model.layers.?.mlp.up_proj.weight", "model.layers.3.mlp.up_proj.weight", true),
            ("model.layers.?.mlp.up_proj.weight", "model.layers.13.mlp.up_proj.weight", false),
            ("lm_head", "lm_head.weight", false),
            ("*", "anything", true),
            ("*a*b*", "xxaxxbxxabx", true),
            ("*ab", "aab", true),
            ("**", "", true),
            ("", "a", false),
            ("a*", "ba", false),
        ] {
            assert_eq!(matches(pattern, name), is, "{pattern} of {name}");
        }
    }
}
