-- Stores a batch of plain sends in one round trip, or nothing: see
-- src/store/postgres/messages/quick.rs.
--
-- ids: the conversations, each once, in order; grows: by how many entries each grows. Then an item
-- for each send: which of ids it goes to, the how-manieth new entry of its log it is, and its columns.
-- Returns the ends that the logs had and behind them the versions of their lists of members, each in
-- the order of ids; or null, and nothing is written, if a conversation is missing or locked by
-- somebody else, or a sender is no member or a blocked one.
--
-- Volatile, so each statement sees what was committed before it began: the members are read as they
-- are behind the locks.
create function append_batch(
    ids uuid[],
    grows bigint[],
    places integer[],
    nths bigint[],
    message_ids uuid[],
    sender_ids uuid[],
    request_hashes bytea[],
    contents bytea[],
    metadatas text[],
    mentioned bytea[],
    sent_at bigint
) returns bigint[]
language plpgsql volatile as $$
#variable_conflict use_column
declare
    locked uuid[];
    lasts bigint[];
    versions bigint[];
begin
    select array_agg(h.conversation_id), array_agg(h.last_seq), array_agg(h.member_version)
    into locked, lasts, versions
    from (select c.conversation_id, c.last_seq, c.member_version from conversation_heads c
          where c.conversation_id = any(ids) order by c.conversation_id
          for update skip locked) h;
    if locked is distinct from ids then
        return null;
    end if;
    if exists (select from unnest(places, sender_ids) as s (place, sender_id)
               where (select p.blocked_at is null from members p
                      where p.conversation_id = ids[s.place] and p.user_id = s.sender_id
                        and p.left_seq is null) is not true) then
        return null;
    end if;
    with entries as (
        insert into messages (conversation_id, seq, kind, message_id, sender_id, request_hash,
                              content, metadata, mentions, created_at)
        select ids[e.place], lasts[e.place] + e.nth, 'text', e.message_id, e.sender_id,
               e.request_hash, e.content, e.metadata, e.mentions, sent_at
        from unnest(places, nths, message_ids, sender_ids, request_hashes, contents, metadatas,
                    mentioned)
                 as e (place, nth, message_id, sender_id, request_hash, content, metadata, mentions)
    ), heads as (
        update conversation_heads h set last_seq = n.last + n.grow, last_at = sent_at
        from unnest(ids, lasts, grows) as n (id, last, grow)
        where h.conversation_id = n.id
    )
    insert into journal (kind, payload, at)
    select 'entries', string_agg(uuid_send(n.id) || int8send(n.last + n.grow), ''::bytea),
           (extract(epoch from clock_timestamp()) * 1000)::bigint
    from unnest(ids, lasts, grows) as n (id, last, grow);
    return lasts || versions;
end
$$;
