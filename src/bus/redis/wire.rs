//! What the bus writes and reads, in Redis' protocol (RESP2): PUBLISH, SUBSCRIBE and a few commands
//! out; numbers, a few words and what was published in.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A line that is longer is none of Redis; the longest are errors that quote what was asked.
const LINE_MAX: usize = 4 << 10;
/// Of an answer that is longer than a line; what is asked for is far less.
const BULK_MAX: usize = 64 << 10;
/// Of what was published. The largest event, a message of 16,000 characters with all it may have, is
/// below 1 MiB.
const PAYLOAD_MAX: usize = 4 << 20;
/// Room for less than that is not worth a read.
const ROOM_MIN: usize = 4 << 10;
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
    put_head(out, words.len());
    for word in words {
        put_bulk(out, word.as_bytes());
    }
}

/// Begins a command of so many words.
pub(super) fn put_head(out: &mut BytesMut, words: usize) {
    put_length(out, b'*', words);
}

/// Appends a word of a command.
pub(super) fn put_bulk(out: &mut BytesMut, bytes: &[u8]) {
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

/// What Redis answered, or sent to one who subscribes.
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
    /// SUBSCRIBE or UNSUBSCRIBE of one channel was done.
    Changed,
    /// Somebody published.
    Message { channel: Bytes, payload: Bytes },
}

/// Something that Redis does not answer; nothing behind it can be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an answer of Redis")]
pub(super) struct Unexpected;

/// What may not have arrived yet.
type Arriving<T> = Result<Option<T>, Unexpected>;

/// Splits what arrives into answers.
pub(super) struct Answers {
    arrived: BytesMut,
    room: usize,
}

impl Answers {
    /// With room for so many bytes at a time.
    pub(super) fn with_room(room: usize) -> Self {
        Self {
            arrived: BytesMut::new(),
            room,
        }
    }

    /// Where to put what arrives next.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let begun = self.arrived.len();
        if begun == 0 && self.arrived.capacity() > 2 * self.room {
            // Something large has passed.
            self.arrived = BytesMut::new();
        }
        if self.arrived.capacity() - begun < ROOM_MIN {
            self.arrived
                .reserve(self.room.saturating_sub(begun).max(ROOM_MIN));
        }
        &mut self.arrived
    }

    /// Whether everything that arrived was taken.
    pub(super) fn is_empty(&self) -> bool {
        self.arrived.is_empty()
    }

    /// The next answer; none before all of it has arrived.
    pub(super) fn next(&mut self) -> Arriving<Answer> {
        let Some(line) = self.line(0)? else {
            return Ok(None);
        };
        let end = line.len() + b"\r\n".len();
        let (kind, rest) = line.split_first().ok_or(Unexpected)?;
        let answer = match kind {
            b':' if is_number(rest) => Answer::Number,
            b'+' => Answer::Word,
            b'-' => Answer::Refused(String::from_utf8_lossy(rest).into_owned()),
            b'$' => return self.text(),
            b'*' if rest == b"3" => return self.parts(end),
            _ => return Err(Unexpected),
        };
        self.arrived.advance(end);
        Ok(Some(answer))
    }

    fn text(&mut self) -> Arriving<Answer> {
        let Some(text) = self.bulk(0, BULK_MAX)? else {
            return Ok(None);
        };
        let end = text.end;
        let text = String::from_utf8_lossy(&self.arrived[text]).into_owned();
        self.arrived.advance(end + b"\r\n".len());
        Ok(Some(Answer::Text(text)))
    }

    /// What those who subscribe are sent: a word, a channel, and what was published there or how many
    /// channels there are now.
    fn parts(&mut self, begin: usize) -> Arriving<Answer> {
        let Some(word) = self.bulk(begin, LINE_MAX)? else {
            return Ok(None);
        };
        let Some(channel) = self.bulk(word.end + 2, LINE_MAX)? else {
            return Ok(None);
        };
        let next = channel.end + 2;
        match &self.arrived[word] {
            b"subscribe" | b"unsubscribe" => {
                let Some(count) = self.line(next)? else {
                    return Ok(None);
                };
                if !count.strip_prefix(b":").is_some_and(is_number) {
                    return Err(Unexpected);
                }
                let end = next + count.len() + 2;
                self.arrived.advance(end);
                Ok(Some(Answer::Changed))
            }
            b"message" => {
                let Some(payload) = self.bulk(next, PAYLOAD_MAX)? else {
                    return Ok(None);
                };
                let frame = self.arrived.split_to(payload.end + 2).freeze();
                Ok(Some(Answer::Message {
                    channel: frame.slice(channel),
                    payload: frame.slice(payload),
                }))
            }
            _ => Err(Unexpected),
        }
    }

    /// The line that begins there, without its end.
    fn line(&self, begin: usize) -> Arriving<&[u8]> {
        let rest = &self.arrived[begin..];
        let start = &rest[..rest.len().min(LINE_MAX)];
        match start.iter().position(|byte| *byte == b'\n') {
            Some(end) => start[..end].strip_suffix(b"\r").map(Some).ok_or(Unexpected),
            None if start.len() < LINE_MAX => Ok(None),
            None => Err(Unexpected),
        }
    }

    /// Where the bytes are whose length is said there.
    fn bulk(&self, begin: usize, max: usize) -> Arriving<Range<usize>> {
        let Some(line) = self.line(begin)? else {
            return Ok(None);
        };
        let length = length_in(line.strip_prefix(b"$").ok_or(Unexpected)?, max)?;
        let start = begin + line.len() + 2;
        let end = start + length;
        match self.arrived.get(end..end + 2) {
            Some(b"\r\n") => Ok(Some(start..end)),
            Some(_) => Err(Unexpected),
            None => Ok(None),
        }
    }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

