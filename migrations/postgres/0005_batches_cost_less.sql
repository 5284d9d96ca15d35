-- append_batch does what it did (0003), for less of the processor. A single send, which is what a node
-- with little to do stores, needs no arrays; the statements of a larger batch stand by themselves, since
-- setting up common table expressions cost more than a snapshot each; and the heads are advanced
-- where they were found, by ctid, which nobody else can change while they are locked
-- (docs/decisions/0019-batches-cost-less.md).
create or replace function append_batch(
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
    the_id uuid;
    old_end bigint;
    its_version bigint;
    locked uuid[];
    tids tid[];
    lasts bigint[];
    versions bigint[];
    advanced bigint;
begin
    if cardinality(places) = 1 then
        the_id := ids[1];
        select c.last_seq, c.member_version into old_end, its_version from conversation_heads c
        where c.conversation_id = the_id
        for update skip locked;
        if not found then
            return null;
        end if;
        perform from members p
        where p.conversation_id = the_id and p.user_id = sender_ids[1]
          and p.left_seq is null and p.blocked_at is null;
        if not found then
            return null;
        end if;
        insert into messages (conversation_id, seq, kind, message_id, sender_id, request_hash,
                              content, metadata, mentions, created_at)
        values (the_id, old_end + 1, 'text', message_ids[1], sender_ids[1], request_hashes[1],
                contents[1], metadatas[1], mentioned[1], sent_at);
        update conversation_heads h set last_seq = old_end + 1, last_at = sent_at
        where h.conversation_id = the_id;
        insert into journal (kind, payload, at)
        values ('entries', uuid_send(the_id) || int8send(old_end + 1),
                (extract(epoch from clock_timestamp()) * 1000)::bigint);
        return array[old_end, its_version];
    end if;

    select array_agg(h.conversation_id), array_agg(h.tid), array_agg(h.last_seq),
           array_agg(h.member_version)
    into locked, tids, lasts, versions
    from (select c.conversation_id, c.ctid as tid, c.last_seq, c.member_version
          from conversation_heads c
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
    insert into messages (conversation_id, seq, kind, message_id, sender_id, request_hash,
                          content, metadata, mentions, created_at)
    select ids[e.place], lasts[e.place] + e.nth, 'text', e.message_id, e.sender_id,
           e.request_hash, e.content, e.metadata, e.mentions, sent_at
    from unnest(places, nths, message_ids, sender_ids, request_hashes, contents, metadatas,
                mentioned)
             as e (place, nth, message_id, sender_id, request_hash, content, metadata, mentions);
    update conversation_heads h set last_seq = n.last + n.grow, last_at = sent_at
    from unnest(tids, lasts, grows) as n (tid, last, grow)
    where h.ctid = n.tid;
    get diagnostics advanced = row_count;
    if advanced <> cardinality(ids) then
        raise exception 'append_batch advanced % of % logs', advanced, cardinality(ids);
    end if;
    insert into journal (kind, payload, at)
    select 'entries', string_agg(uuid_send(n.id) || int8send(n.last + n.grow), ''::bytea),
           (extract(epoch from clock_timestamp()) * 1000)::bigint
    from unnest(ids, lasts, grows) as n (id, last, grow);
    return lasts || versions;
end
$$;
