//! What analyses read: pairs and prompts as token ids with their metric, and which parts of the model are edited.
//!
//! Files, flags and messages on them are here; the metric's tokens are [`super::metric`]'s; what is run is left to the analyses.

use super::answered::item_of;
use super::metric::{MetricArgs, Metrics};
use super::scored::Scored;
use crate::analyses::prelude::*;
use crate::dataset::encode::{At, EncodeError, prompt_ids};
use crate::dataset::shown::Prompt;
use crate::dataset::{Span, read_pairs, read_prompts};
use crate::model::arch::Arch;
use crate::report::cells;
use crate::site::{SiteError, Units};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

/// The bytes of data that an analysis is given, with their name and SHA-256.
///
/// # Errors
/// If they cannot be read.
pub fn read_input(data: impl Into<Data>) -> Result<(Vec<u8>, (String, String)), AnalysisError> {
    let data = data.into();
    let why =
        |e: std::io::Error| AnalysisError::Bad(format!("{}: cannot be read: {e}; check the path", data.display()));
    let bytes = data.read()?.map_err(why)?;
    let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    Ok((bytes, (data.display().to_string(), sha256)))
}

/// Units with the number of the line that names each, and the file that was read, with its SHA-256.
pub type Listed<T> = (Vec<(usize, T)>, (String, String));

/// Units that a file lists, each with the number of its line from 1, and what was read: neurons or heads, with lines, spaces or
/// commas between them. What comes after a `#` is passed over.
///
/// # Errors
/// If the file cannot be read or is no text, or something in it is no such unit.
pub fn listed<T: FromStr<Err = String>>(data: &Data) -> Result<Listed<T>, AnalysisError> {
    let (bytes, source) = read_input(data)?;
    let found = list_in(&bytes).map_err(|why| AnalysisError::Bad(format!("{}: {why}", data.display())))?;
    Ok((found, source))
}

/// The units that a list names, each with the number of its line from 1.
///
/// # Errors
/// A sentence that says why the bytes are no list, with the line.
pub fn list_in<T: FromStr<Err = String>>(bytes: &[u8]) -> Result<Vec<(usize, T)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text".to_string())?;
    let mut found = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let units = line.split('#').next().unwrap_or_default().split([' ', ',', '\t', '\r']);
        for word in units.filter(|word| !word.is_empty()) {
            let unit = word.parse().map_err(|why| format!("line {}: {why}", n + 1))?;
            found.push((n + 1, unit));
        }
    }
    Ok(found)
}

/// The file that lists units, which [`listed`] reads; `about` says what they are.
pub fn list_of<T: std::fmt::Display>(units: &[T], about: &str) -> Vec<u8> {
    let mut text = format!("# {about}\n");
    units.iter().for_each(|unit| text += &format!("{unit}\n"));
    text.into_bytes()
}

parameters! {
    /// Which prompts are asked about
    pub struct PromptArgs {
        /// Read prompts from this file, JSON Lines: {"id", "prompt", "answer"?, "foil"?, "label"?, "group"?, "lang"?, "facts"?}
        prompts: Data, [value_name = "FILE"];

        /// Use only the prompts with this label
        label: Option<String>, [value_name = "LABEL"];
    }
}

impl PromptArgs {
    /// Reads the file and keeps what was asked for.
    ///
    /// # Errors
    /// If the file is not sound, or no prompt has the label.
    pub fn read(&self) -> Result<Dataset<Item>, AnalysisError> {
        let mut dataset = read_prompts(&self.prompts)?;
        let Some(label) = &self.label else { return Ok(dataset) };
        let mut labels: Vec<String> = dataset.items.iter().filter_map(|i| i.label.clone()).collect();
        dataset.items.retain(|item| item.label.as_ref() == Some(label));
        if dataset.items.is_empty() {
            labels.sort();
            labels.dedup();
            let found =
                if labels.is_empty() { "none has one".to_string() } else { format!("there are {}", labels.join(", ")) };
            return Err(AnalysisError::Bad(format!(
                "{}: no prompt has the label `{label}`; {found}",
                self.prompts.display()
            )));
        }
        Ok(dataset)
    }

    /// The prompts as the model reads them.
    ///
    /// # Errors
    /// As [`Self::read`], and if the model cannot read a prompt.
    pub fn encoded(&self, model: &Model) -> Result<Prepared<Prompts>, AnalysisError> {
        Prompts::prepared(model, self.read()?, "prompt")
    }
}

