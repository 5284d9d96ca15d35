-- What the life of a conversation needs: blocks that sending can see, reactions that reading can
-- pass over, the moment a group changed its way of fan-out, and how users want to appear.

-- Set while the other one of a direct conversation blocks this member: looked at with the
-- membership, in the one row that a send reads anyway.
alter table members add column blocked_at bigint;

-- False until the first reaction: a page without reactions is read without asking for them.
alter table messages add column has_reactions boolean not null default false;

-- When fanout_mode changed last. For a while after it both ways are used.
alter table conversation_heads add column fanout_changed_at bigint not null default 0;

-- When an entry changed a message last. Apart from last_at, which orders the list: an edit or a
-- reaction does not move a conversation to its top, and who asks what changed finds it all the same.
alter table conversation_heads add column changed_at bigint not null default 0;

-- How the user wants to appear: online, away, dnd or invisible; and since when, which grows with
-- every choice, so that nodes can tell the later of two.
alter table users add column chosen_status text not null default 'online';
alter table users add column chosen_at bigint not null default 0;

-- Who blocks somebody, for what the blocked one may see.
create index blocks_blocked on blocks (blocked_id);

update meta set value = '2' where key = 'schema_release';
