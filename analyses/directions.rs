//! Steering vectors: how they are made from prompts that differ in what is to be steered.
//!
//! Each way is a function of the activations of two sets of prompts at one site; running the prompts is left to the
//! analysis. Sources: ActAdd, Turner et al. 2023, "Steering Language Models With Activation Engineering"; CAA, Rimsky et
//! al. 2024, "Steering Llama 2 via Contrastive Activation Addition"; PCA, Zou et al. 2023, "Representation Engineering";
//! difference of means, Arditi et al. 2024, "Refusal in Language Models Is Mediated by a Single Direction".

use super::summary::mean_row;
use crate::analyses::prelude::*;
use crate::linear::{self, Direction, Examples, LinearError, principal_direction};
pub use crate::ops::vectors::norm;
use crate::stats;
use rand::Rng;
use rand_distr::StandardNormal;

/// How a steering vector is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Recipe {
    /// The difference of one pair's activations, position by position from the front, added in the prompt pass only.
    Actadd,
    /// The mean over pairs of the positive prompt minus the negative one.
    Caa,
    /// The first principal component of the pairs' differences, not centred, of norm 1.
    Pca,
    /// The mean of the positive prompts minus the mean of the negative ones.
    Mean,
    /// The normal of a logistic classifier between the two.
    Cav,
}

impl Recipe {
    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Actadd => "actadd",
            Recipe::Caa => "caa",
            Recipe::Pca => "pca",
            Recipe::Mean => "mean",
            Recipe::Cav => "cav",
        }
    }

    /// Where the method's paper takes and adds it.
    pub fn site(self) -> SiteKind {
        match self {
            Recipe::Actadd | Recipe::Mean => SiteKind::ResidPre,
            Recipe::Caa | Recipe::Pca | Recipe::Cav => SiteKind::ResidPost,
        }
    }

    /// Whether its positive and negative prompts have to be matched.
    pub fn needs_pairs(self) -> bool {
        matches!(self, Recipe::Actadd | Recipe::Caa | Recipe::Pca)
    }
}

/// A steering vector, as it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// One vector; for ActAdd one a position, from the prompt's first.
    pub vectors: Vec<Vec<f32>>,
    /// The classifier, where the vector is a logistic one's.
    pub classifier: Option<Direction>,
}

/// Why two sets of examples have no direction, at a place or by a recipe: what the user can mend in the examples is wrong input,
/// what is wrong with numbers is work that failed.
pub fn no_direction(what: &dyn std::fmt::Display, e: &LinearError) -> AnalysisError {
    use LinearError::{Empty, NoDifference, NoPrincipal, TooFewGroups};
    let why = format!("{what}: {e}");
    match e {
        Empty(_) | TooFewGroups { .. } | NoDifference(_) | NoPrincipal => AnalysisError::Bad(why),
        _ => AnalysisError::Failed(why),
    }
}

/// Makes a vector from activations of matched prompts: for ActAdd the one pair's positions; else one row a prompt.
///
/// # Errors
/// If the two do not fit each other, or do not differ.
pub fn make(recipe: Recipe, positive: &[Vec<f32>], negative: &[Vec<f32>], seed: u64) -> Result<Made, AnalysisError> {
    make_of(recipe, positive, negative, None, seed)
}

/// [`make`], where prompts may not be matched: then `groups` says which of them belong together, the positive ones' first.
///
/// # Errors
/// As [`make`].
pub fn make_of(
    recipe: Recipe,
    positive: &[Vec<f32>],
    negative: &[Vec<f32>],
    groups: Option<&[usize]>,
    seed: u64,
) -> Result<Made, AnalysisError> {
    let failed = |e: LinearError| no_direction(&recipe.name(), &e);
    if recipe.needs_pairs() && positive.len() != negative.len() {
        let what = if recipe == Recipe::Actadd { "tokens" } else { "prompts" };
        return Err(AnalysisError::Bad(format!(
            "{}: the positive side has {} {what}, the negative {}: they are subtracted one by one and must be as many",
            recipe.name(),
            positive.len(),
            negative.len()
        )));
    }
    let one = |vector: Vec<f32>| Made { vectors: vec![vector], classifier: None };
    match recipe {
        Recipe::Actadd => Ok(Made { vectors: differences(positive, negative), classifier: None }),
        Recipe::Caa => Ok(one(mean_row(differences(positive, negative).iter().map(Vec::as_slice)))),
        Recipe::Pca => Ok(one(principal_direction(&differences(positive, negative)).map_err(failed)?)),
        Recipe::Mean => Ok(one(Examples::new(positive, negative).map_err(failed)?.mean_difference())),
        Recipe::Cav => {
            let examples = match groups {
                Some(groups) => Examples::grouped(positive, negative, groups),
                None => Examples::paired(positive, negative),
            };
            let examples = examples.map_err(failed)?;
            let options = linear::Options { seed, ..linear::Options::default() };
            let direction = linear::fit(&examples, &options).map_err(failed)?;
            Ok(Made { vectors: vec![direction.vector.clone()], classifier: Some(direction) })
        }
    }
}

/// Positive minus negative, row by row.
fn differences(positive: &[Vec<f32>], negative: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let one = |(p, n): (&Vec<f32>, &Vec<f32>)| p.iter().zip(n).map(|(p, n)| p - n).collect();
    positive.iter().zip(negative).map(one).collect()
}