/// Prompts as the model reads them.
pub struct Prompts {
    pub dataset: Dataset<Item>,
    /// The token ids of each.
    pub ids: Vec<Vec<u32>>,
}

impl Prompts {
    /// Prompts of a file, of whose lines they are this field.
    fn prepared(
        model: &Model,
        dataset: Dataset<Item>,
        field: &'static str,
    ) -> Result<Prepared<Prompts>, AnalysisError> {
        let (ids, scored) = encoded_field(model, &dataset, field)?;
        let sources = vec![dataset.source()];
        Ok(Prepared { items: Prompts { dataset, ids }, sources, scored })
    }

    /// A plan of them all, with what is asked of each.
    pub fn plan<T>(&self, mut ask: impl FnMut(&mut Plan, Run) -> T) -> (Plan, Vec<T>) {
        let mut plan = Plan::default();
        let runs = self.dataset.items.iter().zip(&self.ids);
        let asked = runs.map(|(item, ids)| {
            let run = plan.prompt(item.id.clone(), ids.clone());
            ask(&mut plan, run)
        });
        let asked = asked.collect();
        (plan, asked)
    }

    /// Every name of a span, in the order of the file, with where it is in the prompts that have it.
    ///
    /// # Errors
    /// If no prompt has spans, or a span has a position that its prompt has not.
    pub fn spans(&self) -> Result<Vec<Spanned>, AnalysisError> {
        let set = &self.dataset;
        let of = |(item, ids): (&Item, &Vec<u32>)| {
            positions_of(&item.spans, ids.len(), "the prompt", set.at(item.line, &item.id, "spans"))
        };
        let all = set.items.iter().zip(&self.ids).map(of).collect::<Result<Vec<_>, _>>()?;
        spanned(all.iter().map(Vec::as_slice).enumerate(), &set.path, "prompt")
    }
}

parameters! {
    /// Which prompts are asked about, and what is measured
    #[serde(default)]
    pub struct MeasuredArgs {
        ..prompts: PromptArgs;
        ..metric: MetricArgs;
    }
}

/// A dataset's prompts as token ids, each with its metric.
pub type Tokens = Vec<(Vec<u32>, Metric)>;

/// Prompts as the model reads them, with what is measured of each.
#[derive(Clone)]
pub struct MeasuredPrompts {
    pub dataset: Dataset<Item>,
    /// One a prompt.
    pub tokens: Tokens,
}

impl MeasuredArgs {
    /// The prompts as the model reads them. Warns of tokens that stand in for nothing.
    ///
    /// # Errors
    /// As [`PromptArgs::read`] and [`item_tokens`].
    pub fn read(&self, model: &Model) -> Result<Prepared<MeasuredPrompts>, AnalysisError> {
        self.read_warning(model, true)
    }

    /// [`Self::read`]; without a warning where the tokens are for more than the prompts.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_warning(&self, model: &Model, warn: bool) -> Result<Prepared<MeasuredPrompts>, AnalysisError> {
        let dataset = self.prompts.read()?;
        if warn {
            let named = dataset.items.iter().map(|item| [!item.answer.is_empty(), !item.foil.is_empty()]);
            self.metric.warn_unused(&named.collect::<Vec<_>>());
        }
        let metrics = self.metric.open(model)?;
        let tokens = dataset.items.iter().map(|item| item_tokens(model, &dataset, item, &metrics));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let scored = Scored::of_items(model, &dataset, &tokens, &metrics);
        let sources = std::iter::once(dataset.source()).chain(metrics.source).collect();
        Ok(Prepared { items: MeasuredPrompts { dataset, tokens }, sources, scored })
    }
}

/// Files that were read, with their SHA-256.
pub type Sources = Vec<(String, String)>;

parameters! {
    /// Which pairs are asked about
    pub struct PairFile {
        /// Read pairs of prompts from this file, JSON Lines: {"id", "positive", "negative", "answer"?, "foil"?, "group"?, "lang"?, "spans"?}
        pairs: Data, [value_name = "FILE"];

        /// Use at most this many pairs, spread over languages and groups as in the file
        max_pairs: Option<u32>, in 1.., [value_name = "N"];
    }
}

