//! How far a run is, and how long it will take.
//!
//! Two kinds of work have a pace of their own: rows of prompts and edited runs, and tokens of texts, of which each step reads all
//! weights for a row a text. What is left of a kind takes as long as what was done of it lately, since the first layers also read
//! the weights and batches grow as edits reach further; or as long as all that was done of it, if that went faster: a pause between
//! two plans is none of the pace. Tokens go as all of them did, since a step is slowest at its end. A kind that has not begun is guessed
//! at from the other one.

use crate::study::{TEXTS_NEED, TOKENS_SLOWER, Work};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much of a kind's work counts as lately: work that lies so far back, as a share of what is expected, weighs a third of the last.
const LATELY: f64 = 0.03;

/// How far a run is, and how long it will take. What an earlier run did and this one took over is done, and says nothing of the pace.
pub struct Pace(Mutex<State>);

struct State {
    rows: Kind,
    tokens: Kind,
    /// Whether the last work was tokens; none before there was any.
    of_tokens: Option<bool>,
    /// When the last work was done or taken over.
    last: Instant,
}

/// One kind of work, in operations.
#[derive(Default)]
struct Kind {
    expected: f64,
    /// What was taken over from an earlier run.
    kept: f64,
    /// What was done in this process.
    computed: f64,
    /// What of it was timed, and the seconds that it took.
    timed: [f64; 2],
    /// What turned out not to be needed.
    spared: f64,
    /// What was done and spared of whole batches of texts.
    settled: [f64; 2],
    /// The share of what is left that is needed, before a batch has ended.
    needed: f64,
    /// What was done lately, and the seconds that it took.
    lately: [f64; 2],
}

impl Kind {
    fn expecting(expected: f64, needed: f64) -> Kind {
        Kind { expected, needed, ..Kind::default() }
    }

    fn timed(&mut self, work: f64, seconds: f64) {
        let fades = (-work / (LATELY * self.expected).max(1.0)).exp();
        for (k, new) in [work, seconds].into_iter().enumerate() {
            self.timed[k] += new;
            self.lately[k] = self.lately[k] * fades + new;
        }
    }

    /// All texts that were begun have ended.
    fn settle(&mut self) {
        self.settled = [self.computed + self.kept, self.spared];
    }

    /// Seconds for an operation; none before one was timed.
    fn pace(&self) -> Option<f64> {
        let [work, seconds] = self.timed;
        (work > 0.0).then(|| seconds / work)
    }

    /// The same of the last work, where that went faster.
    fn pace_lately(&self) -> Option<f64> {
        let [work, seconds] = self.lately;
        self.pace().map(|pace| pace.min(seconds / work))
    }

    /// The work that is left, if later batches of texts end as early as those that are done.
    fn left(&self) -> f64 {
        let [done, spared] = self.settled;
        let needed = if done > 0.0 { done / (done + spared) } else { self.needed };
        self.left_at_most() * needed
    }

    /// The work that is left, if no later text ends before it must.
    fn left_at_most(&self) -> f64 {
        (self.expected - self.kept - self.computed - self.spared).max(0.0)
    }
}

impl Pace {
    /// Begins to count, of so much work as is expected.
    pub fn start(expected: Work) -> Pace {
        let rows = Kind::expecting(expected.flops - expected.of_tokens, 1.0);
        let tokens = Kind::expecting(expected.of_tokens, TEXTS_NEED);
        Pace(Mutex::new(State { rows, tokens, of_tokens: None, last: Instant::now() }))
    }

    /// So much was computed since the last call.
    pub fn computed(&self, work: Work) {
        self.with(|state| {
            let now = Instant::now();
            state.computed(work, now - state.last);
            state.last = now;
        });
    }

    /// So much was taken over; the time since the last call went by with that.
    pub fn kept(&self, work: Work) {
        self.with(|state| {
            state.rows.kept += work.flops - work.of_tokens;
            state.tokens.kept += work.of_tokens;
            state.last = Instant::now();
        });
    }

