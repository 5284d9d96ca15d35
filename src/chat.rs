//! Stage 3: the rules. What people may do, whichever way they ask: socket or REST.
//!
//! In: commands of an authenticated somebody, decoded and bounded. Out: what was stored, as its
//! sender is to see it, or a refusal. Store first, then publish: a change is told to others, through
//! [`fanout`], only after the store has committed it, and a lost telling loses nothing.
//!
//! What does not exist and what is not yours look the same here (`NOT_FOUND`).

pub mod accounts;
mod answers;
mod changes;
pub mod conversations;
pub mod fanout;
mod groups;
mod mentions;
pub mod messages;
pub mod presence;
pub mod receipts;
mod settings;
