//! Where a decoder's weights are when it needs them. Opening a model reads none of them.
//!
//! A layer is read when a pass first comes to it, and while it runs, threads read the one that the pass comes to next
//! ([`super::readers`]). What was read stays where all weights fit the memory that they may take. Where they do not, two
//! layers are in memory, the one that runs and the one after it: the wavefront comes to each layer once a sweep, so that a
//! model larger than memory costs one reading of its file, however many forks there are. Of layers with several experts that
//! are read so, those that rows choose from are left in the file until rows have chosen some, and these alone are read.

use super::checkpoint::{Pick, Stored};
use super::readers::{Coming, begin, begin_each};
use super::weights::{LayerWeights, WeightReader, WeightsError};
use crate::ops::{Weight, to_vec};
use candle_core::{Device, Result, Tensor};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Reads a layer; while another one runs, if the flag says so.
type Read<T> = dyn Fn(usize, bool) -> std::result::Result<T, WeightsError> + Send + Sync;

/// The layers of a model, or the experts of one of them, each read when it is first needed.
pub(super) struct Layers<T = LayerWeights> {
    read: Arc<Read<T>>,
    /// What one of them is, before its number.
    what: String,
    /// Whether what was read stays.
    keep: bool,
    /// One a layer.
    slots: Mutex<Vec<Slot<T>>>,
}

/// Where a layer is.
enum Slot<T> {
    Stored,
    Coming(Coming<std::result::Result<T, WeightsError>>),
    Here(Arc<T>),
}

impl<T: Send + Sync + 'static> Layers<T> {
    /// So many layers, none of them read yet. Without `keep`, two at most are in memory.
    pub(super) fn new(
        n: usize,
        keep: bool,
        read: impl Fn(usize, bool) -> std::result::Result<T, WeightsError> + Send + Sync + 'static,
    ) -> Self {
        let slots = Mutex::new((0..n).map(|_| Slot::Stored).collect());
        Layers { read: Arc::new(read), what: "layer".to_string(), keep, slots }
    }

    /// The same under another name.
    pub(super) fn named(self, what: String) -> Self {
        Layers { what, ..self }
    }

    /// Those that were read already.
    pub(super) fn here(found: Vec<T>) -> Self {
        let slots = found.into_iter().map(|one| Slot::Here(Arc::new(one))).collect();
        Layers { slots: Mutex::new(slots), ..Layers::new(0, true, |layer, _| Err(WeightsError::NoLayer { layer })) }
    }

    /// A layer.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot be read.
    pub(super) fn get(&self, layer: usize) -> std::result::Result<Arc<T>, WeightsError> {
        if let Some(Slot::Here(found)) = self.slots().get(layer) {
            return Ok(found.clone());
        }
        self.enter(layer, None)
    }

    /// The layer that a pass is at. The one that it comes to `next` is read from now on.
    ///
    /// # Errors
    /// As [`Layers::get`].
    pub(super) fn enter(&self, layer: usize, next: Option<usize>) -> std::result::Result<Arc<T>, WeightsError> {
        let mut slots = self.slots();
        if !self.keep {
            // Before the new layer takes memory, and after what is still being read has taken its own.
            let others = slots.iter_mut().enumerate().filter(|(l, _)| *l != layer && Some(*l) != next);
            others.for_each(|(_, slot)| slot.let_go());
        }
        let slot = slots.get_mut(layer).ok_or(WeightsError::NoLayer { layer })?;
        let found = slot.take(|| format!("{} {layer}", self.what), || self.begin(layer, false))?;
        if let Some((next, slot)) = next.and_then(|next| Some((next, slots.get_mut(next)?)))
            && matches!(slot, Slot::Stored)
        {
            *slot = Slot::Coming(self.begin(next, true));
        }
        Ok(found)
    }

    /// Begins to read all of these that are not in memory, one after another; whoever asks for one waits for no more than those
    /// before it.
    pub(super) fn ask(&self, of: impl IntoIterator<Item = usize>) {
        let mut slots = self.slots();
        let missing: Vec<usize> = of.into_iter().filter(|i| matches!(slots.get(*i), Some(Slot::Stored))).collect();
        let read = self.read.clone();
        let coming = begin_each(missing.clone(), move |i| read(i, true));
        for (i, coming) in missing.into_iter().zip(coming) {
            slots[i] = Slot::Coming(coming);
        }
    }

    fn begin(&self, layer: usize, ahead: bool) -> Coming<std::result::Result<T, WeightsError>> {
        let read = self.read.clone();
        begin(move || read(layer, ahead))
    }

    /// Whether two layers at most are in memory.
    pub(super) fn streamed(&self) -> bool {
        !self.keep
    }

    fn slots(&self) -> MutexGuard<'_, Vec<Slot<T>>> {
        // Whoever panicked while it held the lock left a slot as stored at worst.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    /// The layer, read by what `read` begins if nothing does yet. One that fails is as if it had never been asked for.
    fn take(
        &mut self,
        what: impl FnOnce() -> String,
        read: impl FnOnce() -> Coming<std::result::Result<T, WeightsError>>,
    ) -> std::result::Result<Arc<T>, WeightsError> {
        let coming = match std::mem::replace(self, Slot::Stored) {
            Slot::Here(found) => {
                *self = Slot::Here(found.clone());
                return Ok(found);
            }
            Slot::Coming(coming) => coming,
            Slot::Stored => read(),
        };
        let stopped = || Err(WeightsError::Stopped { what: what() });
        let found = Arc::new(coming.wait().unwrap_or_else(stopped)?);
        *self = Slot::Here(found.clone());
        Ok(found)
    }

    /// Takes the layer out of memory.
    fn let_go(&mut self) {
        if let Slot::Coming(coming) = std::mem::replace(self, Slot::Stored) {
            drop(coming.wait());
        }
    }
}

