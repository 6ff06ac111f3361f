//! Groups of columns that the tables of several analyses have: the item that a row is of, and the unit.

use super::inputs::Unit;
use super::summary::Swap;
use crate::analyses::prelude::*;

rows! {
    /// The pair that a row is of.
    #[derive(Copy)]
    pub struct OfPair<'a> {
        id: &'a str = "the pair",
        group: Option<&'a str> = "the pair's group",
        lang: Option<&'a str> = "the pair's language",
    }

    /// The prompt that a row is of.
    #[derive(Copy)]
    pub struct OfPrompt<'a> {
        id: &'a str = "the prompt",
        group: Option<&'a str> = "the prompt's group",
        lang: Option<&'a str> = "the prompt's language",
    }

    /// The prompt that a row is of, with its label.
    #[derive(Copy)]
    pub struct OfItem<'a> {
        id: &'a str = "the prompt",
        label: Option<&'a str> = "the prompt's label",
        group: Option<&'a str> = "the prompt's group",
        lang: Option<&'a str> = "the prompt's language",
    }

    /// The unit that a row is of.
    #[derive(Copy)]
    pub struct OfUnit {
        layer: i64 = "layer, from 0",
        head: i64 = "head, from 0; -1 for a site as a whole",
    }

    /// The halves of one item's effect, after the column `effect`.
    #[derive(Copy)]
    pub struct EffectHalves {
        answer_effect: Option<f64> = "the same of logsumexp(answer logits) less the mean logit, nats",
        foil_effect: Option<f64> = "the same of the foil: answer_effect less this is effect",
    }
}

impl<'a> From<&'a Pair> for OfPair<'a> {
    fn from(pair: &'a Pair) -> Self {
        OfPair { id: &pair.id, group: pair.group.as_deref(), lang: pair.lang.as_deref() }
    }
}

impl<'a> From<&'a Item> for OfPrompt<'a> {
    fn from(item: &'a Item) -> Self {
        OfPrompt { id: &item.id, group: item.group.as_deref(), lang: item.lang.as_deref() }
    }
}

impl<'a> From<&'a Item> for OfItem<'a> {
    fn from(item: &'a Item) -> Self {
        let OfPrompt { id, group, lang } = item.into();
        OfItem { id, label: item.label.as_deref(), group, lang }
    }
}

impl From<Unit> for OfUnit {
    fn from(unit: Unit) -> Self {
        OfUnit { layer: unit.site.layer as i64, head: unit.head_number() }
    }
}

impl From<&Swap> for EffectHalves {
    fn from(swap: &Swap) -> Self {
        EffectHalves { answer_effect: swap.answer, foil_effect: swap.foil() }
    }
}
