-- A log that holds nothing yet gets 4 parts instead of 16. A batch opens each part that it writes to,
-- with its indexes, and has most of them in it: with 47 sends that was a fifth of its cost
-- (docs/decisions/0019-batches-cost-less.md). One that holds messages stays as it is; OPERATIONS says how to
-- move it.
-- The second look below has to see what was committed while the lock was waited for.
set transaction isolation level read committed;
do $$
begin
    if exists (select from messages) then
        return;
    end if;
    -- A node of the previous version may run: nothing is written between the second look and the commit.
    lock table messages in access exclusive mode;
    if exists (select from messages) then
        return;
    end if;
    for part in 0..15 loop
        execute format('drop table messages_%s', lpad(part::text, 2, '0'));
    end loop;
    for part in 0..3 loop
        execute format(
            'create table messages_%s partition of messages '
            'for values with (modulus 4, remainder %s) '
            'with (autovacuum_vacuum_insert_scale_factor = 0.02)',
            lpad(part::text, 2, '0'), part);
    end loop;
end $$;

-- As 0004 has it: a new part does not take over what the planner is to sample.
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