/// A matrix of which single rows are wanted, or all at once: `[entries, width]`. Single rows are read from the checkpoint
/// each time. The whole is read when it is first needed, and stays, where it may.
#[derive(Clone)]
pub(super) struct Table {
    source: Arc<WeightReader>,
    stored: Stored,
    device: Device,
    /// The whole of it, once it was read; where it must not stay, it is read some entries at a time.
    whole: Option<Arc<Mutex<Option<Weight>>>>,
    /// What leads from what is stored to an entry, `[width, stored width]`, where these differ.
    led: Option<Weight>,
}

/// Entries of a table that are in memory at once where the whole of it must not be.
const ENTRIES_AT_ONCE: usize = 16_384;

impl Table {
    /// A stored table, for a device, of which nothing is read yet.
    pub(super) fn new(source: Arc<WeightReader>, stored: Stored, device: Device, keep: bool) -> Self {
        Table { source, stored, device, whole: keep.then(Arc::default), led: None }
    }

    /// The same table, whose entries come by way of a matrix `[width, stored width]`.
    pub(super) fn led_by(self, matrix: Weight) -> Self {
        Table { led: Some(matrix), ..self }
    }

    /// Rows of what is stored as entries.
    fn lead(&self, rows: Tensor) -> Result<Tensor> {
        self.led.as_ref().map_or(Ok(rows.clone()), |led| led.product(&rows))
    }

    /// What all of the model's weights are read from.
    pub(super) fn source(&self) -> &WeightReader {
        &self.source
    }

    /// Rows of the table. `[entries, width]`
    ///
    /// # Errors
    /// If an entry is out of range, or the table cannot be read.
    pub(super) fn rows(&self, entries: &[u32]) -> Result<Tensor> {
        let n = self.entries();
        if let Some(entry) = entries.iter().find(|e| **e as usize >= n) {
            candle_core::bail!("entry {entry} of a table of {n}")
        }
        if let Some(table) = self.whole.as_ref().and_then(|whole| locked(whole).clone()) {
            return self.lead(table.rows(entries)?);
        }
        // A sweep's prompts have few different tokens.
        let mut each = entries.to_vec();
        each.sort_unstable();
        each.dedup();
        let runs = each.chunk_by(|a, b| a + 1 == *b);
        let rows = self.ranges(runs.map(|run| run[0] as usize..run[0] as usize + run.len()).collect())?;
        let row = |entry: &u32| each.binary_search(entry).unwrap_or_default() as u32;
        self.lead(rows.index_select(&Tensor::new(entries.iter().map(row).collect::<Vec<_>>(), &self.device)?, 0)?)
    }

