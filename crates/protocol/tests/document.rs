//! `docs/PROTOCOL.md` says what the code says.

use std::collections::BTreeSet;

use rookery_protocol::command::ClientCommand;
use rookery_protocol::event::ServerEvent;
use rookery_protocol::{CloseCode, ErrorCode, limits};

const DOCUMENT: &str = include_str!("../../../docs/PROTOCOL.md");

/// The table rows below a heading, cell by cell.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let section = DOCUMENT.split(&format!("# {heading}\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("there is no section {heading}"));
    let section = section.split("\n#").next().unwrap_or(section);
    let cells = |line: &str| {
        let inner = line.trim_matches('|');
        inner
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let table = section.lines().filter(|line| line.starts_with('|'));
    table.skip(2).map(cells).collect()
}

/// The names in backticks of the first column.
fn names(heading: &str) -> BTreeSet<String> {
    rows(heading)
        .iter()
        .map(|row| row[0].trim_matches('`').to_owned())
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn every_command_and_event_is_described_and_none_else() {
    assert_eq!(names("From the client"), set(ClientCommand::TYPES));
    assert_eq!(names("From the server"), set(ServerEvent::TYPES));
}

#[test]
fn every_error_code_stands_there_with_its_status() {
    let rows = rows("Error codes");
    assert_eq!(rows.len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        let name = format!("`{}`", code.as_str());
        let row = rows
            .iter()
            .find(|row| row[0] == name)
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(row[1], code.http_status().to_string(), "{name}");
        assert_eq!(row[2].contains("retryable"), code.is_retryable(), "{name}");
    }
}

#[test]
fn every_close_code_stands_there() {
    let documented: BTreeSet<String> = rows("Close codes").iter().map(|r| r[0].clone()).collect();
    let ours = CloseCode::ALL
        .iter()
        .map(|code| code.code().to_string())
        .collect();
    assert_eq!(documented, ours);
}

#[test]
fn limits_are_those_of_the_code() {
    let rows = rows("Limits");
    let has = |name: &str, number: usize| {
        let row = rows
            .iter()
            .find(|row| row[0] == name)
            .unwrap_or_else(|| panic!("{name}"));
        let words = row[1].split(|c: char| !c.is_ascii_digit());
        assert!(
            words.into_iter().any(|word| word == number.to_string()),
            "{row:?}: {number}"
        );
    };
    has("frame and message", limits::FRAME_BYTES);
    has("content", limits::CONTENT_CHARS);
    has("metadata", limits::METADATA_BYTES);
    has("ref", limits::REF_BYTES);
    has("sends in flight", limits::SENDS_IN_FLIGHT);
    has("title", limits::TITLE_CHARS);
    has("description", limits::DESCRIPTION_CHARS);
    has("full name, device name", limits::NAME_CHARS);
    has("avatar", limits::AVATAR_URL_BYTES);
    has("password", limits::PASSWORD_MAX_BYTES);
    has("emoji of a reaction", limits::EMOJI_BYTES);
    has("emojis on one message", limits::EMOJIS_PER_MESSAGE);
    has("mentions in one message", limits::MENTIONS_PER_MESSAGE);
    has("users watched", limits::PRESENCE_WATCH);
    has("large groups watched", limits::CONVERSATION_WATCH);
    has("marks in one call", limits::MARKS_PER_CALL);
    has("members in one call", limits::MEMBERS_PER_CALL);
    has("members of a group", limits::MEMBERS_PER_GROUP);
    has("users in one call", limits::USERS_PER_CALL);
    has("cursors in one `sync`", limits::CURSORS_PER_SYNC);
    has("page of a list or of history", limits::PAGE_MAX);
    has("unread count", usize::try_from(limits::UNREAD_MAX).unwrap());
}
