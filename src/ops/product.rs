//! Products with weight matrices: the one door to them.

use super::panels::{self, Packed};
use super::{floats, narrowed};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// A weight matrix `[out, in]`, kept as products on its device want it. A constant: it gets no gradient. A clone shares
/// the numbers.
///
/// A row of a product does not depend, to the last bit, on how many others there are. On the CPU f32 weights are packed
/// (`panels`) and have that by construction; bf16 and f16 ones are candle's, which needs rows of zeros for it.
#[derive(Clone)]
pub struct Weight(Kept);

#[derive(Clone)]
enum Kept {
    Packed(Arc<dyn Packed>),
    Plain(Tensor),
}

impl Weight {
    /// A weight of the numbers of a tensor, `[out, in]`.
    ///
    /// # Errors
    /// If it has not two dimensions, or candle fails.
    pub fn new(weight: &Tensor) -> Result<Weight> {
        let (outputs, inputs) = weight.dims2()?;
        if !weight.device().is_cpu() || weight.dtype() != DType::F32 {
            return Ok(Weight(Kept::Plain(weight.clone())));
        }
        let weight = weight.contiguous()?;
        let (storage, layout) = weight.storage_and_layout();
        let candle_core::Storage::Cpu(storage) = &*storage else {
            candle_core::bail!("a weight of the CPU that is elsewhere")
        };
        Ok(Weight(Kept::Packed(panels::pack(&floats(storage, layout)?, outputs, inputs))))
    }

    /// Outputs and inputs.
    ///
    /// # Errors
    /// None: a weight has two dimensions.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match &self.0 {
            Kept::Packed(panels) => Ok((panels.outputs(), panels.inputs())),
            Kept::Plain(weight) => weight.dims2(),
        }
    }

    /// What activations are that it multiplies.
    pub fn dtype(&self) -> DType {
        match &self.0 {
            Kept::Packed(_) => DType::F32,
            Kept::Plain(weight) => weight.dtype(),
        }
    }

    /// The bytes that the numbers take.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Kept::Packed(panels) => panels.bytes(),
            Kept::Plain(weight) => weight.elem_count() * weight.dtype().size_in_bytes(),
        }
    }

    /// `x . weight^T`: `[rows, in]` to `[rows, out]`.
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn product(&self, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(x, panels, 0..panels.inputs()),
            Kept::Plain(weight) => plain_product(x, weight),
        }
    }

    /// The product of some of the inputs with their part of the weight: `[rows, inputs.len()]` to `[rows, out]`.
    ///
    /// # Errors
    /// If the inputs are out of range, the widths differ or candle fails.
    pub fn product_of(&self, inputs: Range<usize>, x: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(x, panels, inputs),
            Kept::Plain(weight) => plain_product(&x.contiguous()?, &weight.narrow(1, inputs.start, inputs.len())?),
        }
    }

    /// Each row's product with one group of the outputs alone: `groups` says of each row which, a group being `width` outputs one after
    /// another. `[rows, in]` to `[rows, width]`
    ///
    /// That is for rows of which each is for one head: the whole product would be as many times the work as there are heads. Rows of
    /// a group are taken together. On a GPU groups are products of one batch, all that have about as many rows: a few launches.
    ///
    /// # Errors
    /// If a group is out of range, there are more or fewer groups than rows, the widths differ, or candle fails.
    pub fn product_by_group(&self, x: &Tensor, groups: &[usize], width: usize) -> Result<Tensor> {
        let (rows, (outputs, _)) = (x.dim(0)?, self.dims()?);
        if groups.len() != rows || groups.iter().any(|group| (group + 1) * width > outputs) {
            candle_core::bail!("{} groups of {width} outputs, of {outputs} in all, for {rows} rows", groups.len())
        }
        match &self.0 {
            Kept::Packed(panels) => {
                let op = PackedByGroup { panels: panels.clone(), rows: Grouped::new(groups), width };
                let x = x.contiguous()?;
                if x.track_op() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
            }
            Kept::Plain(weight) if x.device().is_cpu() => plain_by_group(x, weight, &Grouped::new(groups), width),
            Kept::Plain(weight) => batched_by_group(x, weight, &Grouped::new(groups), width),
        }
    }

    /// The gradient of [`Weight::product`] with respect to its `x`, given that with respect to its result:
    /// `[rows, out]` to `[rows, in]`.
    ///
    /// # Errors
    /// If the widths differ or candle fails.
    pub fn product_back(&self, grad: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => packed_product(grad, &panels.transposed(), 0..panels.outputs()),
            Kept::Plain(weight) => plain_product(&grad.contiguous()?, &weight.t()?),
        }
    }

    /// The rows of some outputs. `[outputs, in]`
    ///
    /// # Errors
    /// If an output is out of range or candle fails.
    pub fn rows(&self, outputs: &[u32]) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => {
                if let Some(output) = outputs.iter().find(|o| **o as usize >= panels.outputs()) {
                    candle_core::bail!("row {output} of a weight of {}", panels.outputs())
                }
                let values: Vec<f32> = outputs.iter().flat_map(|o| panels.row(*o as usize)).collect();
                Tensor::from_vec(values, (outputs.len(), panels.inputs()), &candle_core::Device::Cpu)
            }
            Kept::Plain(weight) => weight.index_select(&Tensor::new(outputs, weight.device())?, 0),
        }
    }

    /// The whole matrix as a tensor. `[out, in]`
    ///
    /// # Errors
    /// If candle fails.
    pub fn tensor(&self) -> Result<Tensor> {
        match &self.0 {
            Kept::Packed(panels) => self.rows(&(0..panels.outputs() as u32).collect::<Vec<_>>()),
            Kept::Plain(weight) => Ok(weight.clone()),
        }
    }
}

