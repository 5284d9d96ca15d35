//! Entries by the million in one log: in parts, so that it can be seen how far things are, and only
//! if the disk has room for all of them.

use std::path::Path;

use anyhow::{Context, ensure};
use rookery_protocol::ConversationId;

use super::{Bulk, Person, now_millis};
use crate::progress::Line;

/// Entries of one statement: two seconds of work.
const PART: u32 = 200_000;
/// What the reader of a long conversation has not read.
const UNREAD: u32 = 20;
/// Of one entry on disk, with its indexes: 370 were measured.
const ENTRY_BYTES: u64 = 420;
/// The write-ahead log keeps as much again until it is recycled: `max_wal_size` (4 GiB) and what is
/// written during a checkpoint.
const WAL_MAX_BYTES: u64 = 6 << 30;
/// Left free for everything else on that disk.
const SPARE_BYTES: u64 = 1 << 30;

impl Bulk {
    /// Lets the log of a conversation grow from so many entries to so many. All but the last of them
    /// count as read, as they would after years.
    pub(in crate::population) async fn messages(
        &self,
        conversation: ConversationId,
        sender: &Person,
        from: u32,
        to: u32,
    ) -> anyhow::Result<()> {
        has_room(&self.data, to.saturating_sub(from))?;
        let (now, sender) = (now_millis()?, sender.user_id);
        let mut line = Line::new("messages", u64::from(to.saturating_sub(from)));
        let mut done = from;
        while done < to {
            let (first, last) = (done + 1, to.min(done.saturating_add(PART)));
            // Ids in order, as those of version 7 are.
            let part = format!(
                "insert into messages (conversation_id, seq, kind, message_id, sender_id, content, \
                 created_at) select '{conversation}', n, 'text', ('01900000-0000-7000-8000-' || \
                 lpad(to_hex(n), 12, '0'))::uuid, '{sender}', \
                 convert_to(rpad(n::text, 120, '.'), 'UTF8'), {now} \
                 from generate_series({first}, {last}) n;\n"
            );
            self.run(&part).await?;
            done = last;
            line.show(u64::from(done - from));
        }
        line.end();
        let read = to.saturating_sub(UNREAD);
        // What is left to be written is written now, and not while something is measured.
        let script = format!(
            "update conversation_heads set last_seq = {to}, last_at = {now} \
             where conversation_id = '{conversation}';\n\
             update members set delivered_seq = {to}, read_seq = {read} \
             where conversation_id = '{conversation}';\n\
             vacuum analyze messages;\ncheckpoint;\n"
        );
        self.run(&script).await
    }
}

/// Whether the disk of this folder has room for so many entries.
///
/// # Errors
/// How much is missing.
pub(crate) fn has_room(folder: &Path, entries: u32) -> anyhow::Result<()> {
    let found = rustix::fs::statvfs(folder);
    let found = found.with_context(|| format!("asking how full {} is", folder.display()))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = needed_bytes(entries);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    ensure!(
        needed <= free,
        "{entries} messages need {:.1} GiB on the disk of {}, which has {:.1} GiB free: make room, \
         name another disk by TMPDIR, or ask for fewer",
        gib(needed),
        folder.display(),
        gib(free),
    );
    Ok(())
}

fn needed_bytes(entries: u32) -> u64 {
    let rows = u64::from(entries) * ENTRY_BYTES;
    rows + rows.min(WAL_MAX_BYTES) + SPARE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_without_room_is_named_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        has_room(folder.path(), 0).unwrap();
        // A file system of its own, without any room.
        let error = has_room(Path::new("/proc"), 10_000_000).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("10000000 messages need 8.8 GiB on the disk of /proc"),
            "{text}"
        );
        assert!(text.contains("0.0 GiB free"), "{text}");
    }

    #[test]
    fn the_write_ahead_log_does_not_grow_for_ever() {
        let gib = |entries| needed_bytes(entries) >> 30;
        assert_eq!([gib(0), gib(10_000_000), gib(20_000_000)], [1, 8, 14]);
    }
}
