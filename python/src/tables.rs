//! Tables.

use crate::errors::failed;
use gatelens::table::{self, Kind};
use numpy::PyArray1;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyList};
use std::path::PathBuf;

/// A table, in memory.
#[pyclass(frozen, module = "gatelens._core")]
pub struct Table(pub table::Table);

#[pymethods]
impl Table {
    #[staticmethod]
    fn read_parquet(path: PathBuf) -> PyResult<Table> {
        table::Table::read_parquet(path).map(Table).map_err(failed)
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    fn __len__(&self) -> usize {
        self.0.rows()
    }

    /// Name, kind and documentation of each column.
    fn columns(&self) -> Vec<(String, String, String)> {
        let one = |c: table::ColumnInfo<'_>| (c.name.to_string(), c.kind.to_string(), c.doc.to_string());
        self.0.columns().map(one).collect()
    }

    /// The cells of a column: an array of float64 (NaN for an empty cell), int64 or bool, or a list of texts.
    fn column<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let kind = self.0.columns().find(|column| column.name == name).map(|column| column.kind);
        let found = match kind {
            Some(Kind::Int) => PyArray1::from_slice(py, self.0.ints(name).map_err(failed)?).into_any(),
            Some(Kind::Flag) => PyArray1::from_slice(py, self.0.flags(name).map_err(failed)?).into_any(),
            Some(Kind::Str) => PyList::new(py, self.0.opt_strs(name).map_err(failed)?)?.into_any(),
            // What is not there is told by the table.
            Some(Kind::Float) | None => {
                let cells = self.0.floats(name).map_err(failed)?;
                PyArray1::from_iter(py, cells.iter().map(|cell| cell.unwrap_or(f64::NAN))).into_any()
            }
        };
        Ok(found)
    }

    fn to_parquet<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.0.to_parquet().map_err(failed)?))
    }

    /// The table in Arrow's C stream interface. A schema that is asked for is passed over, as the protocol allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        PyCapsule::new_with_value(py, self.0.to_arrow().map_err(failed)?, c"arrow_array_stream")
    }
}
