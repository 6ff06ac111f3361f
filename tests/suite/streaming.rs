//! Weights that do not fit in memory give the same results as weights that do.

use crate::support::{FAMILIES, Golden, family_dir, open};
use gatelens::model::{Model, Options as ModelOptions};
use gatelens::plan::{Change, Edit, Metric, Part, Plan, Positions, What};
use gatelens::run::{Options, run};
use gatelens::site::SiteKind;

#[test]
fn streamed_weights_give_the_same_readings_bit_for_bit_in_every_family() {
    for family in FAMILIES {
        let (resident, golden) = (open(family), Golden::of(family));
        let dir = family_dir(family);
        let options = ModelOptions { max_memory: Some(1000), ..ModelOptions::default() };
        let streamed = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
        assert!(streamed.decoder.streamed() && !resident.decoder.streamed());
        let mut plan = Plan::default();
        let prompt = plan.prompt("p", golden.ids("input_ids", 0));
        let donor = plan.prompt("d", golden.ids("donor_ids", 0));
        let logits = What::Activation { site: SiteKind::Logits.at(0), positions: Positions::All, part: Part::All };
        plan.read(prompt, logits);
        for (layer, head) in resident.heads() {
            let change = Change::interchange(donor);
            let (site, part) = (SiteKind::Z.at(layer), Part::Heads(vec![head]));
            let fork = plan.fork(prompt, vec![Edit { site, part, positions: Positions::Last, change }]);
            plan.read(fork, What::Metric(Metric::logit_difference(vec![11], vec![23])));
            plan.read(fork, What::KlFrom(prompt));
        }
        let readings = |model: &Model| run(&model.decoder, &plan, &Options::default()).expect("readings");
        assert_eq!(readings(&resident), readings(&streamed), "{family}");
    }
}

#[test]
fn a_model_that_fits_the_limit_is_not_streamed() {
    let dir = family_dir("llama");
    let options = ModelOptions { max_memory: Some(1 << 30), ..ModelOptions::default() };
    let model = Model::open(dir.to_str().expect("UTF-8"), &options).expect("a sound model");
    assert!(!model.decoder.streamed());
}