impl PairFile {
    /// Reads the file and keeps what was asked for.
    ///
    /// # Errors
    /// If the file is not sound.
    pub fn read(&self) -> Result<Dataset<Pair>, AnalysisError> {
        let mut dataset = read_pairs(&self.pairs)?;
        self.max_pairs.inspect(|n| spread(&mut dataset.items, *n as usize));
        Ok(dataset)
    }

    /// The positive prompts alone, as the model reads them.
    ///
    /// # Errors
    /// As [`Self::read`], and if the model cannot read a prompt.
    pub fn positive(&self, model: &Model) -> Result<Prepared<Prompts>, AnalysisError> {
        let Dataset { path, sha256, items, warnings } = self.read()?;
        let items = items.iter().map(|pair| item_of(pair, &pair.positive)).collect();
        let dataset = Dataset { path, sha256, items, warnings };
        Prompts::prepared(model, dataset, "positive")
    }
}

impl<D: Into<Data>> From<D> for PromptArgs {
    fn from(prompts: D) -> Self {
        PromptArgs { prompts: prompts.into(), ..PromptArgs::default() }
    }
}

impl<D: Into<Data>> From<D> for MeasuredArgs {
    fn from(prompts: D) -> Self {
        MeasuredArgs { prompts: PromptArgs::from(prompts), ..MeasuredArgs::default() }
    }
}

impl<D: Into<Data>> From<D> for PairFile {
    fn from(pairs: D) -> Self {
        PairFile { pairs: pairs.into(), ..PairFile::default() }
    }
}

impl<D: Into<Data>> From<D> for PairArgs {
    fn from(pairs: D) -> Self {
        PairArgs { file: PairFile::from(pairs), ..PairArgs::default() }
    }
}

parameters! {
    /// Which pairs are asked about, and what is measured
    #[serde(default)]
    pub struct PairArgs {
        ..file: PairFile;
        ..metric: MetricArgs;
    }
}

impl PairArgs {
    /// The pairs as the model reads them.
    ///
    /// # Errors
    /// If the file is not sound, the model cannot read a prompt, or the metric has no tokens.
    pub fn read(&self, model: &Model) -> Result<Prepared<Pairs>, AnalysisError> {
        let dataset = self.file.read()?;
        let named = dataset.items.iter().map(|pair| [!pair.answer.is_empty(), !pair.foil.is_empty()]);
        self.metric.warn_unused(&named.collect::<Vec<_>>());
        let metrics = self.metric.open(model)?;
        let tokens = dataset.items.iter().map(|pair| pair_tokens(model, &dataset, pair, &metrics));
        let tokens = tokens.collect::<Result<Vec<_>, _>>()?;
        let scored = Scored::of_pairs(model, &dataset, &tokens, &metrics);
        let sources = std::iter::once(dataset.source()).chain(metrics.source).collect();
        Ok(Prepared { items: Pairs { dataset, tokens }, sources, scored })
    }
}

/// Keeps `n` items, evenly from each language and group, in their order.
fn spread(items: &mut Vec<Pair>, n: usize) {
    let kept: std::collections::HashSet<usize> = evenly(items, n).into_iter().map(|i| items[i].line).collect();
    items.retain(|item| kept.contains(&item.line));
}

/// The numbers of items language by language, and group by group within each; in their order within a group.
pub fn by_stratum(items: &[Pair]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| (&items[*a].lang, &items[*a].group).cmp(&(&items[*b].lang, &items[*b].group)));
    order
}

/// Which of two halves each item is in: every second one of its language and group, so that both halves hold as much of each.
pub fn halves(items: &[Pair]) -> Vec<usize> {
    let mut halves = vec![0; items.len()];
    by_stratum(items).into_iter().enumerate().for_each(|(rank, i)| halves[i] = rank % 2);
    halves
}

/// The numbers of `n` items, evenly from each language and group, in their order; all where there are no more. Nothing is
/// drawn: the same file gives the same.
pub fn evenly(items: &[Pair], n: usize) -> Vec<usize> {
    let all = items.len();
    if n >= all {
        return (0..all).collect();
    }
    let order = by_stratum(items);
    let mut chosen: Vec<usize> = (0..n).map(|k| order[k * all / n]).collect();
    chosen.sort_unstable();
    chosen
}

/// Pairs as the model reads them.
pub struct Pairs {
    pub dataset: Dataset<Pair>,
    /// One a pair.
    pub tokens: Vec<PairTokens>,
}