/// From now on this process multiplies on the CPU as processors with AVX2 do that have no wider vectors, so that what it computes goes
/// with what they do.
pub fn portable() {
    panels::kernel::portable_from_now_on();
}

/// How a device multiplies with weights of a dtype: the form that they are kept in, and on the CPU the width of the vectors, of a GPU
/// its name. Results of packed weights do not depend on the width; those of other kinds may, and on the card.
pub fn products(device: &Device, dtype: DType) -> String {
    match device {
        Device::Cpu if dtype == DType::F32 => format!("packed, {}", panels::kernel::vectors()),
        Device::Cpu => format!("gemm, {}", panels::kernel::vectors()),
        #[cfg(feature = "cuda")]
        Device::Cuda(gpu) => match gpu.cuda_stream().context().name() {
            Ok(card) => format!("cublas, {card}"),
            Err(_) => "cublas".to_string(),
        },
        #[cfg(not(feature = "cuda"))]
        Device::Cuda(_) => "cublas".to_string(),
        Device::Metal(_) => "metal".to_string(),
    }
}

fn packed_product(x: &Tensor, panels: &Arc<dyn Packed>, inputs: Range<usize>) -> Result<Tensor> {
    let x = x.contiguous()?;
    let op = PackedProduct { panels: panels.clone(), inputs };
    if x.track_op() { x.apply_op1(op) } else { x.apply_op1_no_bwd(&op) }
}

/// The product with packed weights as a step of a graph.
struct PackedProduct {
    panels: Arc<dyn Packed>,
    inputs: Range<usize>,
}

impl CustomOp1 for PackedProduct {
    fn name(&self) -> &'static str {
        "packed product"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, width) = l.shape().dims2()?;
        let (outputs, all) = (self.panels.outputs(), self.panels.inputs());
        if width != self.inputs.len() || self.inputs.end > all {
            candle_core::bail!("product of {:?} and inputs {:?} of [{outputs}, {all}]", l.shape(), self.inputs)
        }
        let CpuStorage::F32(_) = s else {
            candle_core::bail!("product of {:?} activations and F32 weights", s.dtype())
        };
        Ok(narrowed(self.panels.product(&floats(s, l)?, self.inputs.clone()), s, (rows, outputs)))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let back = Weight(Kept::Packed(self.panels.clone())).product_back(grad)?;
        Ok(Some(back.narrow(1, self.inputs.start, self.inputs.len())?))
    }
}