    /// `x` times every entry: `[rows, width]` to `[rows, entries]`.
    ///
    /// # Errors
    /// If the widths differ, or the table cannot be read.
    pub(super) fn product(&self, x: &Tensor) -> Result<Tensor> {
        let x = &self.led.as_ref().map_or(Ok(x.clone()), |led| led.product_back(x))?;
        if let Some(table) = self.whole()? {
            return table.product(x);
        }
        let part = |range: Range<usize>| Weight::new(&self.ranges(vec![range])?)?.product(x);
        Tensor::cat(&self.parts().map(part).collect::<Result<Vec<_>>>()?, 1)
    }

    /// The mean of all entries, summed in f64. `[width]`
    ///
    /// # Errors
    /// If the table cannot be read.
    pub(super) fn mean(&self) -> Result<Vec<f32>> {
        let whole = self.whole()?;
        let mut sums: Vec<f64> = Vec::new();
        for range in self.parts() {
            let part = match &whole {
                Some(table) => table.rows(&range.map(|entry| entry as u32).collect::<Vec<_>>())?,
                None => self.ranges(vec![range])?,
            };
            let (width, values) = (part.dim(1)?, to_vec(&part)?);
            sums.resize(width, 0.0);
            for row in values.chunks_exact(width.max(1)) {
                row.iter().zip(&mut sums).for_each(|(x, sum)| *sum += f64::from(*x));
            }
        }
        let n = self.entries() as f64;
        let mean: Vec<f32> = sums.iter().map(|sum| (sum / n) as f32).collect();
        match &self.led {
            None => Ok(mean),
            Some(led) => {
                let mean = Tensor::new(mean, &self.device)?.unsqueeze(0)?;
                to_vec(&led.product(&mean.to_dtype(led.dtype())?)?)
            }
        }
    }

    /// The gradient of [`Table::product`] with respect to its `x`, given that with respect to its result: `[rows, entries]`
    /// to `[rows, width]`.
    ///
    /// # Errors
    /// If the widths differ, or the table cannot be read.
    pub(super) fn product_back(&self, grad: &Tensor) -> Result<Tensor> {
        if let Some(table) = self.whole()? {
            return self.lead(table.product_back(grad)?);
        }
        let mut sum: Option<Tensor> = None;
        for range in self.parts() {
            let part = self.ranges(vec![range.clone()])?;
            let part = Weight::new(&part)?.product_back(&grad.narrow(1, range.start, range.len())?)?;
            sum = Some(match sum {
                Some(sum) => (sum + part)?,
                None => part,
            });
        }
        self.lead(sum.ok_or_else(|| candle_core::Error::Msg("a table has no entries".to_string()))?)
    }

    /// Reads the whole table, if it may stay in memory.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn read(&self) -> Result<()> {
        self.whole().map(drop)
    }

    /// The whole table, read if it was not yet; nothing where it must not stay in memory.
    fn whole(&self) -> Result<Option<Weight>> {
        let Some(whole) = &self.whole else { return Ok(None) };
        let mut whole = locked(whole);
        if whole.is_none() {
            let Table { source, stored, device, .. } = self.clone();
            let stopped = || Err(WeightsError::Stopped { what: format!("tensor `{}`", self.stored.name) });
            *whole = Some(begin(move || source.whole(&stored, &device)).wait().unwrap_or_else(stopped)?);
        }
        Ok(whole.clone())
    }

    /// Ranges of entries, one after another.
    fn ranges(&self, ranges: Vec<Range<usize>>) -> Result<Tensor> {
        let stored = Stored { pick: Pick::Rows(ranges), ..self.stored.clone() };
        Ok(self.source.tensor(&stored, &self.device)?)
    }

    /// The entries of a table that are handled at once.
    fn parts(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let n = self.entries();
        (0..n).step_by(ENTRIES_AT_ONCE).map(move |from| from..n.min(from + ENTRIES_AT_ONCE))
    }

    fn entries(&self) -> usize {
        self.stored.shape[0]
    }
}