impl Pairs {
    /// Groups and languages, one a pair.
    pub fn labels(&self) -> impl Iterator<Item = (Option<&str>, Option<&str>)> {
        self.dataset.items.iter().map(|p| (p.group.as_deref(), p.lang.as_deref()))
    }

    /// Adds a pair's positive and negative prompt to a plan.
    pub fn add(&self, plan: &mut Plan, i: usize) -> [Run; 2] {
        let (pair, tokens) = (&self.dataset.items[i], &self.tokens[i]);
        [
            plan.prompt(format!("{} positive", pair.id), tokens.positive.clone()),
            plan.prompt(format!("{} negative", pair.id), tokens.negative.clone()),
        ]
    }

    /// Every name of a span, in the order of the file, with where it is in the pairs that have it.
    ///
    /// # Errors
    /// If no pair has spans, or the prompts of one that has differ in length.
    pub fn spans(&self) -> Result<Vec<Spanned>, AnalysisError> {
        let having = || self.tokens.iter().enumerate().filter(|(_, tokens)| !tokens.spans.is_empty());
        having().try_for_each(|(i, _)| self.as_long(i))?;
        spanned(having().map(|(i, tokens)| (i, &tokens.spans[..])), &self.dataset.path, "pair")
    }

    /// Refuses a pair with spans whose prompts differ in length: a span is at the same positions in both.
    fn as_long(&self, i: usize) -> Result<(), EncodeError> {
        let (pair, tokens) = (&self.dataset.items[i], &self.tokens[i]);
        let (p, n) = (tokens.positive.len(), tokens.negative.len());
        if p == n {
            return Ok(());
        }
        let why = format!(
            "the positive prompt has {p} tokens and the negative {n}: a span is at the same positions in both, so that both need as \
             many (`gatelens tokens` shows how the model cuts them)"
        );
        Err(self.dataset.at(pair.line, &pair.id, "spans").error(why))
    }
}

/// Named positions of one prompt, in the order of its line, each name with its positions, ascending.
type NamedPositions = Vec<(String, Vec<usize>)>;

/// A name of spans, with where it is.
pub struct Spanned {
    pub name: String,
    /// The positions in each prompt that has it, or in both of a pair, by the number of the prompt or pair.
    pub of: BTreeMap<usize, Positions>,
}

impl Spanned {
    /// The positions in a prompt or pair by its number; none where it lacks the span.
    pub fn at(&self, i: usize) -> Option<&[usize]> {
        match self.of.get(&i) {
            Some(Positions::At(at)) => Some(at),
            _ => None,
        }
    }
}

/// Every name of a span, in the order of the file, with where it is in the items that have it; each is given with its number.
fn spanned<'a>(
    items: impl IntoIterator<Item = (usize, &'a [(String, Vec<usize>)])>,
    path: &Path,
    what: &str,
) -> Result<Vec<Spanned>, AnalysisError> {
    let mut found: Vec<Spanned> = Vec::new();
    for (i, spans) in items {
        for (name, positions) in spans {
            let known = found.iter().position(|spanned| spanned.name == *name);
            let at = known.unwrap_or_else(|| {
                found.push(Spanned { name: name.clone(), of: BTreeMap::new() });
                found.len() - 1
            });
            found[at].of.insert(i, Positions::At(positions.clone()));
        }
    }
    if found.is_empty() {
        let path = path.display();
        let how = "name positions in the file, as in \"spans\": {\"S2\": [9], \"END\": [-1]}";
        return Err(AnalysisError::Bad(format!("{path}: no {what} has \"spans\": {how}")));
    }
    Ok(found)
}

/// The spans of a prompt of so many tokens; `prompt` is what a message calls it.
///
/// # Errors
/// If a span has a position that the prompt has not.
fn positions_of(spans: &[Span], length: usize, prompt: &str, at: At) -> Result<NamedPositions, EncodeError> {
    let of = |span: &Span| match span.of(length) {
        Ok(positions) => Ok((span.name.clone(), positions)),
        Err(n) => Err(at.error(format!("{} has position {n}; {prompt} has {length} tokens", span.name))),
    };
    spans.iter().map(of).collect()
}

