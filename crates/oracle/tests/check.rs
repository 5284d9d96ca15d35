//! The checker itself: each verdict on a history made by hand.

#[path = "check/owed.rs"]
mod owed;
#[path = "check/reading.rs"]
mod reading;
#[path = "check/story.rs"]
mod story;
#[path = "check/verdicts.rs"]
mod verdicts;