    /// So much turned out not to be needed.
    pub fn spared(&self, work: Work) {
        self.with(|state| state.tokens.spared += work.of_tokens);
    }

    /// Seconds that are left; none before anything was computed.
    pub fn left_s(&self) -> Option<f64> {
        self.with(|state| state.left_s(Kind::left))
    }

    /// Seconds that are left if every text that is still to be written gets as long as it may; none where no text is. How long
    /// texts get cannot be known from those before: a steered model may stop sooner or never.
    pub fn left_at_most_s(&self) -> Option<f64> {
        self.with(|state| (state.tokens.left_at_most() > 0.0).then(|| state.left_s(Kind::left_at_most)).flatten())
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn computed(&mut self, work: Work, took: Duration) {
        let of_tokens = work.of_tokens > 0.0;
        if !of_tokens {
            // Rows after tokens are the next batch's prompts: the texts of the one before have ended.
            self.tokens.settle();
        }
        let [now, other] = match of_tokens {
            true => [&mut self.tokens, &mut self.rows],
            false => [&mut self.rows, &mut self.tokens],
        };
        now.computed += work.flops;
        match self.of_tokens.replace(of_tokens) {
            // Where one kind follows the other, the time went by with the other's end.
            Some(before) if before != of_tokens => other.timed[1] += took.as_secs_f64(),
            _ => now.timed(work.flops, took.as_secs_f64()),
        }
    }

    /// Seconds for what is left, counted in this way.
    fn left_s(&self, left: fn(&Kind) -> f64) -> Option<f64> {
        let (rows, tokens) = (self.rows.pace_lately(), self.tokens.pace());
        let a_row = rows.or(tokens.map(|pace| pace / TOKENS_SLOWER))?;
        let a_token = tokens.unwrap_or(a_row * TOKENS_SLOWER);
        Some(a_row * left(&self.rows) + a_token * left(&self.tokens))
    }
}

/// `under 0.1 s`, `0.4 s`, `35 s`, `12 min`, `3.5 h`: about so long.
pub fn about(seconds: f64) -> String {
    match seconds {
        s if s < 0.05 => "under 0.1 s".to_owned(),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 99.5 => format!("{s:.0} s"),
        s if s < 570.0 => format!("{:.1} min", s / 60.0),
        s if s < 5970.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(flops: f64) -> Work {
        Work { flops, ..Work::default() }
    }

    fn tokens(flops: f64) -> Work {
        Work { flops, of_tokens: flops, ..Work::default() }
    }

    /// A run that is told what it does, with the seconds that it takes.
    struct Told {
        pace: Pace,
        spent: f64,
    }

    impl Told {
        fn of(expected: Work) -> Told {
            Told { pace: Pace::start(expected), spent: 0.0 }
        }

        fn does(&mut self, work: Work, seconds: f64) {
            self.spent += seconds;
            self.pace.with(|state| state.computed(work, Duration::from_secs_f64(seconds)));
        }

        /// How long the run takes together, as it is foreseen now.
        fn foreseen(&self) -> f64 {
            self.spent + self.pace.left_s().unwrap()
        }
    }

    #[test]
    fn what_is_left_takes_as_long_as_what_was_done() {
        let mut run = Told::of(rows(100.0));
        assert_eq!(run.pace.left_s(), None);
        run.does(rows(10.0), 5.0);
        assert!((run.foreseen() - 50.0).abs() < 1e-9);
        run.does(rows(95.0), 1.0);
        assert_eq!(run.pace.left_s(), Some(0.0), "more was done than expected");
    }

    /// Weights are read by the first layers, and later ones have more rows: as a sweep of 30 layers over SmolLM2 goes.
    #[test]
    fn a_sweep_whose_first_layers_read_weights_is_foreseen_from_its_first_tenth_on() {
        let layers: Vec<f64> = (0..30).map(|layer| 576.0 + 216.0 * f64::from(layer)).collect();
        let total: f64 = layers.iter().sum();
        // To read a layer takes as long as some 1,100 rows: measured.
        let seconds = |layer: f64| layer + 1100.0;
        let all: f64 = layers.iter().map(|layer| seconds(*layer)).sum();
        let mut run = Told::of(rows(total));
        let mut done = 0.0;
        for layer in &layers {
            run.does(rows(*layer), seconds(*layer));
            done += layer;
            if done >= 0.1 * total {
                assert!((run.foreseen() / all - 1.0).abs() < 0.25, "{} of {all} after {done}", run.foreseen());
            }
        }
        assert!((run.foreseen() - all).abs() < 1e-6);
    }

    #[test]
    fn a_pause_between_two_plans_takes_no_longer_than_it_took() {
        let mut run = Told::of(rows(100.0));
        (0..4).for_each(|_| run.does(rows(10.0), 10.0));
        run.does(rows(1.0), 9.0);
        assert!((run.foreseen() / 108.0 - 1.0).abs() < 0.12, "{}", run.foreseen());
    }

    #[test]
    fn tokens_have_their_own_pace_and_one_that_is_guessed_before_they_begin() {
        let expected = Work { flops: 300.0, of_tokens: 200.0, ..Work::default() };
        let mut run = Told::of(expected);
        run.does(rows(50.0), 5.0);
        // 50 more at a tenth of a second, and three quarters of 200 at three tenths.
        assert!((run.pace.left_s().unwrap() - 50.0).abs() < 1e-9);
        run.does(rows(50.0), 5.0);
        // What goes by before the first layer of a token is the end of the prompts' pass.
        run.does(tokens(2.0), 40.0);
        run.does(tokens(98.0), 49.0);
        assert!((run.pace.left_s().unwrap() - 37.5).abs() < 1e-9);
        assert!((run.pace.left_at_most_s().unwrap() - 50.0).abs() < 1e-9);
        run.does(tokens(100.0), 50.0);
        assert_eq!(run.pace.left_at_most_s(), None, "no text is left to write");
        // Texts alone are left of a run that is gone on with.
        let mut texts = Told::of(expected);
        texts.pace.kept(rows(50.0));
        texts.does(tokens(50.0), 30.0);
        assert!((texts.pace.left_s().unwrap() - (0.75 * 150.0 * 0.6 + 50.0 * 0.2)).abs() < 1e-9);
    }

    #[test]
    fn later_texts_are_taken_to_end_as_early_as_those_before() {
        let mut run = Told::of(Work { flops: 440.0, of_tokens: 400.0, ..Work::default() });
        for batch in 0..4 {
            run.does(rows(10.0), 1.0);
            run.does(tokens(20.0), 10.0);
            run.pace.spared(tokens(50.0));
            run.does(tokens(30.0), 15.0);
            if batch > 0 {
                // A batch takes 26 seconds; half of what it was expected to.
                assert!((run.foreseen() / 104.0 - 1.0).abs() < 0.13, "{batch}: {}", run.foreseen());
            }
        }
        assert!((run.foreseen() - 104.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_taken_over_is_no_work_done_in_no_time() {
        let pace = Pace::start(rows(1000.0));
        pace.kept(rows(700.0));
        assert_eq!(pace.left_s(), None);
        pace.with(|state| state.computed(rows(100.0), Duration::from_secs(20)));
        // 200 of 1000 are left, at 5 a second.
        assert_eq!(pace.left_s(), Some(40.0));
        pace.kept(rows(100.0));
        assert_eq!(pace.left_s(), Some(20.0));
        std::thread::sleep(Duration::from_millis(20));
        pace.kept(rows(0.0));
        pace.computed(rows(100.0));
        let seconds = pace.with(|state| state.rows.timed[1]);
        assert!(seconds < 20.0 + 0.015, "taking over is not working");
        assert_eq!(pace.left_s(), Some(0.0));
    }

    #[test]
    fn durations_are_written_about() {
        let said = [0.04, 9.4, 61.0, 140.0, 1800.0, 9000.0].map(about);
        assert_eq!(said, ["under 0.1 s", "9.4 s", "61 s", "2.3 min", "30 min", "2.5 h"]);
    }
}
