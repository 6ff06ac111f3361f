//! Tensors in safetensors files, by their names.

use crate::errors::{failed, input};
use numpy::{PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floating-point tensors of a file as float32 arrays, the whole ones as int64.
#[pyfunction]
pub fn read_tensors<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyDict>> {
    let bytes = std::fs::read(&path).map_err(|e| input(format!("{}: cannot be read: {e}", path.display())))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| input(format!("{}: is no safetensors file: {e}", path.display())))?;
    let found = PyDict::new(py);
    for (name, tensor) in file.tensors() {
        found.set_item(&name, to_array(py, &tensor).ok_or_else(|| unfit(&path, &name, tensor.dtype()))??)?;
    }
    Ok(found)
}

fn unfit(path: &Path, name: &str, dtype: Dtype) -> PyErr {
    input(format!(
        "{}: `{name}`: tensors of type {dtype:?} are not read; there are F32, F16, BF16 and I64",
        path.display()
    ))
}

fn to_array<'py>(py: Python<'py>, tensor: &TensorView<'_>) -> Option<PyResult<Bound<'py, PyAny>>> {
    let (data, shape) = (tensor.data(), tensor.shape().to_vec());
    let halves = || data.as_chunks::<2>().0.iter();
    let floats: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => halves().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => halves().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::I64 => {
            let whole: Vec<i64> = data.as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect();
            return Some(numpy::PyArray1::from_vec(py, whole).reshape(shape).map(Bound::into_any));
        }
        _ => return None,
    };
    Some(numpy::PyArray1::from_vec(py, floats).reshape(shape).map(Bound::into_any))
}

/// Float32 arrays as the bytes of a safetensors file.
#[pyfunction]
pub fn tensor_bytes<'py>(
    py: Python<'py>,
    tensors: BTreeMap<String, Bound<'py, PyArrayDyn<f32>>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let own = tensors.iter().map(|(name, array)| {
        let array: PyReadonlyArrayDyn<'_, f32> = array.readonly();
        let data: Vec<u8> = array.as_array().iter().flat_map(|x| x.to_le_bytes()).collect();
        (name.clone(), array.shape().to_vec(), data)
    });
    let own: Vec<(String, Vec<usize>, Vec<u8>)> = own.collect();
    let views = own.iter().map(|(name, shape, data)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), data)?)));
    let views = views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>().map_err(failed)?;
    Ok(PyBytes::new(py, &serialize(views, None).map_err(failed)?))
}