/// Leaves each position to the last span that has it: what is taken or counted at a position is so once.
pub fn disjoint(places: &mut Vec<Spanned>) {
    for k in 0..places.len() {
        let (earlier, later) = places.split_at_mut(k + 1);
        let place = &mut earlier[k];
        for (i, positions) in &mut place.of {
            let Positions::At(at) = positions else { continue };
            at.retain(|p| !later.iter().any(|place| place.at(*i).is_some_and(|at| at.contains(p))));
        }
        place.of.retain(|_, positions| *positions != Positions::At(Vec::new()));
    }
    places.retain(|place| !place.of.is_empty());
}

/// What all positions that are in no span are called.
pub const REST: &str = "rest";

/// All positions of prompts of so many tokens that are in none of these places; none where there is no such position.
pub fn rest(places: &[Spanned], lengths: impl Iterator<Item = usize>) -> Option<Spanned> {
    let of = lengths.enumerate().filter_map(|(i, length)| {
        let named = |p: &usize| places.iter().any(|place| place.at(i).is_some_and(|at| at.contains(p)));
        let rest: Vec<usize> = (0..length).filter(|p| !named(p)).collect();
        (!rest.is_empty()).then_some((i, Positions::At(rest)))
    });
    let of: BTreeMap<usize, Positions> = of.collect();
    (!of.is_empty()).then(|| Spanned { name: REST.to_string(), of })
}

/// A pair as token ids.
pub struct PairTokens {
    pub positive: Vec<u32>,
    pub negative: Vec<u32>,
    pub metric: Metric,
    /// Its spans in the order of the line, each with its positions in the positive prompt, ascending.
    pub spans: NamedPositions,
}

/// A pair's prompts as token ids, with its metric.
///
/// # Errors
/// If the model cannot read a prompt, or the metric has no tokens.
pub fn pair_tokens(
    model: &Model,
    dataset: &Dataset<Pair>,
    pair: &Pair,
    metrics: &Metrics,
) -> Result<PairTokens, EncodeError> {
    let at = |field| dataset.at(pair.line, &pair.id, field);
    let positive = prompt_ids(model, &pair.positive, at("positive"))?;
    let length = positive.len();
    Ok(PairTokens {
        spans: positions_of(&pair.spans, length, "the positive prompt", at("spans"))?,
        positive,
        negative: prompt_ids(model, &pair.negative, at("negative"))?,
        metric: metrics.metric(model, pair.into(), at)?,
    })
}

/// A prompt as token ids, with its metric.
///
/// # Errors
/// If the model cannot read the prompt, or the metric has no tokens.
pub fn item_tokens(
    model: &Model,
    dataset: &Dataset<Item>,
    item: &Item,
    metrics: &Metrics,
) -> Result<(Vec<u32>, Metric), EncodeError> {
    let at = |field| dataset.at(item.line, &item.id, field);
    Ok((prompt_ids(model, &item.prompt, at("prompt"))?, metrics.metric(model, item.into(), at)?))
}

/// The prompts of a file as token ids, and what is shown of them. Warns of what is likely a mistake.
///
/// # Errors
/// If the model cannot read a prompt.
pub fn encoded(model: &Model, set: &Dataset<Item>) -> Result<(Vec<Vec<u32>>, Scored), EncodeError> {
    encoded_field(model, set, "prompt")
}

/// [`encoded`] of prompts that are this field of their lines.
fn encoded_field(
    model: &Model,
    set: &Dataset<Item>,
    field: &'static str,
) -> Result<(Vec<Vec<u32>>, Scored), EncodeError> {
    let ids = |item: &Item| prompt_ids(model, &item.prompt, set.at(item.line, &item.id, field));
    let all = set.items.iter().map(ids).collect::<Result<Vec<_>, _>>()?;
    let shown = set.items.iter().zip(&all);
    let shown = shown.map(|(item, ids)| Prompt { input: &item.prompt, ids, id: &item.id, field });
    let scored = Scored::of_prompts(model, &set.path, shown);
    Ok((all, scored))
}

/// Whether a prompt of so many tokens can go on for `more`.
///
/// # Errors
/// What is wrong, if the two exceed the model's context.
pub fn room(arch: &Arch, length: usize, more: usize) -> Result<(), String> {
    if length + more <= arch.n_ctx {
        return Ok(());
    }
    Err(format!("has {length} tokens; with {more} more it is longer than the model's context of {}", arch.n_ctx))
}