fn length_in(digits: &[u8], max: usize) -> Result<usize, Unexpected> {
    if !is_number(digits) {
        return Err(Unexpected);
    }
    let text = std::str::from_utf8(digits).map_err(|_| Unexpected)?;
    let length: usize = text.parse().map_err(|_| Unexpected)?;
    (length <= max).then_some(length).ok_or(Unexpected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(arrived: &[u8]) -> Result<Vec<Answer>, Unexpected> {
        let mut answers = Answers::with_room(ROOM_MIN);
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
        let arrived = b":0\r\n:12\r\n+OK\r\n-NOPERM no\r\n$6\r\nro\r\nle\r\n$0\r\n\r\n:1\r\n\
            *3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$4\r\n\r\n:1\r\n\
            *3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$0\r\n\r\n\
            *3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n+PONG\r\n";
        let message = |payload: &'static str| Answer::Message {
            channel: Bytes::from_static(b"c"),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let expected = vec![
            Answer::Number,
            Answer::Number,
            Answer::Word,
            Answer::Refused("NOPERM no".into()),
            Answer::Text("ro\r\nle".into()),
            Answer::Text(String::new()),
            Answer::Number,
            Answer::Changed,
            message("\r\n:1"),
            message(""),
            Answer::Changed,
            Answer::Word,
        ];
        assert_eq!(answers(arrived), Ok(expected.clone()));
        for split in 0..=arrived.len() {
            let mut answers = Answers::with_room(ROOM_MIN);
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
        let none_of_redis: [&[u8]; 20] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b"\n",
            b":\r\n",
            b":x\r\n",
            b":1\n",
            b"*1\r\n:1\r\n",
            b"*2\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n",
            b"*3\r\n$4\r\npong\r\n$0\r\n\r\n",
            b"*3\r\n$7\r\nmassage\r\n$1\r\nc\r\n$1\r\nx\r\n",
            b"*3\r\n$7\r\nmessage\r\n:1\r\n$1\r\nx\r\n",
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:-\r\n",
            b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n$1\r\n1\r\n",
            b"$-1\r\n",
            b"$+1\r\n",
            b"*-1\r\n",
            b"*0\r\n",
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
        let head = "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n";
        let longest = format!("{head}${PAYLOAD_MAX}\r\n");
        assert_eq!(answers(longest.as_bytes()), Ok(Vec::new()));
        let too_long = format!("{head}${}\r\n", PAYLOAD_MAX + 1);
        assert_eq!(answers(too_long.as_bytes()), Err(Unexpected));
    }
}
