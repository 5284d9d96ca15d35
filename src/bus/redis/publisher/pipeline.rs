//! A pipeline of PUBLISH: written in one go, its answers counted.

use super::queue::{Publication, is_news};
use crate::bus::channel::LONGEST;
use crate::bus::redis::socket::{Cut, Socket};
use crate::bus::redis::wire::{self, Answer, Unexpected};

/// Refusals that concern the connection or its server, not the one publication.
const USELESS: [&str; 4] = ["NOAUTH", "READONLY", "LOADING", "MASTERDOWN"];

/// Sends these and waits for all answers. `confirmed` counts those news that Redis took, also
/// if this is not awaited to its end. Returns the first refusal.
pub(super) async fn publish(
    socket: &mut Socket,
    publications: &[Publication],
    confirmed: &mut u64,
) -> Result<Option<String>, Cut> {
    let commands = |out: &mut _| {
        let mut name = String::with_capacity(LONGEST);
        for (channel, payload) in publications {
            name.clear();
            channel.write_name(&mut name);
            wire::put_publish(out, name.as_bytes(), payload);
        }
    };
    socket.write(commands).await?;
    let mut refusal = None;
    for (channel, _) in publications {
        match socket.answer().await? {
            Answer::Number => *confirmed += u64::from(is_news(channel)),
            Answer::Refused(why) if is_useless(&why) => return Err(Cut::refused(&why)),
            Answer::Refused(why) => refusal = refusal.or(Some(why)),
            _ => return Err(Unexpected.into()),
        }
    }
    socket.is_answered()?;
    Ok(refusal)
}

fn is_useless(refusal: &str) -> bool {
    USELESS.iter().any(|code| refusal.starts_with(code))
}