/// The position from which tokens of a text are its own, where it goes on after another. 1 at least: the first token of all has
/// nothing before it by which it could be likely.
///
/// # Errors
/// What is wrong, as said of the text that is added: it has no token of its own, or none after another, or the whole is longer than
/// the model's context.
pub fn own_from(model: &Model, before: &[u32], whole: &[u32]) -> Result<usize, String> {
    let same = before.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let bos = model.tokenizer().ok().and_then(|tokenizer| tokenizer.bos());
    // What begins a text is not its own.
    let from = same.max(usize::from(whole.first().is_some_and(|id| Some(*id) == bos)));
    let (n, most) = (whole.len(), model.decoder.arch.n_ctx);
    match from {
        from if from >= n => Err("adds no token of its own".to_string()),
        _ if n > most => Err(format!("makes a text of {n} tokens, more than the model's context of {most}")),
        0 if n == 1 => Err("is one token after nothing".to_string()),
        from => Ok(from.max(1)),
    }
}

/// Which examples belong together: those whose items name one group, in whatever file; any other is by itself.
#[derive(Default)]
pub struct Groups(HashMap<String, usize>);

impl Groups {
    /// The number of an item's group.
    pub fn of(&mut self, set: &Dataset<Item>, item: &Item) -> usize {
        let own = || format!("{}\n{}", set.path.display(), item.id);
        let key = item.group.as_ref().map_or_else(own, |g| format!("group {g}"));
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }
}

/// A part of the model that is edited as one: a head, or a site as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unit {
    pub site: Site,
    /// The head, at sites that come in heads (a KV head at `k`, `v` and `rot_k`).
    pub head: Option<usize>,
}

impl Unit {
    /// All units of a kind of site, layer by layer.
    ///
    /// # Errors
    /// If the model has no such site.
    pub fn all(kind: SiteKind, arch: &Arch) -> Result<Vec<Unit>, AnalysisError> {
        let layers = if kind.in_layers() { arch.n_layers } else { 1 };
        let mut units = Vec::new();
        let checked: Vec<Result<Site, SiteError>> =
            (0..layers).map(|layer| kind.at(layer).named_in(arch).check(arch)).collect();
        // Layers that lack it are passed over where others have it.
        let some = checked.iter().any(Result::is_ok);
        let there = checked.into_iter().filter(|site| !some || site.is_ok());
        let sites: Vec<Site> = there.collect::<Result<_, _>>().map_err(|e| AnalysisError::Bad(e.to_string()))?;
        let in_heads = |site: &Site| !matches!(site.units(arch), Units::Columns { .. });
        // What does not come in heads is not told apart as the rest of the model is.
        let by_head = sites.iter().any(in_heads);
        for site in sites.into_iter().filter(|site| !by_head || in_heads(site)) {
            match site.units(arch) {
                Units::Heads { n, .. } | Units::HeadsByKeys { n } => {
                    units.extend((0..n).map(|head| Unit { site, head: Some(head) }));
                }
                Units::Columns { .. } => units.push(Unit { site, head: None }),
            }
        }
        Ok(units)
    }

    /// What an edit of it concerns.
    pub fn part(self) -> Part {
        self.head.map_or(Part::All, |head| Part::Heads(vec![head]))
    }

    /// The head as tables have it: -1 for a site as a whole.
    pub fn head_number(self) -> i64 {
        self.head.map_or(-1, |head| head as i64)
    }
}

/// The sites that units are of, in their order.
pub fn sites(units: &[Unit]) -> Vec<Site> {
    let mut sites: Vec<Site> = units.iter().map(|u| u.site).collect();
    sites.dedup();
    sites
}

/// The sites of units with the numbers of those units, in their order.
pub fn by_site(units: &[Unit]) -> Vec<(Site, Range<usize>)> {
    let mut found: Vec<(Site, Range<usize>)> = Vec::new();
    for (i, unit) in units.iter().enumerate() {
        match found.last_mut().filter(|(site, _)| *site == unit.site) {
            Some((_, of)) => of.end = i + 1,
            None => found.push((unit.site, i..i + 1)),
        }
    }
    found
}

/// What one prompt's activations at some sites take, for [`super::batches`]: rows of 1,024 numbers. Prompts have `longest`
/// tokens at most.
pub fn rows_read(sites: &[Site], arch: &Arch, position: Position, longest: usize) -> usize {
    let positions = if position == Position::All { longest } else { 1 };
    positions * sites.iter().map(|site| site.width(arch, longest).div_ceil(1024)).sum::<usize>()
}

