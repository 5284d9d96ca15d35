//! What a publisher writes and reads, in Redis' protocol (RESP2): PUBLISH and a few commands out,
//! numbers and a few words in.

use bytes::{Buf, BufMut, BytesMut};

/// A line that is longer is none of Redis; the longest are errors that quote what was asked.
const LINE_MAX: usize = 4 << 10;
/// Of an answer that is longer than a line; what is asked for is less than 1 KiB.
const BULK_MAX: usize = 64 << 10;
/// The digits of the largest length.
const DIGITS: usize = 20;

/// Appends a publication.
pub(super) fn put_publish(out: &mut BytesMut, channel: &[u8], payload: &[u8]) {
    const HEAD: &[u8] = b"*3\r\n$7\r\nPUBLISH\r\n";
    let lengths = 2 * (DIGITS + b"$\r\n\r\n".len());
    out.reserve(HEAD.len() + lengths + channel.len() + payload.len());
    out.put_slice(HEAD);
    put_bulk(out, channel);
    put_bulk(out, payload);
}

/// Appends any command.
pub(super) fn put_command(out: &mut BytesMut, words: &[&str]) {
    put_length(out, b'*', words.len());
    for word in words {
        put_bulk(out, word.as_bytes());
    }
}

fn put_bulk(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, b'$', bytes.len());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// Digit by digit: this is done twice for every publication, and `write!` takes several times as
/// long.
fn put_length(out: &mut BytesMut, kind: u8, length: usize) {
    let mut digits = [b'0'; DIGITS];
    let mut first = DIGITS;
    let mut left = length;
    while left > 0 || first == DIGITS {
        first -= 1;
        // A remainder of ten fits.
        digits[first] = b'0' + (left % 10) as u8;
        left /= 10;
    }
    out.put_u8(kind);
    out.put_slice(&digits[first..]);
    out.put_slice(b"\r\n");
}

/// What Redis answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// `+OK` or another word.
    Word,
    /// `:` and a number, as PUBLISH is answered.
    Number,
    /// `$` and text.
    Text(String),
    /// `-` and why not.
    Refused(String),
}

/// Something that Redis does not answer; nothing behind it can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of Redis")]
pub(super) struct Unexpected;

/// Splits what arrives into answers.
#[derive(Default)]
pub(super) struct Answers {
    arrived: BytesMut,
}

impl Answers {
    /// Where to put what arrives next.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        // One read for the answers to a whole pipeline, most of which are four bytes long.
        self.arrived.reserve(LINE_MAX);
        &mut self.arrived
    }

    /// Whether everything that arrived was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The next answer; none before all of it has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Answer>, Unexpected> {
        let start = &self.arrived[..self.arrived.len().min(LINE_MAX)];
        let Some(end) = start.iter().position(|byte| *byte == b'\n') else {
            return if start.len() < LINE_MAX {
                Ok(None)
            } else {
                Err(Unexpected)
            };
        };
        let line = start[..end].strip_suffix(b"\r").ok_or(Unexpected)?;
        let (kind, rest) = line.split_first().ok_or(Unexpected)?;
        let answer = match kind {
            b':' if !rest.is_empty() && rest.iter().all(u8::is_ascii_digit) => Answer::Number,
            b'+' => Answer::Word,
            b'-' => Answer::Refused(String::from_utf8_lossy(rest).into_owned()),
            b'$' => {
                let length = length_in(rest)?;
                return self.text(end + 1, length);
            }
            _ => return Err(Unexpected),
        };
        self.arrived.advance(end + 1);
        Ok(Some(answer))
    }

    /// The text of so many bytes that begins there.
    fn text(&mut self, begin: usize, length: usize) -> Result<Option<Answer>, Unexpected> {
        let end = begin + length;
        let Some(text) = self.arrived.get(begin..end + 2) else {
            return Ok(None);
        };
        let text = text.strip_suffix(b"\r\n").ok_or(Unexpected)?;
        let text = String::from_utf8_lossy(text).into_owned();
        self.arrived.advance(end + 2);
        Ok(Some(Answer::Text(text)))
    }
}

fn length_in(digits: &[u8]) -> Result<usize, Unexpected> {
    let text = std::str::from_utf8(digits).map_err(|_| Unexpected)?;
    let length: usize = text.parse().map_err(|_| Unexpected)?;
    (length <= BULK_MAX).then_some(length).ok_or(Unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(arrived: &[u8]) -> Result<Vec<Answer>, Unexpected> {
        let mut answers = Answers::default();
        answers.room().put_slice(arrived);
        let mut all = Vec::new();
        while let Some(answer) = answers.next()? {
            all.push(answer);
        }
        Ok(all)
    }

    #[test]
    fn commands_are_written_as_redis_reads_them() {
        let mut out = BytesMut::new();
        put_publish(&mut out, b"c", b"");
        put_publish(&mut out, b"channel", &[b'x'; 1_203]);
        put_command(&mut out, &["AUTH", "me", "p\r\nw"]);
        let long = "x".repeat(1_203);
        let expected = format!(
            "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n$0\r\n\r\n\
             *3\r\n$7\r\nPUBLISH\r\n$7\r\nchannel\r\n$1203\r\n{long}\r\n\
             *3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$4\r\np\r\nw\r\n"
        );
        assert_eq!(out, expected);
        let mut out = BytesMut::new();
        put_length(&mut out, b'$', usize::MAX);
        assert_eq!(out, format!("${}\r\n", usize::MAX));
    }

    #[test]
    fn answers_are_told_apart_however_they_arrive() {
        let arrived = b":0\r\n:12\r\n+OK\r\n-NOPERM no\r\n$6\r\nro\r\nle\r\n$0\r\n\r\n:1\r\n";
        let expected = vec![
            Answer::Number,
            Answer::Number,
            Answer::Word,
            Answer::Refused("NOPERM no".into()),
            Answer::Text("ro\r\nle".into()),
            Answer::Text(String::new()),
            Answer::Number,
        ];
        assert_eq!(answers(arrived), Ok(expected.clone()));
        for split in 0..=arrived.len() {
            let mut answers = Answers::default();
            let mut all = Vec::new();
            for part in [&arrived[..split], &arrived[split..]] {
                answers.room().put_slice(part);
                while let Some(answer) = answers.next().unwrap() {
                    all.push(answer);
                }
            }
            assert_eq!(all, expected, "split at {split}");
            assert!(answers.is_empty());
        }
    }

    #[test]
    fn what_redis_does_not_say_is_refused_and_bounded() {
        let none_of_redis: [&[u8]; 11] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"\n",
            b":\r\n",
            b":x\r\n",
            b":1\n",
            b"*1\r\n:1\r\n",
            b"$-1\r\n",
            b"$x\r\n",
            b"$99999999999999999999\r\n",
            b"$2\r\nlong\r\n",
        ];
        for arrived in none_of_redis {
            let text = String::from_utf8_lossy(arrived);
            assert_eq!(answers(arrived), Err(Unexpected), "{text}");
        }
        assert_eq!(answers(&[b'-'; LINE_MAX - 1]), Ok(Vec::new()));
        assert_eq!(answers(&[b'-'; LINE_MAX]), Err(Unexpected));
        let too_long = format!("${}\r\n", BULK_MAX + 1);
        assert_eq!(answers(too_long.as_bytes()), Err(Unexpected));
    }
}
