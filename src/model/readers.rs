//! Threads that read weights, beside those that compute.
//!
//! Whoever waits for weights keeps others out of the place where they will be. One of rayon's threads that waits for rayon
//! takes up other work meanwhile; were that to wait for the same place, both would wait for ever. So weights are read on
//! threads of their own, as many as compute, and whoever waits for them does nothing else.

use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, sync_channel};

/// The threads, once something was read; none where the system gives none.
static THREADS: OnceLock<Option<ThreadPool>> = OnceLock::new();

/// What a thread reads.
pub(super) struct Coming<T>(Receiver<T>);

/// Begins to read. Where the system gives no threads, it is read before this returns.
pub(super) fn begin<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Coming<T> {
    let (to, from) = sync_channel(1);
    // Whoever wanted it may be gone by then.
    spawn(move || drop(to.send(read())));
    Coming(from)
}

/// Begins to read several, one after another: each is there as soon as it was read. All threads read one of them together, so that no
/// more than one takes memory beside those that were read.
pub(super) fn begin_each<I: Send + 'static, T: Send + 'static>(
    of: Vec<I>,
    read: impl Fn(I) -> T + Send + 'static,
) -> Vec<Coming<T>> {
    let (to, from): (Vec<_>, Vec<_>) = of.iter().map(|_| sync_channel(1)).unzip();
    if !of.is_empty() {
        spawn(move || of.into_iter().zip(to).for_each(|(one, to)| drop(to.send(read(one)))));
    }
    from.into_iter().map(Coming).collect()
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    match THREADS.get_or_init(threads) {
        Some(threads) => threads.spawn(work),
        None => work(),
    }
}

fn threads() -> Option<ThreadPool> {
    let threads = ThreadPoolBuilder::new().num_threads(rayon::current_num_threads());
    // A panic ends what was being read, and whoever waits for it is told.
    threads.thread_name(|i| format!("reader {i}")).panic_handler(|_| ()).build().ok()
}

impl<T> Coming<T> {
    /// What was read; nothing if the thread stopped before its end.
    pub(super) fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, begin_each};

    #[test]
    fn what_is_read_arrives_and_what_stops_is_told() {
        let many: Vec<_> = (0..50).map(|i| begin(move || i * i)).collect();
        assert!(many.into_iter().enumerate().all(|(i, one)| one.wait() == Some(i * i)));
        assert_eq!(begin(|| -> u32 { panic!("an expected panic") }).wait(), None);
        assert_eq!(begin(|| 7).wait(), Some(7), "the threads go on");
        drop(begin(|| 7));
    }

    #[test]
    fn of_several_each_arrives_and_what_comes_after_one_that_stops_is_told() {
        let squares = begin_each((0..50).collect(), |i: i32| i * i);
        assert!(squares.into_iter().enumerate().all(|(i, one)| one.wait() == Some((i * i) as i32)));
        let stops = begin_each(vec![1, 2, 3], |i| if i == 2 { panic!("an expected panic") } else { i });
        assert_eq!(stops.into_iter().map(super::Coming::wait).collect::<Vec<_>>(), [Some(1), None, None]);
        assert!(begin_each(Vec::new(), |i: u8| i).is_empty());
    }
}
