//! `@username` in a message: whom it mentions.
//!
//! A name begins where no word, address or link goes on (`ann@example.org` and `…/@ann` mention
//! nobody) and is taken as long as it goes. Usernames may end in a dot or a dash, and so do
//! sentences: `@bob.` is whoever is called so, or else `bob`.

use std::collections::{HashMap, HashSet};

use rookery_protocol::{ConversationId, UserId, limits};

use crate::store::{Store, StoreError};

/// Different names looked up for one message: enough for all it may mention, each with some that
/// are nobody's.
const NAMES_MAX: usize = 4 * limits::MENTIONS_PER_MESSAGE;

/// The members that `content` mentions, each once, in the order of their first mention. Nothing is
/// read for content without an `@`.
///
/// # Errors
/// The store does not answer.
pub(super) async fn resolve(
    store: &dyn Store,
    id: ConversationId,
    content: &str,
) -> Result<Vec<UserId>, StoreError> {
    let found = find(content);
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut names: Vec<String> = found.iter().flatten().cloned().collect();
    names.sort_unstable();
    names.dedup();
    let members: HashMap<String, UserId> = store
        .members_by_name(id, &names)
        .await?
        .into_iter()
        .collect();
    let mut seen = HashSet::new();
    let mentioned = found
        .iter()
        .filter_map(|spellings| spellings.iter().find_map(|name| members.get(name)))
        .copied()
        .filter(|user| seen.insert(*user))
        .take(limits::MENTIONS_PER_MESSAGE);
    Ok(mentioned.collect())
}

/// The names behind each `@`, folded: as long as it goes first, then without its last dots and
/// dashes, one after the other.
fn find(content: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut names = 0;
    for (at, _) in content.match_indices('@') {
        let before = content[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || "_-+/@".contains(c)) {
            continue;
        }
        let rest = &content[at + 1..];
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || "_.-".contains(c)))
            .unwrap_or(rest.len());
        // A letter that no username has, or a second `@`: part of something longer.
        let after = rest[end..].chars().next();
        if after.is_some_and(|c| c.is_alphanumeric() || c == '@') {
            continue;
        }
        let spellings = spellings(&rest[..end]);
        if spellings.is_empty() {
            continue;
        }
        names += spellings.len();
        if names > NAMES_MAX {
            break;
        }
        found.push(spellings);
    }
    found
}

fn spellings(text: &str) -> Vec<String> {
    let mut spellings = Vec::new();
    let mut name = text;
    loop {
        if limits::USERNAME_CHARS.contains(&name.len()) {
            spellings.push(name.to_ascii_lowercase());
        }
        match name.strip_suffix(['.', '-']) {
            Some(shorter) => name = shorter,
            None => return spellings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first spelling of each name.
    fn names(content: &str) -> Vec<String> {
        let first = |spellings: Vec<String>| spellings.into_iter().next();
        find(content).into_iter().filter_map(first).collect()
    }

    #[test]
    fn names_begin_at_an_at_sign_and_end_where_no_name_goes_on() {
        assert_eq!(names("@bob"), ["bob"]);
        assert_eq!(names("hi @Bob, and (@ann_1)!"), ["bob", "ann_1"]);
        assert_eq!(names("@ann\n@bob-2 @c.d@"), ["ann", "bob-2"]);
        assert_eq!(names("\u{201e}@ann\u{201c}"), ["ann"]);
    }

    #[test]
    fn the_end_of_a_sentence_is_no_part_of_a_name_unless_it_is() {
        assert_eq!(find("ask @bob."), [["bob.", "bob"]]);
        assert_eq!(find("@bob..."), [["bob...", "bob..", "bob.", "bob"]]);
        assert_eq!(find("@b.o.b"), [["b.o.b"]]);
        assert_eq!(find("@bob's"), [["bob"]]);
        assert_eq!(find("@bo."), [["bo."]]);
    }

    #[test]
    fn addresses_links_and_what_is_no_name_mention_nobody() {
        for content in [
            "",
            "nobody",
            "@",
            "@ bob",
            "@bo",
            "ann@example.org",
            "ann+x@example.org",
            "\u{e9}@bob",
            "@@bob",
            "@bob@example.org",
            "https://example.org/@bob",
            "@b\u{f6}b",
            "@....",
            &format!("@{}", "b".repeat(33)),
        ] {
            let found: Vec<_> = names(content)
                .into_iter()
                .filter(|name| name.chars().any(char::is_alphanumeric))
                .collect();
            assert!(found.is_empty(), "{content}: {found:?}");
        }
    }

    #[test]
    fn a_message_full_of_names_asks_for_so_many() {
        let content: String = (100..1_000)
            .map(|number| format!("@bob{number} "))
            .collect();
        assert_eq!(names(&content).len(), NAMES_MAX);
        let dots = format!("@bob{} @ann", ".".repeat(29));
        assert_eq!(names(&dots).len(), 2);
    }
}
