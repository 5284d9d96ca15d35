//! Frames of Redis's protocol, RESP2 and RESP3.

use anyhow::{Result, bail};

/// The length of the frame at the start of `bytes` (RESP2 and RESP3); `None` while it is not there
/// as a whole.
pub(super) fn frame_length(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else {
        return Ok(None);
    };
    let head = line + 2;
    let number = || -> Result<i64> { Ok(std::str::from_utf8(&bytes[1..line])?.parse()?) };
    let parts = match bytes[0] {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => return Ok(Some(head)),
        b'$' | b'!' | b'=' => {
            // A length of -1 is RESP2's way to say that there is nothing.
            let Ok(length) = usize::try_from(number()?) else {
                return Ok(Some(head));
            };
            let end = head + length + 2;
            return Ok((bytes.len() >= end).then_some(end));
        }
        b'*' | b'~' | b'>' => number()?,
        b'%' => 2 * number()?,
        // Attributes, and then what they belong to.
        b'|' => 2 * number()? + 1,
        other => bail!("not a frame of RESP: {other:#x}"),
    };
    let mut end = head;
    for _ in 0..parts.max(0) {
        match frame_length(&bytes[end..])? {
            Some(length) => end += length,
            None => return Ok(None),
        }
    }
    Ok(Some(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_end_where_redis_says() {
        let push = b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\na\r\nb\r\n+OK\r\n";
        assert_eq!(frame_length(push).unwrap(), Some(push.len() - 5));
        assert_eq!(frame_length(&push[..20]).unwrap(), None);
        let map = b"%2\r\n+a\r\n:1\r\n+b\r\n*2\r\n_\r\n$-1\r\n";
        assert_eq!(frame_length(map).unwrap(), Some(map.len()));
        assert_eq!(frame_length(b"").unwrap(), None);
        assert!(frame_length(b"?\r\n").is_err());
    }
}
