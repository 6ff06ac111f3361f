//! The suite of "How Alignment Routes" (2026): what it finds in a model that refuses, analysis by analysis, and the paper's
//! claims with what the tables say about each.
//!
//! [`screen`] finds the gate and [`cascade`] what depends on it; [`three_methods`] holds three ways of finding heads against
//! each other. [`commitment`] and [`modulate`] follow the detected signal over the layers, [`cipher`] and [`cipher_contrast`]
//! hide it. [`claims`] judges. What does not belong to this paper alone stands beside this folder.

pub mod cascade;
pub mod cipher;
pub mod cipher_contrast;
pub mod ciphered;
pub mod claims;
pub mod commitment;
pub mod gate;
pub mod modulate;
pub mod screen;
pub mod three_methods;
