//! How a listing is written: two times in milliseconds of eight bytes each, and a word. How many
//! sockets there are is a field of its own, which exists where there were several: the version
//! before does not look at it.

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

/// Names the field for a user's sockets.
pub(super) fn sockets_key(user: UserId) -> Key {
    let mut name = user.as_bytes().to_vec();
    name.push(b'n');
    Key::from(&name[..])
}

/// The fields of a user, if listed.
pub(super) fn fields(
    (user, listing): &(UserId, Option<Listing>),
) -> impl Iterator<Item = (Key, Value)> + use<> {
    let listed = listing.map(|listing| (key(*user), packed(&listing)));
    let several = listing.filter(|listing| listing.sockets > 1);
    let count = |listing: Listing| Value::from(listing.sockets.to_string());
    let several = several.map(|listing| (sockets_key(*user), count(listing)));
    listed.into_iter().chain(several)
}

fn packed(listing: &Listing) -> Value {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend(listing.since.as_millis().to_be_bytes());
    bytes.extend(listing.chosen.at.as_millis().to_be_bytes());
    bytes.extend(listing.chosen.status.as_str().bytes());
    Value::Bytes(bytes.into())
}

/// The number in a value for the sockets of a user who is listed.
pub(super) fn sockets(value: &Value) -> usize {
    let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
    count.unwrap_or(1)
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
        sockets: 1,
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
            sockets: 1,
        };
        let one: Vec<_> = fields(&(ann, Some(there))).collect();
        let [(_, value)] = &one[..] else {
            panic!("a field: {one:?}");
        };
        assert_eq!(listing(value), Some(there));
        let three = Listing {
            sockets: 3,
            ..there
        };
        let several: Vec<_> = fields(&(ann, Some(three))).collect();
        assert_eq!(several[..1], one);
        assert_eq!(several[1].0, sockets_key(ann));
        assert_eq!(user(&several[1].0), None, "no user to the version before");
        assert_eq!(sockets(&several[1].1), 3);
        assert_eq!(sockets(&Value::Null), 1);
        let mut bytes = value.as_bytes().unwrap().to_vec();
        bytes.extend(b"-ish");
        let later = listing(&Value::Bytes(bytes.into())).unwrap();
        assert_eq!(later.chosen.status, ChosenStatus::Online);
        assert_eq!(listing(&Value::Null), None);
        assert_eq!(listing(&Value::Bytes(vec![1; 15].into())), None);
        assert_eq!(fields(&(ann, None)).count(), 0);
    }
}
