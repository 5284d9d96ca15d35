//! The connection that stays up, against a scripted server: what it says and when.

#![expect(clippy::unwrap_used, reason = "a test")]

mod live {
    mod scripted;

    mod application;
    mod coming_back;
    mod cursors;
    mod marks;
    mod sending;
    mod tokens;
}
