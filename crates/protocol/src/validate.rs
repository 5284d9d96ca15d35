//! What text may stand in which field; the same rules on the socket, over REST and in clients.

use crate::event::ErrorDetail;
use crate::limits;

type Check = Result<(), ErrorDetail>;

fn refuse(field: &str, reason: &str, allowed: String) -> Check {
    Err(ErrorDetail {
        field: field.into(),
        reason: reason.into(),
        allowed: Some(allowed),
    })
}

/// Message content: 1 to 16,000 characters, not blank, no U+0000.
///
/// # Errors
/// Names the field and what is allowed.
pub fn content(text: &str) -> Check {
    text_within("content", text, 1, limits::CONTENT_CHARS)?;
    if text.trim().is_empty() {
        return refuse(
            "content",
            "is blank",
            "at least one visible character".into(),
        );
    }
    Ok(())
}

/// Any text: `min` to `max` characters, no U+0000 (PostgreSQL cannot store it).
///
/// # Errors
/// Names the field and what is allowed.
pub fn text_within(field: &str, text: &str, min: usize, max: usize) -> Check {
    let allowed = || format!("{min} to {max} characters");
    // A character has at most four bytes: most texts need no counting.
    let chars = if text.len() <= max && text.len() / 4 >= min {
        min
    } else {
        text.chars().count()
    };
    if chars < min {
        return refuse(field, "is too short", allowed());
    }
    if chars > max {
        return refuse(field, "is too long", allowed());
    }
    if text.contains('\0') {
        return refuse(field, "contains U+0000", "text without U+0000".into());
    }
    Ok(())
}

/// A name or title: one line of 1 to `max` characters, not blank, no control characters.
///
/// # Errors
/// Names the field and what is allowed.
pub fn line(field: &str, text: &str, max: usize) -> Check {
    text_within(field, text, 1, max)?;
    if text.trim().is_empty() {
        return refuse(field, "is blank", "at least one visible character".into());
    }
    if text.chars().any(char::is_control) {
        return refuse(
            field,
            "contains a control character",
            "one line of plain text".into(),
        );
    }
    Ok(())
}

/// A username: 3 to 32 of `[a-z0-9_.-]` after folding its case.
///
/// # Errors
/// Names the field and what is allowed.
pub fn username(text: &str) -> Result<String, ErrorDetail> {
    let folded = text.to_ascii_lowercase();
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
    if limits::USERNAME_CHARS.contains(&folded.len()) && folded.chars().all(good) {
        return Ok(folded);
    }
    Err(ErrorDetail::new(
        "username",
        "is not a username",
        "3 to 32 of a-z, 0-9, _ . -",
    ))
}

/// An e-mail address, by shape only: one `@` with something on both sides, no spaces or controls.
///
/// # Errors
/// Names the field and what is allowed.
pub fn email(text: &str) -> Result<String, ErrorDetail> {
    let parts = text.split_once('@');
    let shaped = parts.is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !domain.contains('@')
    });
    let clean = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if shaped && clean && text.len() <= limits::EMAIL_BYTES {
        return Ok(text.to_lowercase());
    }
    let allowed = "an address such as ann@example.org of at most 254 bytes";
    Err(ErrorDetail::new(
        "email",
        "is not an e-mail address",
        allowed,
    ))
}

/// A password: at least 10 characters, at most 1,024 bytes; nothing else is asked of it.
///
/// # Errors
/// Names the field and what is allowed.
pub fn password(text: &str) -> Check {
    let long_enough = text.chars().nth(limits::PASSWORD_MIN_CHARS - 1).is_some();
    if long_enough && text.len() <= limits::PASSWORD_MAX_BYTES {
        return Ok(());
    }
    let allowed = "at least 10 characters and at most 1,024 bytes".to_owned();
    refuse(
        "password",
        if long_enough {
            "is too long"
        } else {
            "is too short"
        },
        allowed,
    )
}

/// An avatar: an https URL of at most 500 bytes.
///
/// # Errors
/// Names the field and what is allowed.
pub fn avatar_url(text: &str) -> Check {
    let host = text.strip_prefix("https://").unwrap_or_default();
    let clean = !text.chars().any(|c| c.is_whitespace() || c.is_control());
    if !host.is_empty() && clean && text.len() <= limits::AVATAR_URL_BYTES {
        return Ok(());
    }
    refuse(
        "avatar_url",
        "is not allowed",
        "an https URL of at most 500 bytes".into(),
    )
}