/// Rows by the groups that they are in.
struct Grouped(BTreeMap<usize, Vec<u32>>);

impl Grouped {
    /// Rows of which each is in the group that its place says.
    fn new(groups: &[usize]) -> Grouped {
        let mut rows: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        groups.iter().enumerate().for_each(|(row, group)| rows.entry(*group).or_default().push(row as u32));
        Grouped(rows)
    }

    /// For each row, its place where rows of a group follow each other.
    fn places(&self) -> Vec<u32> {
        let order: Vec<u32> = self.0.values().flatten().copied().collect();
        let mut places = vec![0; order.len()];
        order.iter().enumerate().for_each(|(place, row)| places[*row as usize] = place as u32);
        places
    }

    /// What `of` makes of each group's rows of a matrix, put back in the order of rows. `of` takes a group and its rows,
    /// `[rows of it, width]`, and gives as many.
    fn each(&self, x: &[f32], width: usize, of: impl Fn(usize, &[f32]) -> Vec<f32> + Sync) -> Vec<f32> {
        let groups: Vec<(&usize, &Vec<u32>)> = self.0.iter().collect();
        let made = groups.into_par_iter().map(|(group, rows)| {
            let own: Vec<f32> = rows.iter().flat_map(|row| &x[*row as usize * width..][..width]).copied().collect();
            of(*group, &own)
        });
        let made = made.collect::<Vec<_>>().concat();
        let places = self.places();
        let out = made.len() / places.len().max(1);
        places.iter().flat_map(|place| &made[*place as usize * out..][..out]).copied().collect()
    }
}

/// [`Weight::product_by_group`] with packed weights, as a step of a graph.
struct PackedByGroup {
    panels: Arc<dyn Packed>,
    rows: Grouped,
    width: usize,
}

