-- What the planner knows of the log and the journal. A sample of 30,000 rows with all their columns,
-- which is the default, takes up to 0.1 s of a core for each of the 16 parts, again and again while they
-- grow; but they are read by whole keys, and most of a row decides no plan. 3,000 rows are left, and
-- the columns whose fractions may matter (docs/decisions/0017-small-samples-of-the-log.md).
alter table messages
    alter column conversation_id set statistics 10,
    alter column seq set statistics 10,
    alter column kind set statistics 10,
    alter column message_id set statistics 0,
    alter column sender_id set statistics 0,
    alter column request_hash set statistics 0,
    alter column target_seq set statistics 0,
    alter column content set statistics 0,
    alter column content_key_id set statistics 0,
    alter column metadata set statistics 0,
    alter column reply_to set statistics 0,
    alter column mentions set statistics 10,
    alter column created_at set statistics 0,
    alter column edited_at set statistics 0,
    alter column deleted_at set statistics 10,
    alter column has_reactions set statistics 0;

alter table journal
    alter column xid set statistics 10,
    alter column kind set statistics 0,
    alter column payload set statistics 0,
    alter column at set statistics 10;