/// What a lock guards. Whoever panicked while it held the lock has not put anything there.
fn locked(whole: &Mutex<Option<Weight>>) -> MutexGuard<'_, Option<Weight>> {
    whole.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, Options};
    use candle_core::DType;
    use rayon::prelude::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    /// Layers that are their own numbers, and what was read of them: numbers, and whether ahead.
    fn numbers(n: usize, keep: bool) -> (Layers<usize>, std::sync::mpsc::Receiver<(usize, bool)>) {
        let (to, from) = channel();
        let to = Mutex::new(to);
        let read = move |layer: usize, ahead: bool| {
            locked_sender(&to).send((layer, ahead)).expect("a listener");
            Ok(layer)
        };
        (Layers::new(n, keep, read), from)
    }

    fn locked_sender<S>(to: &Mutex<S>) -> MutexGuard<'_, S> {
        to.lock().expect("a sender")
    }

    #[test]
    fn the_layer_that_a_pass_comes_to_next_is_read_ahead_and_no_other() {
        for keep in [true, false] {
            let (layers, read) = numbers(4, keep);
            let enter = |layer: usize, next: Option<usize>| {
                assert_eq!(*layers.enter(layer, next).expect("a layer"), layer);
            };
            enter(0, Some(1));
            assert_eq!(read.recv_timeout(SOON), Ok((0, false)));
            assert_eq!(read.recv_timeout(SOON), Ok((1, true)));
            enter(1, Some(2));
            assert_eq!(read.recv_timeout(SOON), Ok((2, true)));
            enter(2, None);
            // Back, as gradients go.
            enter(2, Some(1));
            if !keep {
                assert_eq!(read.recv_timeout(SOON), Ok((1, true)));
            }
            enter(1, Some(0));
            if !keep {
                assert_eq!(read.recv_timeout(SOON), Ok((0, true)));
            }
            enter(0, None);
            assert_eq!(read.recv_timeout(Duration::from_millis(50)), Err(RecvTimeoutError::Timeout), "{keep}");
        }
    }

    #[test]
    fn a_layer_that_many_ask_for_at_once_is_read_once() {
        let counts: Arc<Vec<AtomicUsize>> = Arc::new((0..3).map(|_| AtomicUsize::new(0)).collect());
        let counted = counts.clone();
        let layers = Layers::new(3, true, move |layer, _| {
            counted[layer].fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(30));
            Ok(layer)
        });
        let (layers, barrier) = (&layers, &Barrier::new(8));
        let found: Vec<Arc<usize>> = std::thread::scope(|scope| {
            let ask = |i: usize| {
                move || {
                    barrier.wait();
                    // Half of them in a pass.
                    if i.is_multiple_of(2) { layers.get(1) } else { layers.enter(1, Some(2)) }.expect("a layer")
                }
            };
            let asked: Vec<_> = (0..8).map(|i| scope.spawn(ask(i))).collect();
            asked.into_iter().map(|thread| thread.join().expect("an answer")).collect()
        });
        assert!(found.iter().all(|one| Arc::ptr_eq(one, &found[0])));
        layers.get(2).expect("a layer");
        assert_eq!(counts.iter().map(|count| count.load(SeqCst)).collect::<Vec<_>>(), [0, 1, 1]);
    }

    #[test]
    fn rayons_threads_may_ask_for_layers_whose_reading_needs_rayon() {
        let counted = Arc::new(AtomicUsize::new(0));
        let count = counted.clone();
        let layers = Layers::new(4, true, move |layer, _| {
            count.fetch_add(1, SeqCst);
            Ok((0..100_000_u64).into_par_iter().map(|i| i % 7).sum::<u64>() + layer as u64)
        });
        let expected = (0..100_000_u64).map(|i| i % 7).sum::<u64>();
        let ask = |i: usize| {
            // Work of rayon's within the work, beside which a thread that waited would take up more of it.
            let inner: u64 = (0..1000_u64).into_par_iter().map(|j| j * i as u64).sum();
            assert_eq!(inner, 499_500 * i as u64);
            *layers.enter(i % 4, Some((i + 1) % 4)).expect("a layer") - (i % 4) as u64
        };
        assert!((0..400).into_par_iter().all(|i| ask(i) == expected));
        assert_eq!(counted.load(SeqCst), 4);
    }

    /// Takes memory while it lives.
    struct Live(Arc<AtomicUsize>);

    impl Drop for Live {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }

    #[test]
    fn where_layers_do_not_stay_two_at_most_are_in_memory_however_a_pass_goes() {
        let (live, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (l, m) = (live.clone(), most.clone());
        let layers = Layers::new(6, false, move |_, _| {
            m.fetch_max(l.fetch_add(1, SeqCst) + 1, SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            Ok(Live(l.clone()))
        });
        let pass = |order: &[usize]| {
            for (i, layer) in order.iter().enumerate() {
                drop(layers.enter(*layer, order.get(i + 1).copied()).expect("a layer"));
                drop(layers.get(*layer).expect("a layer"));
            }
        };
        pass(&[0, 1, 2, 3, 4, 5]);
        pass(&[5, 4, 3, 2, 1, 0]);
        pass(&[3, 0, 5]);
        // One that stops while the next layer is being read.
        drop(layers.enter(1, Some(2)).expect("a layer"));
        pass(&[4, 5]);
        drop(layers.get(0).expect("a layer"));
        assert_eq!((most.load(SeqCst), live.load(SeqCst)), (2, 1));
    }

    #[test]
    fn a_layer_that_cannot_be_read_is_told_to_whoever_asks_for_it_and_asked_for_again() {
        let tries = AtomicUsize::new(0);
        let layers = Layers::new(3, true, move |layer, _| match (layer, tries.fetch_add(1, SeqCst)) {
            (1, 1) => Err(WeightsError::Overflow { tensor: "a".to_string(), dtype: "f16" }),
            (1, 2) => panic!("an expected panic"),
            _ => Ok(layer),
        });
        let said = |layer: usize| layers.get(layer).expect_err("an error").to_string();
        // What fails ahead stops no pass that does not come to it.
        assert!(layers.enter(0, Some(1)).is_ok());
        assert!(said(1).contains("tensor `a`"));
        assert_eq!(said(1), "layer 1: the thread that read it stopped");
        assert_eq!(*layers.get(1).expect("a layer"), 1);
        assert_eq!(said(3), "there is no layer 3");
    }

    fn fixture(family: &str, dtype: DType, max_memory: Option<u64>) -> Model {
        let dir = format!("{}/tests/fixtures/{family}", env!("CARGO_MANIFEST_DIR"));
        Model::open(&dir, &Options { dtype, max_memory, ..Options::default() }).expect("a sound model")
    }

    #[test]
    fn a_table_gives_the_same_bits_before_and_after_the_whole_of_it_was_read() {
        for family in ["llama", "gpt2", "qwen2", "families/opt_350m"] {
            for dtype in [DType::F32, DType::BF16] {
                let (model, streamed) = (fixture(family, dtype, None), fixture(family, dtype, Some(0)));
                let (decoder, ids) = (&model.decoder, [7, 3, 7, 0, 59, 3]);
                let bits = |x: Result<Tensor>| {
                    let values = to_vec(&x.expect("a tensor")).expect("numbers");
                    values.into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                let is_whole = |table: &Table| table.whole.as_ref().is_some_and(|whole| locked(whole).is_some());
                let x = decoder.embed.rows(&[5, 9]).expect("rows");
                let before = bits(decoder.unembed.rows(&ids));
                assert!(!is_whole(&decoder.embed) && !is_whole(&decoder.unembed), "{family}");
                let product = bits(decoder.unembed.product(&x));
                // Tied, they are one table.
                assert_eq!(
                    (is_whole(&decoder.unembed), is_whole(&decoder.embed)),
                    (true, decoder.arch.tied),
                    "{family}"
                );
                assert_eq!(bits(decoder.unembed.rows(&ids)), before, "{family}");
                assert_eq!(bits(streamed.decoder.unembed.rows(&ids)), before, "{family}");
                assert_eq!(bits(streamed.decoder.unembed.product(&x)), product, "{family}");
                let means = [&model, &streamed].map(|model| model.decoder.unembed.mean().expect("a mean"));
                assert_eq!(means[0], means[1], "{family}");
                assert!(!is_whole(&streamed.decoder.unembed));
            }
        }
    }
}
