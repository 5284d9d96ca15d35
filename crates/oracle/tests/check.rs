//! The checker itself: each verdict on a history made by hand, and all of them on histories of a
//! random model that keeps every promise until one is broken on purpose.

#[path = "check/model.rs"]
mod model;
#[path = "check/mutations.rs"]
mod mutations;
#[path = "check/owed.rs"]
mod owed;
#[path = "check/people.rs"]
mod people;
#[path = "check/reading.rs"]
mod reading;
#[path = "check/story.rs"]
mod story;
#[path = "check/verdicts.rs"]
mod verdicts;
