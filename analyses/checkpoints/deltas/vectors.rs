//! A child's vector, and those of single prompts.

use crate::analyses::summary::mean_row;
use crate::ops::vectors::{cosine, norm};

/// What a child adds to the parent's activations.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// At each prompt. `[prompts][d_model]`
    pub prompts: Vec<Vec<f32>>,
    /// Their mean: the child's vector. \[d_model\]
    pub mean: Vec<f32>,
}

impl Delta {
    /// The child's rows less the parent's.
    pub fn of(child: &[Vec<f32>], parent: &[Vec<f32>]) -> Delta {
        let prompts: Vec<Vec<f32>> = child.iter().zip(parent).map(|(child, parent)| less(child, parent)).collect();
        let mean = mean_row(prompts.iter().map(Vec::as_slice));
        Delta { prompts, mean }
    }

    /// Whether nothing is added.
    pub fn is_zero(&self) -> bool {
        norm(&self.mean) == 0.0
    }

    /// 1 less the cosine of both vectors; none where one is 0.
    pub fn distance(&self, other: &Delta) -> Option<f64> {
        cosine(&self.mean, &other.mean).map(|cosine| 1.0 - cosine)
    }

    /// The Euclidean distance of both vectors.
    pub fn euclidean(&self, other: &Delta) -> f64 {
        norm(&less(&self.mean, &other.mean))
    }

    /// [`Delta::distance`] at each prompt; those at which one of both is 0 are left out.
    pub fn distances(&self, other: &Delta) -> Vec<f64> {
        let both = self.prompts.iter().zip(&other.prompts);
        both.filter_map(|(a, b)| cosine(a, b)).map(|cosine| 1.0 - cosine).collect()
    }

    /// The cosine of what is added at each prompt with the mean of what is at the others: 0 on average where prompts have nothing in
    /// common. Prompts at which nothing is added are left out.
    pub fn agreements(&self) -> Vec<f64> {
        let others = |i: usize| {
            let rows = self.prompts.iter().enumerate().filter(move |(j, _)| *j != i);
            mean_row(rows.map(|(_, row)| row.as_slice()))
        };
        let of = |(i, row): (usize, &Vec<f32>)| cosine(row, &others(i));
        self.prompts.iter().enumerate().filter_map(of).collect()
    }
}

/// One vector less another.
pub fn less(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// The sum of two vectors.
pub fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(rows: &[[f32; 2]]) -> Delta {
        let rows: Vec<Vec<f32>> = rows.iter().map(|row| vec![row[0] + 1.0, row[1] + 2.0]).collect();
        Delta::of(&rows, &vec![vec![1.0, 2.0]; rows.len()])
    }

    #[test]
    fn a_vector_is_the_mean_of_what_is_added_and_distances_are_by_angle_and_by_length() {
        let (a, b) = (delta(&[[1.0, 0.0], [3.0, 0.0]]), delta(&[[0.0, 1.0], [0.0, 3.0]]));
        assert_eq!((&a.mean, &b.mean), (&vec![2.0, 0.0], &vec![0.0, 2.0]));
        assert_eq!((a.distance(&b), a.distance(&a)), (Some(1.0), Some(0.0)));
        assert!((a.euclidean(&b) - 8f64.sqrt()).abs() < 1e-12);
        assert_eq!(a.distances(&b), [1.0, 1.0]);
    }

    #[test]
    fn prompts_agree_as_far_as_each_points_where_the_others_do() {
        assert_eq!(delta(&[[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]).agreements(), [1.0; 3]);
        let apart = delta(&[[1.0, 0.0], [0.0, 1.0]]).agreements();
        assert_eq!(apart, [0.0, 0.0]);
        assert!(delta(&[[1.0, 0.0]]).agreements().is_empty(), "there are no others");
    }

    #[test]
    fn where_nothing_is_added_there_is_no_angle() {
        let (zero, a) = (delta(&[[0.0, 0.0], [0.0, 0.0]]), delta(&[[1.0, 0.0], [0.0, 0.0]]));
        assert!(zero.is_zero() && !a.is_zero());
        assert_eq!((zero.distance(&a), zero.euclidean(&a)), (None, 0.5));
        assert!(zero.distances(&a).is_empty() && zero.agreements().is_empty());
    }
}
