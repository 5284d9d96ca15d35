//! The sentences of `system` entries, for clients that do not make their own from the `metadata`.

use rookery_protocol::conversation::MemberRole;

/// `ann created the group "Team"`.
pub(in crate::chat) fn created(actor: &str, title: Option<&str>) -> String {
    match title {
        Some(title) => format!("{actor} created the group \"{title}\""),
        None => format!("{actor} created the group"),
    }
}

/// `ann renamed the group to "Team"`; `None` for what stays, `Some(None)` for what is cleared.
pub(super) fn updated(
    actor: &str,
    title: Option<Option<&str>>,
    description: Option<Option<&str>>,
) -> String {
    let title = title.map(|title| match title {
        Some(title) => format!("renamed the group to \"{title}\""),
        None => "removed the group's title".to_owned(),
    });
    let description = description.map(|description| match description {
        Some(_) => "changed the group's description",
        None => "removed the group's description",
    });
    match (title, description) {
        (Some(title), Some(description)) => format!("{actor} {title} and {description}"),
        (Some(title), None) => format!("{actor} {title}"),
        (None, Some(description)) => format!("{actor} {description}"),
        (None, None) => format!("{actor} changed nothing"),
    }
}

/// `ann added bob`, `ann added bob and eve`, `ann added bob and 3 others`.
pub(super) fn added(actor: &str, names: &[&str]) -> String {
    match names {
        [] => format!("{actor} added nobody"),
        [one] => format!("{actor} added {one}"),
        [one, other] => format!("{actor} added {one} and {other}"),
        [one, others @ ..] => format!("{actor} added {one} and {} others", others.len()),
    }
}

pub(super) fn removed(actor: &str, name: &str) -> String {
    format!("{actor} removed {name}")
}

pub(super) fn left(name: &str) -> String {
    format!("{name} left")
}

/// `ann made bob an admin`.
pub(super) fn role_changed(actor: &str, name: &str, role: MemberRole) -> String {
    let role = match role {
        MemberRole::Owner => "an owner",
        MemberRole::Admin => "an admin",
        MemberRole::Member => "a member",
    };
    format!("{actor} made {name} {role}")
}

pub(super) fn deleted(actor: &str) -> String {
    format!("{actor} deleted the group")
}