impl CustomOp1 for PackedByGroup {
    fn name(&self) -> &'static str {
        "packed product by group"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((rows, inputs), width) = (l.shape().dims2()?, self.width);
        let CpuStorage::F32(_) = s else {
            candle_core::bail!("product of {:?} activations and F32 weights", s.dtype())
        };
        if inputs != self.panels.inputs() {
            candle_core::bail!("product of {:?} and [{}, {}]", l.shape(), self.panels.outputs(), self.panels.inputs())
        }
        let of = |group: usize, x: &[f32]| self.panels.product_to(x, 0..inputs, group * width..(group + 1) * width);
        Ok(narrowed(self.rows.each(&floats(s, l)?, inputs, of), s, (rows, width)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let (turned, width) = (self.panels.transposed(), self.width);
        let of = |group: usize, grad: &[f32]| turned.product(grad, group * width..(group + 1) * width);
        let back = self.rows.each(&super::to_vec(grad)?, width, of);
        Tensor::from_vec(back, x.shape(), x.device()).map(Some)
    }
}

/// A product a group.
fn plain_by_group(x: &Tensor, weight: &Tensor, rows: &Grouped, width: usize) -> Result<Tensor> {
    let of = |(group, rows): (&usize, &Vec<u32>)| {
        let own = x.index_select(&Tensor::new(rows.as_slice(), x.device())?, 0)?;
        plain_product(&own, &weight.narrow(0, group * width, width)?)
    };
    in_order(&rows.0.iter().map(of).collect::<Result<Vec<_>>>()?, rows.places(), x, width)
}

/// What was made of rows, in parts, at its places again.
fn in_order(parts: &[Tensor], places: Vec<u32>, x: &Tensor, width: usize) -> Result<Tensor> {
    if parts.is_empty() {
        return Tensor::zeros((0, width), x.dtype(), x.device());
    }
    Tensor::cat(parts, 0)?.index_select(&Tensor::new(places, x.device())?, 0)
}

/// Products of groups in batches of those that have about as many rows: up to a power of two, which a group's last row fills up.
fn batched_by_group(x: &Tensor, weight: &Tensor, rows: &Grouped, width: usize) -> Result<Tensor> {
    let mut batches: BTreeMap<usize, Vec<(usize, &[u32])>> = BTreeMap::new();
    rows.0.iter().for_each(|(group, rows)| {
        batches.entry(rows.len().next_power_of_two()).or_default().push((*group, rows));
    });
    let ((outputs, inputs), device) = (weight.dims2()?, x.device());
    let (weights, mut places, mut made) = (weight.reshape((outputs / width, width, inputs))?, vec![0; x.dim(0)?], 0);
    let mut parts = Vec::with_capacity(batches.len());
    for (most, groups) in &batches {
        let mut index: Vec<u32> = Vec::with_capacity(most * groups.len());
        for (_, rows) in groups {
            rows.iter().enumerate().for_each(|(i, row)| places[*row as usize] = (made + index.len() + i) as u32);
            let last = rows.last().copied().unwrap_or_default();
            let end = index.len() + most;
            index.extend_from_slice(rows);
            index.resize(end, last);
        }
        made += index.len();
        let own = x.index_select(&Tensor::new(index, device)?, 0)?.reshape((groups.len(), *most, inputs))?;
        let those: Vec<u32> = groups.iter().map(|(group, _)| *group as u32).collect();
        let weights = match those.len() == weights.dim(0)? {
            true => weights.clone(),
            false => weights.index_select(&Tensor::new(those, device)?, 0)?,
        };
        parts.push(times(&own, &weights)?.reshape((groups.len() * most, width))?);
    }
    in_order(&parts, places, x, width)
}

/// candle's product. On the CPU it sums in another order for one row, for fewer than 257 numbers in all, and for up to 64
/// rows by 64 columns. Rows of zeros keep small products out of those cases.
fn plain_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (rows, out) = (x.dim(0)?, weight.dim(0)?.max(1));
    let least = (256 / out + 1).max(if out <= 64 { 65 } else { 2 });
    if rows >= least || !x.device().is_cpu() {
        return times(x, weight);
    }
    times(&x.pad_with_zeros(0, 0, least - rows)?, weight)?.narrow(0, 0, rows)
}

fn times(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.track_op() { x.contiguous()?.apply_op2(weight, Times) } else { x.matmul(&weight.t()?) }
}

/// candle's product as a step of a graph. candle's own would also compute the weight's gradient, which is as much work as
/// the input's, and keep it, which is as much memory as the weight.
struct Times;

impl Times {
    /// `[rows, in]` and `[out, in]`, or a batch of both.
    fn on<S: BackendStorage>(&self, x: &S, l1: &Layout, weight: &S, l2: &Layout) -> Result<(S, Shape)> {
        let (a, b) = (l1.dims(), l2.dims());
        let ([batch @ .., rows, width], [batches @ .., out, expected]) = (a, b) else {
            candle_core::bail!("product of {:?} and {:?}", l1.shape(), l2.shape())
        };
        if width != expected || batch != batches {
            candle_core::bail!("product of {:?} and {:?}", l1.shape(), l2.shape())
        }
        let (n, last) = (batch.iter().product(), b.len());
        let product = x.matmul(weight, (n, *rows, *out, *width), l1, &l2.transpose(last - 2, last - 1)?)?;
        Ok((product, Shape::from([batch, &[*rows, *out]].concat())))
    }
}

