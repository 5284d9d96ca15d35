//! How a listing is written: two times in milliseconds of eight bytes each, and a word.

use fred::types::{Key, Value};
use rookery_protocol::user::ChosenStatus;
use rookery_protocol::{Timestamp, UserId};
use uuid::Uuid;

use crate::presence::Listing;
use crate::store::Chosen;

pub(super) fn key(user: UserId) -> Key {
    Key::from(&user.as_bytes()[..])
}

pub(super) fn user(key: &Key) -> Option<UserId> {
    let uuid = Uuid::from_slice(key.as_bytes()).ok()?;
    Some(UserId::from_uuid(uuid))
}

/// The field of a user who is listed.
pub(super) fn field((user, listing): &(UserId, Option<Listing>)) -> Option<(Key, Value)> {
    let listing = listing.as_ref()?;
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(listing.since.as_millis().to_be_bytes());
    bytes.extend(listing.chosen.at.as_millis().to_be_bytes());
    bytes.extend(listing.chosen.status.as_str().bytes());
    Some((key(*user), Value::Bytes(bytes.into())))
}

/// The listing in a value. A status of a later release shows its user as online.
pub(super) fn listing(value: &Value) -> Option<Listing> {
    let bytes = value.as_bytes()?;
    let (since, rest) = bytes.split_first_chunk()?;
    let (at, word) = rest.split_first_chunk()?;
    let status = std::str::from_utf8(word).ok().and_then(ChosenStatus::parse);
    Some(Listing {
        since: Timestamp::from_millis(i64::from_be_bytes(*since)),
        chosen: Chosen {
            status: status.unwrap_or_default(),
            at: Timestamp::from_millis(i64::from_be_bytes(*at)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_come_back_and_later_words_are_online() {
        let ann = UserId::from_uuid(Uuid::from_u128(7));
        assert_eq!(user(&key(ann)), Some(ann));
        let there = Listing {
            since: Timestamp::from_millis(1_700_000_000_001),
            chosen: Chosen {
                status: ChosenStatus::Invisible,
                at: Timestamp::from_millis(3),
            },
        };
        let (_, value) = field(&(ann, Some(there))).unwrap();
        assert_eq!(listing(&value), Some(there));
        let mut bytes = value.as_bytes().unwrap().to_vec();
        bytes.extend(b"-ish");
        let later = listing(&Value::Bytes(bytes.into())).unwrap();
        assert_eq!(later.chosen.status, ChosenStatus::Online);
        assert_eq!(listing(&Value::Null), None);
        assert_eq!(listing(&Value::Bytes(vec![1; 15].into())), None);
        assert!(field(&(ann, None)).is_none());
    }
}