/// What tables and figures call a unit: `L14.H3`, or a whole site as commands take it, `resid_pre.14`, `final_norm`.
pub fn unit_label(site: &str, layer: i64, head: i64) -> String {
    match site.parse::<SiteKind>() {
        _ if head >= 0 => cells::head(layer, head),
        Ok(kind) => kind.at(usize::try_from(layer).unwrap_or(0)).to_string(),
        Err(_) => format!("{site}.{layer}"),
    }
}

/// What a list names twice, if it does.
pub fn named_twice<T: PartialEq>(list: &[T]) -> Option<&T> {
    list.iter().enumerate().find(|(i, x)| list[..*i].contains(x)).map(|(_, x)| x)
}

/// The layers that a list names: `3`, `0-5,8`; all of them where none is given.
///
/// # Errors
/// If the list is not one, or names a layer that the model has not.
pub fn layer_list(list: Option<&str>, n_layers: usize) -> Result<Vec<usize>, AnalysisError> {
    let Some(list) = list else { return Ok((0..n_layers).collect()) };
    let bad = |word: &str| {
        AnalysisError::Bad(format!(
            "{}: `{word}` is no layer or range of layers of this model; it has 0 to {}; write 3 or 0-5,8",
            param("layers"),
            n_layers - 1
        ))
    };
    let number = |word: &str, text: &str| text.trim().parse().ok().filter(|l| *l < n_layers).ok_or_else(|| bad(word));
    let mut layers = std::collections::BTreeSet::new();
    for word in list.split(',') {
        match word.split_once('-') {
            None => drop(layers.insert(number(word, word)?)),
            Some((first, last)) => {
                let (first, last): (usize, usize) = (number(word, first)?, number(word, last)?);
                if first > last {
                    return Err(bad(word));
                }
                layers.extend(first..=last);
            }
        }
    }
    Ok(layers.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Input;

    #[test]
    fn halves_are_even_within_languages_and_groups_and_over_all() {
        let lines = ["en a", "en b", "en a", "de a", "en b", "de a", "de a"];
        let pair = |(line, of): (usize, &&str)| Pair {
            id: line.to_string(),
            line,
            lang: of.split(' ').next().map(str::to_string),
            group: of.split(' ').nth(1).map(str::to_string),
            positive: Input::text("+"),
            negative: Input::text("-"),
            answer: Vec::new(),
            foil: Vec::new(),
            spans: Vec::new(),
        };
        let items: Vec<Pair> = lines.iter().enumerate().map(pair).collect();
        // By language and group: 3, 5, 6 (de a), 0, 2 (en a), 1, 4 (en b).
        assert_eq!(halves(&items), [1, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn units_are_called_what_commands_take() {
        assert_eq!(unit_label("z", 14, 3), "L14.H3");
        assert_eq!(unit_label("resid_pre", 14, -1), "resid_pre.14");
        assert_eq!(["embed", "final_norm", "logits"].map(|s| unit_label(s, 0, -1)), ["embed", "final_norm", "logits"]);
    }

    #[test]
    fn lists_of_layers_are_read_in_order_and_once() {
        let layers = |list| layer_list(Some(list), 10).ok();
        assert_eq!(layers("8,0-2,1"), Some(vec![0, 1, 2, 8]));
        assert_eq!(layer_list(None, 3).ok(), Some(vec![0, 1, 2]));
        for wrong in ["", "10", "3-1", "a", "1-", "-1", "1,,2"] {
            assert!(layers(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_position_is_that_of_the_last_span_that_has_it() {
        let span = |name: &str, of: &[(usize, &[usize])]| Spanned {
            name: name.to_string(),
            of: of.iter().map(|(i, at)| (*i, Positions::At(at.to_vec()))).collect(),
        };
        let mut places = vec![
            span("NOUN", &[(0, &[2, 6]), (1, &[6])]),
            span("SAME", &[(0, &[4])]),
            span("END", &[(0, &[6, 4]), (1, &[6])]),
        ];
        disjoint(&mut places);
        let left: Vec<_> = places.iter().map(|place| (place.name.as_str(), place.of.clone())).collect();
        let at = |of: &[(usize, &[usize])]| span("", of).of;
        assert_eq!(left, [("NOUN", at(&[(0, &[2])])), ("END", at(&[(0, &[6, 4]), (1, &[6])]))]);
    }
}