/// A vector of another length.
pub fn scaled(vector: &[f32], factor: f64) -> Vec<f32> {
    vector.iter().map(|x| (f64::from(*x) * factor) as f32).collect()
}

/// Vectors of the same norms as `like` in random directions, uniform over the sphere.
pub fn random_like(like: &[Vec<f32>], seed: u64, number: usize) -> Vec<Vec<f32>> {
    let mut rng = stats::rng(seed, &format!("steer.random.{number}"));
    // A normal number in every direction is uniform over directions.
    let mut one = |vector: &Vec<f32>| {
        let direction: Vec<f32> = vector.iter().map(|_| rng.sample(StandardNormal)).collect();
        let length = norm(&direction);
        if length > 0.0 { scaled(&direction, norm(vector) / length) } else { direction }
    };
    like.iter().map(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
        let positive = vec![vec![3.0, 1.0, 0.0], vec![5.0, 2.0, 1.0], vec![4.0, 0.0, -1.0]];
        let negative = vec![vec![1.0, 1.0, 0.5], vec![1.0, 1.0, 1.0], vec![1.0, 1.0, -0.5]];
        (positive, negative)
    }

    #[test]
    fn caa_is_the_mean_of_the_differences_and_actadd_all_of_them() {
        let (p, n) = rows();
        assert_eq!(make(Recipe::Caa, &p, &n, 0).unwrap().vectors, [[3.0, 0.0, -1.0 / 3.0]]);
        assert_eq!(make(Recipe::Mean, &p, &n, 0).unwrap().vectors, [[3.0, 0.0, -1.0 / 3.0]]);
        let actadd = make(Recipe::Actadd, &p, &n, 0).unwrap().vectors;
        assert_eq!(actadd, [[2.0, 0.0, -0.5], [4.0, 1.0, 0.0], [3.0, -1.0, -0.5]]);
    }

    #[test]
    fn the_principal_direction_maximises_the_sum_of_squared_projections() {
        let (p, n) = rows();
        let pca = make(Recipe::Pca, &p, &n, 0).unwrap().vectors.remove(0);
        assert!((norm(&pca) - 1.0).abs() < 1e-6);
        let differences = differences(&p, &n);
        let spread = |v: &[f32]| -> f64 {
            differences.iter().map(|d| d.iter().zip(v).map(|(a, b)| f64::from(a * b)).sum::<f64>().powi(2)).sum()
        };
        let best = spread(&pca);
        for k in 0..500 {
            let other = random_like(&[vec![1.0, 0.0, 0.0]], 1, k).remove(0);
            assert!(spread(&other) <= best + 1e-6);
        }
        assert!(pca[0] > 0.9, "most differences point along it");
    }

    #[test]
    fn random_vectors_have_the_norm_of_the_vector_and_no_direction() {
        let like = vec![vec![3.0, 4.0]];
        let all: Vec<Vec<f32>> = (0..400).map(|k| random_like(&like, 7, k).remove(0)).collect();
        assert!(all.iter().all(|v| (norm(v) - 5.0).abs() < 1e-5));
        let mean = mean_row(all.iter().map(Vec::as_slice));
        // The mean of 400 such vectors has a standard deviation of 5 / sqrt(2 * 400) in each number.
        assert!(mean.iter().all(|m| m.abs() < 4.0 * 0.177), "{mean:?}");
        assert_eq!(random_like(&like, 7, 3), random_like(&like, 7, 3));
    }

    #[test]
    fn a_classifiers_strength_is_chosen_on_folds_that_part_no_group() {
        let (p, n) = rows();
        let made = |groups: Option<&[usize]>| make_of(Recipe::Cav, &p, &n, groups, 0);
        let fitted = |examples: Result<Examples, LinearError>| {
            linear::fit(&examples.unwrap(), &linear::Options { seed: 0, ..linear::Options::default() }).ok()
        };
        let groups = [0, 0, 1, 2, 3, 3];
        assert_eq!(made(Some(&groups)).unwrap().classifier, fitted(Examples::grouped(&p, &n, &groups)));
        assert_eq!(made(None).unwrap().classifier, fitted(Examples::paired(&p, &n)));
        // Examples of one group on each side cannot be parted at all.
        assert!(made(Some(&[0, 0, 0, 1, 1, 1])).unwrap_err().of_input());
    }

    #[test]
    fn examples_that_can_be_mended_are_wrong_input_and_numbers_that_cannot_are_failed_work() {
        use crate::linear::Method;
        let of_input = |e: LinearError| no_direction(&"resid_post.3", &e).of_input();
        assert!(of_input(LinearError::NoDifference(Method::Logistic)) && of_input(LinearError::NoPrincipal));
        assert!(!of_input(LinearError::Overflow) && !of_input(LinearError::PrincipalNotConverged(100)));
        assert!(!of_input(LinearError::NotConverged { method: Method::Svm, strength: 1.0 }));
    }

    #[test]
    fn pairs_that_are_not_as_many_are_an_error() {
        let (p, n) = rows();
        let why = make(Recipe::Actadd, &p, &n[..2], 0).unwrap_err().to_string();
        assert!(why.contains("3 tokens, the negative 2"), "{why}");
    }
}
