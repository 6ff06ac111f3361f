//! Which device holds what of a model.
//!
//! A model on several devices is cut between layers: each device holds consecutive ones, the first the embedding too, the
//! last the final norm and the unembedding. What a pass carries crosses where the next layer is elsewhere, once for all
//! its rows.

use candle_core::{Device, Result, Tensor};
use std::ops::Range;

/// The devices of a model, and which layers each holds.
#[derive(Clone, Debug)]
pub struct Places {
    devices: Vec<Device>,
    /// One a device, one after another.
    layers: Vec<Range<usize>>,
}

/// What the parts of a model take, in any one unit.
#[derive(Clone, Copy, Debug)]
pub struct Weight {
    /// The embedding, with positions that are learned.
    pub first: u64,
    /// A layer, on average.
    pub layer: u64,
    /// The unembedding.
    pub last: u64,
}

impl Places {
    /// `n_layers` layers over devices, in their order, so that each holds about as much; all on the CPU if there are none.
    pub fn split(devices: &[Device], n_layers: usize, weight: Weight) -> Places {
        let devices = if devices.is_empty() { vec![Device::Cpu] } else { devices.to_vec() };
        let whole = u128::from(weight.first) + u128::from(weight.last) + u128::from(weight.layer) * n_layers as u128;
        let n = devices.len() as u128;
        let (first, layer) = (u128::from(weight.first) * n, u128::from(weight.layer) * n);
        let mut layers = Vec::new();
        let mut from = 0;
        for i in 1..=devices.len() {
            // What the layers of the first `i` devices take, to the nearest whole layer.
            let filled = (whole * i as u128).saturating_sub(first);
            let end = if i == devices.len() { n_layers } else { ((filled + layer / 2) / layer.max(1)) as usize };
            let end = end.clamp(from, n_layers);
            layers.push(from..end);
            from = end;
        }
        Places { devices, layers }
    }

    /// Which of the devices holds a layer: its index.
    pub fn index(&self, layer: usize) -> usize {
        self.layers.iter().position(|l| l.contains(&layer)).unwrap_or(self.devices.len() - 1)
    }

    /// The device that holds a layer.
    pub fn layer(&self, layer: usize) -> &Device {
        &self.devices[self.index(layer)]
    }

    /// The device that holds the embedding.
    pub fn first(&self) -> &Device {
        &self.devices[0]
    }

    /// The device that holds the final norm and the unembedding.
    pub fn last(&self) -> &Device {
        &self.devices[self.devices.len() - 1]
    }

    /// The devices with their layers.
    pub fn iter(&self) -> impl Iterator<Item = (&Device, &Range<usize>)> {
        self.devices.iter().zip(&self.layers)
    }
}

/// A tensor on a device, copied if it is on another one.
///
/// # Errors
/// If a device fails.
pub fn moved(x: &Tensor, to: &Device) -> Result<Tensor> {
    if x.device().same_device(to) {
        return Ok(x.clone());
    }
    // Neither GPU waits for the other's queue: the copy must not begin before the tensor is there, nor the tensor go before
    // the copy is done.
    x.device().synchronize()?;
    let y = x.to_device(to)?;
    to.synchronize()?;
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(n: usize, n_layers: usize, weight: [u64; 3]) -> Vec<Range<usize>> {
        let [first, layer, last] = weight;
        let places = Places::split(&vec![Device::Cpu; n], n_layers, Weight { first, layer, last });
        places.layers
    }

    #[test]
    fn devices_hold_about_as_much_and_all_layers_once() {
        assert_eq!(split(1, 5, [3, 10, 3]), [0..5]);
        assert_eq!(split(2, 8, [0, 10, 0]), [0..4, 4..8]);
        assert_eq!(split(3, 8, [0, 10, 0]), [0..3, 3..5, 5..8]);
        // An embedding as large as two layers, and none behind.
        assert_eq!(split(2, 8, [20, 10, 0]), [0..3, 3..8]);
        assert_eq!(split(2, 8, [20, 10, 20]), [0..4, 4..8]);
    }

    #[test]
    fn more_devices_than_layers_and_ends_larger_than_all_layers_are_no_trouble() {
        assert_eq!(split(4, 2, [0, 10, 0]), [0..1, 1..1, 1..2, 2..2]);
        assert_eq!(split(2, 3, [1000, 1, 0]), [0..0, 0..3]);
        assert_eq!(split(2, 3, [0, 1, 1000]), [0..3, 3..3]);
        assert_eq!(split(0, 3, [0, 1, 0]), [0..3]);
        assert_eq!(split(3, 0, [1, 0, 1]), [0..0, 0..0, 0..0]);
    }

    #[test]
    fn a_layer_is_on_the_device_whose_range_holds_it() {
        let places = Places::split(&[Device::Cpu, Device::Cpu, Device::Cpu], 8, Weight { first: 0, layer: 1, last: 0 });
        assert_eq!((0..8).map(|l| places.index(l)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 2, 2, 2]);
    }
}
