//! Models, and prompts as they read them.

use crate::errors::{input, model};
use crate::logs;
use gatelens::cli::{ModelArgs, Output};
use gatelens::dataset::encode::{prompt_ids, token_ids};
use gatelens::dataset::shown::{Prompt, Shown};
use gatelens::dataset::{Data, TokenRef, read_pairs, read_prompts};
use gatelens::model;
use gatelens::site::{KINDS, Site, Units, parse_sites};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A model that stays loaded; cloned for nothing.
#[pyclass(frozen, module = "gatelens._core")]
pub struct Model(pub Arc<model::Model>);

/// Opens a model, as the command's flags of these names do.
#[pyfunction]
#[pyo3(signature = (name, device, dtype, max_memory, threads, portable, ignore_config_key, date, template_vars))]
#[allow(clippy::too_many_arguments)]
pub fn open_model(
    py: Python<'_>,
    name: String,
    device: Option<String>,
    dtype: Option<String>,
    max_memory: Option<u64>,
    threads: Option<u16>,
    portable: bool,
    ignore_config_key: Vec<String>,
    date: Option<String>,
    template_vars: &str,
) -> PyResult<Model> {
    logs::start();
    let date = date.map(|date| date.parse().map_err(|e| input(format!("`date`: {e}")))).transpose()?;
    let vars: Map<String, Value> =
        serde_json::from_str(template_vars).map_err(|e| input(format!("`template_vars`: {e}")))?;
    let template_var = vars.into_iter().collect();
    // What a user should know is told through `logging`.
    let output = Output { quiet: true, json: false };
    let args = ModelArgs {
        model: name,
        device,
        dtype,
        max_memory,
        threads,
        portable,
        ignore_config_key,
        date,
        template_var,
        output,
    };
    py.detach(|| args.open()).map(|opened| Model(Arc::new(opened))).map_err(model)
}

#[pymethods]
impl Model {
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// What is known of it, as JSON.
    fn about(&self) -> String {
        let arch = &self.0.decoder.arch;
        let sites = KINDS.iter().filter(|(kind, _)| (0..arch.n_layers).any(|l| kind.at(l).check(arch).is_ok()));
        json!({
            "architecture": arch.family.name(),
            "n_layers": arch.n_layers,
            "n_heads": arch.n_heads,
            "n_kv_heads": arch.n_kv_heads,
            "d_model": arch.d_model,
            "d_head": arch.d_head,
            "d_mlp": arch.d_mlp,
            "vocab": arch.vocab,
            "n_ctx": arch.n_ctx,
            "parameters": self.0.decoder.parameters,
            "dtype": self.0.decoder.dtype.as_str(),
            "sha256": self.0.sha256,
            "stop_tokens": self.0.stop_tokens(),
            "sites": sites.map(|(_, name)| *name).collect::<Vec<_>>(),
            "heads": self.0.heads().collect::<Vec<_>>(),
            "has_template": self.0.tokenizer().is_ok_and(|t| t.template().is_ok_and(|t| t.is_some())),
        })
        .to_string()
    }

    fn warnings(&self) -> Vec<String> {
        self.0.warnings.clone()
    }

    /// The token ids of prompts, each a line of a prompts file.
    fn encode(&self, py: Python<'_>, lines: Vec<u8>) -> PyResult<Vec<Vec<u32>>> {
        py.detach(|| {
            let dataset = read_prompts(Data::in_memory("prompts.jsonl", lines)).map_err(input)?;
            let ids = dataset.items.iter().map(|item| {
                let at = dataset.at(item.line, &item.id, "prompt");
                prompt_ids(&self.0, &item.prompt, at).map_err(input)
            });
            let ids = ids.collect::<PyResult<Vec<_>>>()?;
            let prompts = dataset.items.iter().zip(&ids);
            let prompts = prompts.map(|(item, ids)| Prompt { input: &item.prompt, ids, id: &item.id, field: "prompt" });
            Shown::of(&self.0, &dataset.path, prompts);
            Ok(ids)
        })
    }

    /// The ids of answer tokens: of a text its first token.
    fn answer_ids(&self, tokens: Vec<Token>) -> PyResult<Vec<u32>> {
        let tokens: Vec<TokenRef> = tokens.into_iter().map(Into::into).collect();
        token_ids(&self.0, &tokens).map_err(input)
    }

    #[pyo3(signature = (ids, skip_special=false))]
    fn decode(&self, ids: Vec<u32>, skip_special: bool) -> PyResult<String> {
        self.0.tokenizer().map_err(model)?.decode(&ids, skip_special).map_err(input)
    }

    fn decode_generated(&self, ids: Vec<u32>) -> PyResult<String> {
        self.0.tokenizer().map_err(model)?.decode_generated(&ids).map_err(input)
    }

    /// The text of each token.
    fn pieces(&self, ids: Vec<u32>) -> PyResult<Vec<String>> {
        let named = self.0.tokenizer().map_err(model)?.named(&ids);
        Ok(named.into_iter().map(|token| token.text).collect())
    }

    /// How a site's rows divide: into so many heads of so many numbers, 0 where a head has a number a key; or into none.
    fn heads_of(&self, site: &str) -> PyResult<Option<(usize, usize)>> {
        let found = parse_sites(site, &self.0.decoder.arch).map_err(input)?;
        Ok(found.first().and_then(|site| match site.units(&self.0.decoder.arch) {
            Units::Heads { n, width } => Some((n, width)),
            Units::HeadsByKeys { n } => Some((n, 0)),
            Units::Columns { .. } => None,
        }))
    }

    /// Sites of a list, as the command's `--sites` reads it.
    fn sites(&self, list: &str) -> PyResult<Vec<String>> {
        let mut sites: Vec<Site> = parse_sites(list, &self.0.decoder.arch).map_err(input)?;
        sites.sort();
        sites.dedup();
        Ok(sites.into_iter().map(|site| site.to_string()).collect())
    }
}

/// A token as users give it.
#[derive(FromPyObject)]
pub enum Token {
    Id(u32),
    Text(String),
}

impl From<Token> for TokenRef {
    fn from(token: Token) -> TokenRef {
        match token {
            Token::Id(id) => TokenRef::Id(id),
            Token::Text(text) => TokenRef::Text(text),
        }
    }
}

/// The bytes of a file of pairs or prompts, once it was checked. A name may be one of the built-in ones, `demo:pairs.jsonl`.
#[pyfunction]
pub fn read_input<'py>(py: Python<'py>, path: String, pairs: bool) -> PyResult<Bound<'py, PyBytes>> {
    logs::start();
    let data = Data::from(path.as_str());
    let checked = if pairs { read_pairs(&data).map(drop) } else { read_prompts(&data).map(drop) };
    checked.map_err(input)?;
    let bytes = data.read().map_err(input)?.map_err(|e| input(format!("{path}: cannot be read: {e}")))?;
    Ok(PyBytes::new(py, &bytes))
}
