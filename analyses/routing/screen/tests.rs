use super::testing::{self, Effect};
use super::*;

/// Two layers of two heads, over prompts that stand 10 nats apart. L0.H0 was estimated only; the others have these effects
/// towards the other prompt, with q under 0.05 where an effect is not 0.
fn heads(necessity: [f64; 3], sufficiency: [f64; 3]) -> Table {
    let run = |effect: f64| Effect::Run(effect, if effect == 0.0 { 0.9 } else { 0.01 });
    let others = necessity.into_iter().zip(sufficiency).map(|(n, s)| [run(n), run(s)]);
    testing::heads(10.0, &std::iter::once([Effect::Estimated(0.1); 2]).chain(others).collect::<Vec<_>>())
}

fn screen(candidates: u32, sample: u32) -> Screen {
    Screen { candidates, sample, ..Screen::default() }
}

#[test]
fn heads_that_either_direction_names_are_run_in_both_and_the_sample_is_of_the_rest() {
    let of = |strong: usize| (0..10).map(|u| vec![if u == strong { 3.0 } else { 0.1 }]).collect::<Vec<_>>();
    let exact = screen(1, 4).exact(&[of(7), of(2)], 0);
    assert_eq!((exact.candidates.clone(), exact.rest, exact.sampled.len()), (vec![2, 7], 8, 4));
    let all = exact.all();
    assert!(all.len() == 6 && all.is_sorted() && exact.sampled.iter().all(|u| ![2, 7].contains(u)), "{all:?}");
    assert_eq!(screen(1, 4).exact(&[of(7), of(2)], 0).sampled, exact.sampled);
}

#[test]
fn more_heads_than_there_are_means_all() {
    let none = vec![vec![vec![0.0]; 5]; 2];
    let exact = screen(u32::MAX, u32::MAX).exact(&none, 0);
    assert_eq!((exact.all(), exact.rest), (vec![0, 1, 2, 3, 4], 0));
}

#[test]
fn what_a_circuit_says_of_the_run_is_of_rows_that_were_run() {
    let heads = heads([1.0, 2.0, 0.0], [1.0, 2.0, 1.0]);
    let heads = read::<Exchange>(&heads).unwrap();
    let circuit = circuit(&heads);
    let table = circuit_table(&heads, &circuit, 1).unwrap();
    assert_eq!((table.ints("layer").unwrap(), table.ints("head").unwrap()), (&[1, 0][..], &[0, 1][..]));
    // The first row of all was estimated only, over 8 pairs.
    assert_eq!(table.ints("n").unwrap(), [20, 20]);
    assert_eq!(table.floats("necessity").unwrap(), [Some(0.2), Some(0.1)]);
    assert_eq!(table.flags("gate").unwrap(), [true, false]);
}

#[test]
fn an_exchange_that_moves_the_metric_away_from_the_other_prompt_carries_nothing() {
    let heads = heads([-1.0, 1.0, 0.0], [1.0, -1.0, 1.0]);
    assert!(circuit(&read::<Exchange>(&heads).unwrap()).is_empty());
}

#[test]
fn a_sample_that_carries_is_not_missed_and_bounds_what_is() {
    // Heads 1 and 2 carry in both directions, 3 in one. 1 was named; 2 and 3 are a sample of the three others.
    let heads = heads([1.0, 2.0, 0.0], [1.0, 2.0, 1.0]);
    let heads = read::<Exchange>(&heads).unwrap();
    let exact = Exact { candidates: vec![1], sampled: vec![2, 3], rest: 3 };
    let table = missed_table(&heads, &exact).unwrap();
    assert_eq!(table.strs("direction").unwrap(), ["necessity", "sufficiency", "both"]);
    assert_eq!((table.ints("found").unwrap(), table.ints("significant").unwrap()), (&[1, 1, 1][..], &[1, 2, 1][..]));
    let float = |name: &str| table.floats(name).unwrap().iter().map(|x| x.unwrap()).collect::<Vec<_>>();
    assert_eq!((float("missed"), float("recall")), (vec![1.5, 3.0, 1.5], vec![2.0 / 2.5, 3.0 / 4.0, 2.0 / 2.5]));
    // As many as were seen at least, and no more than those and all that were not run.
    assert!(float("ci_low").iter().zip([1.0, 2.0, 1.0]).all(|(low, seen)| *low >= seen));
    assert!(float("ci_high").iter().zip([2.0, 3.0, 2.0]).all(|(high, most)| *high <= most));
}

#[test]
fn the_share_of_carriers_that_were_run_has_the_interval_of_how_many_the_rest_has() {
    // 20 were found, and 4 of a sample of the rest carry it, of whom there are 17.1 to 78.1.
    assert_eq!(recall_interval(24, 20, Some((17.121_155, 78.100_326))), "[24.5,\u{a0}64.7]\u{a0}%");
    assert_eq!(recall_interval(24, 20, Some((4.0, 4.0))), "[100.0,\u{a0}100.0]\u{a0}%");
    assert_eq!(recall_interval(24, 20, None), cells::EMPTY);
}

#[test]
fn where_every_head_was_run_nothing_is_estimated() {
    let heads = heads([1.0, 2.0, 0.0], [1.0, 2.0, 1.0]);
    let heads = read::<Exchange>(&heads).unwrap();
    let table = missed_table(&heads, &Exact { candidates: vec![0, 1, 2, 3], sampled: Vec::new(), rest: 0 }).unwrap();
    for column in ["missed", "ci_low", "ci_high"] {
        assert_eq!(table.floats(column).unwrap(), [Some(0.0); 3]);
    }
    assert_eq!(table.floats("recall").unwrap(), [Some(1.0); 3]);
}