/// The emoji of a reaction: one, of at most 32 bytes. With and without the sign that asks for its
/// coloured form (U+FE0F) it is the same; it comes back as Unicode recommends it.
///
/// # Errors
/// Names the field and what is allowed.
pub fn emoji(text: &str) -> Result<&'static str, ErrorDetail> {
    let refusal = |reason| ErrorDetail::new("emoji", reason, "one emoji of at most 32 bytes");
    if text.len() > limits::EMOJI_BYTES {
        return Err(refusal("is too long"));
    }
    // Some keyboards add the sign where nothing asks for it.
    let emoji = emojis::get(text).or_else(|| emojis::get(&text.replace('\u{fe0f}', "")));
    let emoji = emoji.ok_or_else(|| refusal("is not an emoji"))?;
    if emoji.as_str().len() > limits::EMOJI_BYTES {
        return Err(refusal("is too long"));
    }
    Ok(emoji.as_str())
}

/// A request's `ref`: at most 64 bytes.
///
/// # Errors
/// Names the field and what is allowed.
pub fn reference(text: &str) -> Check {
    if text.len() <= limits::REF_BYTES {
        return Ok(());
    }
    refuse("ref", "is too long", "at most 64 bytes".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_has_bounds() {
        assert!(content("hi").is_ok());
        assert!(content(&"é".repeat(limits::CONTENT_CHARS)).is_ok());
        assert!(content(&"a".repeat(limits::CONTENT_CHARS + 1)).is_err());
        assert_eq!(content("").unwrap_err().reason, "is too short");
        assert_eq!(content(" \n").unwrap_err().reason, "is blank");
        assert_eq!(content("a\0b").unwrap_err().reason, "contains U+0000");
    }

    #[test]
    fn a_line_is_one_visible_line() {
        assert!(line("title", "Crème brûlée", 100).is_ok());
        assert_eq!(line("title", "", 100).unwrap_err().reason, "is too short");
        assert_eq!(
            line("title", "\u{a0} ", 100).unwrap_err().reason,
            "is blank"
        );
        assert_eq!(line("title", "a\nb", 100).unwrap_err().field, "title");
        assert!(line("title", &"a".repeat(101), 100).is_err());
    }

    #[test]
    fn a_reaction_is_one_emoji_however_it_is_spelt() {
        for one in [
            "👍",
            "👍🏽",
            "🇿🇦",
            "👨\u{200d}👩\u{200d}👧\u{200d}👦",
            "1\u{fe0f}\u{20e3}",
        ] {
            assert_eq!(emoji(one).unwrap(), one);
        }
        assert_eq!(emoji("\u{2764}").unwrap(), "\u{2764}\u{fe0f}");
        assert_eq!(emoji("\u{2764}\u{fe0f}").unwrap(), "\u{2764}\u{fe0f}");
        assert_eq!(emoji("👍\u{fe0f}").unwrap(), "👍");
        let without = "👁\u{200d}🗨";
        assert_eq!(emoji(without).unwrap(), "👁\u{fe0f}\u{200d}🗨\u{fe0f}");
        for bad in [
            "",
            " ",
            "a",
            "1",
            "ok",
            ":+1:",
            "👍👍",
            "👍 ",
            "👍a",
            "\u{fe0f}",
            "\u{200d}",
            "\u{1f3fd}",
            "🇿",
            "👍\u{fe0e}",
            "\0",
        ] {
            assert_eq!(emoji(bad).unwrap_err().reason, "is not an emoji", "{bad:?}");
        }
        let kiss = "👩🏻\u{200d}❤\u{fe0f}\u{200d}💋\u{200d}👩🏼";
        assert_eq!(emoji(kiss).unwrap_err().reason, "is too long");
        assert_eq!(emoji(&"👍".repeat(9)).unwrap_err().reason, "is too long");
        assert!(
            emojis::iter().all(|known| emoji(known.as_str()).map_or_else(
                |refused| refused.reason == "is too long",
                |spelt| spelt == known.as_str()
            ))
        );
    }

    #[test]
    fn names_are_folded_and_addresses_shaped() {
        assert_eq!(username("Ann.B-1").unwrap(), "ann.b-1");
        assert!(username("an").is_err());
        assert!(username("ann b").is_err());
        assert_eq!(email("Ann@Example.org").unwrap(), "ann@example.org");
        for bad in ["ann", "@x", "a@", "a b@x", "a@b@c"] {
            assert!(email(bad).is_err(), "{bad}");
        }
        assert!(password("0123456789").is_ok());
        assert!(password("012345678").is_err());
        assert!(avatar_url("http://x").is_err());
        assert!(avatar_url("https://x/y.png").is_ok());
    }
}
