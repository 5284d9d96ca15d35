//! What a node answers to input that is wrong, odd or hostile: a code from the table, the field
//! concerned, and nobody else notices. Frames that are broken as such are in `frames.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "bad_input_cases/changes.rs"]
mod changes;
#[path = "bad_input_cases/commands.rs"]
mod commands;
#[path = "bad_input_cases/formats.rs"]
mod formats;
#[path = "bad_input_cases/rates.rs"]
mod rates;
#[path = "bad_input_cases/rest.rs"]
mod rest;
#[path = "bad_input_cases/stage.rs"]
mod stage;
#[path = "bad_input_cases/tokens.rs"]
mod tokens;
