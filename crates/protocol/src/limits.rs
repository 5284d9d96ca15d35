//! Every limit of the protocol, in one place, with its reason. What an operator may change is
//! configuration and stands in `docs/OPERATIONS.md` instead.

/// Largest WebSocket frame and message from a client: 16,000 characters of up to four bytes nearly
/// fill it.
pub const FRAME_BYTES: usize = 64 * 1024;
/// Longest message content, in characters (Unicode scalar values).
pub const CONTENT_CHARS: usize = 16_000;
/// Largest `metadata` object, as compact JSON.
pub const METADATA_BYTES: usize = 4 * 1024;
/// Longest `ref` of a request, in bytes.
pub const REF_BYTES: usize = 64;
/// Longest conversation title, in characters.
pub const TITLE_CHARS: usize = 100;
/// Longest conversation description, in characters.
pub const DESCRIPTION_CHARS: usize = 1_000;
/// Longest full name and device name, in characters.
pub const NAME_CHARS: usize = 100;
/// Longest avatar URL, in bytes.
pub const AVATAR_URL_BYTES: usize = 500;
/// Usernames: shortest and longest, in characters of `[a-z0-9_.-]`.
pub const USERNAME_CHARS: std::ops::RangeInclusive<usize> = 3..=32;
/// Longest e-mail address, in bytes (RFC 5321, 4.5.3.1.3).
pub const EMAIL_BYTES: usize = 254;
/// Passwords: fewest characters.
pub const PASSWORD_MIN_CHARS: usize = 10;
/// Passwords: most bytes, so that hashing has a bounded cost.
pub const PASSWORD_MAX_BYTES: usize = 1_024;
/// Sends one socket may have unanswered; beyond it the server stops reading from the socket.
pub const SENDS_IN_FLIGHT: usize = 1_024;
/// Users whose presence one socket may watch.
pub const PRESENCE_WATCH: usize = 200;
/// Large groups one socket may watch.
pub const CONVERSATION_WATCH: usize = 50;
/// Longest emoji of a reaction, in bytes: families of four fit.
pub const EMOJI_BYTES: usize = 32;
/// Different emojis on one message.
pub const EMOJIS_PER_MESSAGE: usize = 50;
/// Users named with each emoji of a message; the others are counted.
pub const REACTION_USERS: usize = 50;
/// People one message mentions; further names are plain text.
pub const MENTIONS_PER_MESSAGE: usize = 50;
/// Marks in one bulk call.
pub const MARKS_PER_CALL: usize = 1_000;
/// A change of membership that names more people than this is told by its `system` message alone,
/// without an event for each of them.
pub const MEMBER_EVENTS: usize = 50;
/// Members named in one call.
pub const MEMBERS_PER_CALL: usize = 1_000;
/// Members of one group.
pub const MEMBERS_PER_GROUP: usize = 10_000;
/// Users asked for by id in one call.
pub const USERS_PER_CALL: usize = 200;
/// Cursors in one `sync`.
pub const CURSORS_PER_SYNC: usize = 10_000;
/// Page sizes of lists and of history: default and largest.
pub const PAGE_DEFAULT: usize = 50;
pub const PAGE_MAX: usize = 200;
/// A conversation further behind than this is reset by `sync` instead of replayed.
pub const REPLAY_PER_CONVERSATION: i64 = 1_000;
/// A `sync` that would replay more entries than this resets what is left over.
pub const REPLAY_TOTAL: i64 = 10_000;
/// Unread counts stop here: the screen says "999+", and counting has a bounded cost.
pub const UNREAD_MAX: i64 = 999;
/// Bad frames within [`BAD_FRAMES_WINDOW_SECONDS`] after which a socket is closed.
pub const BAD_FRAMES_MAX: u32 = 20;
pub const BAD_FRAMES_WINDOW_SECONDS: u64 = 10;