impl CustomOp2 for Times {
    fn name(&self) -> &'static str {
        "product"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.on(s1, l1, s2, l2)
    }

    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.on(s1, l1, s2, l2)
    }

    fn bwd(&self, _: &Tensor, weight: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (grad, turned) = (grad.contiguous()?, weight.t()?);
        Ok((Some(if weight.rank() == 2 { plain_product(&grad, &turned)? } else { times(&grad, &turned)? }), None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    const SHAPES: [(usize, usize, usize); 4] = [(1, 48, 160), (3, 5, 7), (70, 33, 20), (130, 64, 64)];

    fn random(n: usize, width: usize, dtype: DType) -> Result<Tensor> {
        Tensor::randn(0f32, 1.0, (n, width), &Device::Cpu)?.to_dtype(dtype)
    }

    fn bits(t: &Tensor) -> Result<Vec<Vec<u32>>> {
        let rows = t.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        Ok(rows.iter().map(|row| row.iter().map(|v| v.to_bits()).collect()).collect())
    }

    #[test]
    fn the_product_in_a_graph_equals_the_plain_one_bit_for_bit() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            for (rows, width, out) in SHAPES {
                let (x, weight) = (random(rows, width, dtype)?, Weight::new(&random(out, width, dtype)?)?);
                let tracked = weight.product(Var::from_tensor(&x)?.as_tensor())?;
                assert!(tracked.track_op());
                assert_eq!(bits(&tracked)?, bits(&weight.product(&x)?)?, "{rows} x {width} x {out}");
            }
        }
        Ok(())
    }

    #[test]
    fn packed_weights_give_what_candles_product_does() -> Result<()> {
        for (rows, width, out) in SHAPES {
            let (x, grad) = (random(rows, width, DType::F32)?, random(rows, out, DType::F32)?);
            let tensor = random(out, width, DType::F32)?;
            let weight = Weight::new(&tensor)?;
            let near = |a: Tensor, b: Tensor| {
                Ok::<_, candle_core::Error>((a - b)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-4)
            };
            assert!(near(weight.product(&x)?, x.matmul(&tensor.t()?)?)?);
            assert!(near(weight.product_back(&grad)?, grad.matmul(&tensor)?)?);
            assert_eq!(bits(&weight.tensor()?)?, bits(&tensor)?);
            assert_eq!(weight.dims()?, (out, width));
        }
        Ok(())
    }

    #[test]
    fn a_row_does_not_depend_on_how_many_others_there_are() -> Result<()> {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for (rows, width, out) in SHAPES {
                let (x, weight) = (random(rows, width, dtype)?, Weight::new(&random(out, width, dtype)?)?);
                let alone = (0..rows).map(|r| weight.product(&x.narrow(0, r, 1)?)).collect::<Result<Vec<_>>>()?;
                assert_eq!(bits(&weight.product(&x)?)?, bits(&Tensor::cat(&alone, 0)?)?, "{dtype:?} {rows}");
            }
        }
        Ok(())
    }

    /// Rows in groups of many sizes: some are in none, one is in a group alone.
    fn uneven(rows: usize, groups: usize) -> Vec<usize> {
        (0..rows).map(|row| if row == 3 { groups - 1 } else { row * row % 7 % (groups - 1) }).collect()
    }

    type ByGroup = fn(&Tensor, &Tensor, &Grouped, usize) -> Result<Tensor>;

    #[test]
    fn by_groups_each_row_has_its_part_of_the_whole_product_whatever_way_it_is_made() -> Result<()> {
        let packed: ByGroup = |x, weight, rows, width| {
            let mut groups = vec![0; x.dim(0)?];
            rows.0.iter().for_each(|(group, rows)| rows.iter().for_each(|row| groups[*row as usize] = *group));
            Weight::new(weight)?.product_by_group(x, &groups, width)
        };
        for (rows, inputs, width, of) in [(1, 48, 16, 10), (40, 33, 5, 4), (133, 64, 64, 9), (300, 96, 128, 3)] {
            let (x, weight) = (random(rows, inputs, DType::F32)?, random(of * width, inputs, DType::F32)?);
            let groups = if rows == 1 { vec![2] } else { uneven(rows, of) };
            let columns: Vec<u32> = groups.iter().flat_map(|g| (g * width) as u32..((g + 1) * width) as u32).collect();
            let columns = Tensor::from_vec(columns, (rows, width), &Device::Cpu)?;
            let whole = Weight::new(&weight)?.product(&x)?.gather(&columns, 1)?;
            let upstream = random(rows, width, DType::F32)?;
            // The gradient: what the whole product's is, of the row's own columns alone.
            let spread =
                Tensor::zeros((rows, of * width), DType::F32, &Device::Cpu)?.scatter_add(&columns, &upstream, 1)?;
            let back = Weight::new(&weight)?.product_back(&spread)?;
            for (name, by) in [("packed", packed), ("plain", plain_by_group), ("batched", batched_by_group)] {
                let made = by(&x, &weight, &Grouped::new(&groups), width)?;
                let most = (&made - &whole)?.abs()?.max_all()?.to_scalar::<f32>()?;
                assert!(if name == "packed" { most == 0.0 } else { most < 1e-4 }, "{name} of {rows}: {most}");
                let tracked = Var::from_tensor(&x)?;
                let grads =
                    (by(&tracked, &weight, &Grouped::new(&groups), width)? * &upstream)?.sum_all()?.backward()?;
                let of_x = grads.get(&tracked).expect("a gradient");
                assert!((of_x - &back)?.abs()?.max_all()?.to_scalar::<f32>()? < 1e-4, "back, {name} of {rows}");
                assert!(grads.get(&weight).is_none());
            }
        }
        Ok(())
    }

    #[test]
    fn groups_of_very_different_sizes_are_batched_in_16_bits_too() -> Result<()> {
        let (x, weight) = (random(70, 8, DType::BF16)?, random(4 * 3, 8, DType::BF16)?);
        // One group has nearly all rows: the others are not filled up to it.
        let groups: Vec<usize> = (0..70).map(|row| if row < 60 { 0 } else { row % 4 }).collect();
        let [one, all] = [batched_by_group, plain_by_group].map(|by| by(&x, &weight, &Grouped::new(&groups), 3));
        let most = (one? - all?)?.abs()?.to_dtype(DType::F32)?.max_all()?.to_scalar::<f32>()?;
        assert!(most <= 1.0 / 32.0, "{most}");
        Ok(())
    }

    #[test]
    fn groups_that_do_not_fit_are_an_error() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            let (x, weight) = (random(3, 6, dtype)?, Weight::new(&random(8, 6, dtype)?)?);
            assert!(weight.product_by_group(&x, &[0, 1], 4).is_err(), "a group too few");
            assert!(weight.product_by_group(&x, &[0, 1, 2], 4).is_err(), "a group that is not there");
            assert!(weight.product_by_group(&random(3, 5, dtype)?, &[0, 1, 1], 4).is_err(), "rows too narrow");
            assert_eq!(weight.product_by_group(&random(0, 6, dtype)?, &[], 4)?.dims2()?, (0, 4));
        }
        Ok(())
    }

    #[test]
    fn a_product_that_does_not_fit_is_an_error() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            let weight = Weight::new(&random(8, 6, dtype)?)?;
            assert!(weight.product(&random(3, 5, dtype)?).is_err());
            assert!(weight.product_back(&random(3, 6, dtype)?).is_err());
            assert!(weight.product_of(4..7, &random(3, 3, dtype)?).is_err());
            assert!(weight.rows(&[8]).is_err());
        }
        assert!(Weight::new(&random(8, 6, DType::F32)?)?.product(&random(3, 6, DType::BF16)?).is_err());
        Ok(())
    }

    #[test]
    fn the_gradient_goes_to_the_input_and_not_to_the_weight() -> Result<()> {
        for dtype in [DType::F32, DType::BF16] {
            let x = Var::ones((3, 2), dtype, &Device::Cpu)?;
            let weight = Tensor::ones((4, 2), dtype, &Device::Cpu)?;
            let grads = Weight::new(&weight)?.product(&x)?.sum_all()?.backward()?;
            let of_x = grads.get(&x).map(|g| g.to_dtype(DType::F32)?.to_vec2::<f32>()).transpose()?;
            assert_eq!(of_x, Some(vec![vec![4.0, 4.0]; 3]));
            assert!(grads.get(&weight).is_none());
        }
        Ok(())
    }
}
