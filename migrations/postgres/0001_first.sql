-- The first schema. The SQLite twin of this file makes the same tables and columns.
--
-- Ids are uuid, times are unix milliseconds, enumerations are text with a CHECK, so that a later
-- release can widen them while this one runs. Rows of accounts and logs are never removed.

create table meta (
    key text primary key,
    value text not null
);
-- epoch names this incarnation of the data: write another after a restore from a backup.
-- schema_release grows with every release that changes the schema; a binary refuses a schema more
-- than one ahead of its own.
insert into meta (key, value) values ('epoch', gen_random_uuid()::text), ('schema_release', '1');

create table users (
    user_id uuid primary key,
    username text not null,
    email text not null,
    password_hash text not null,
    full_name text,
    avatar_url text,
    role text not null check (role in ('user', 'admin')),
    auth_version bigint not null default 1,
    banned_at bigint,
    created_at bigint not null,
    last_login_at bigint,
    last_seen_at bigint,
    deleted_at bigint
);
create unique index users_username on users (lower(username));
create unique index users_email on users (lower(email));

-- One row a log-in: a family of refresh tokens, of which it knows the last two.
create table sessions (
    session_id uuid primary key,
    user_id uuid not null references users,
    token_hash bytea not null,
    previous_token_hash bytea,
    rotated_at bigint,
    device_name text,
    ip text,
    user_agent text,
    created_at bigint not null,
    last_used_at bigint not null,
    expires_at bigint not null,
    revoked_at bigint
);
create index sessions_user on sessions (user_id);
create index sessions_revoked on sessions (revoked_at) where revoked_at is not null;

create table conversations (
    conversation_id uuid primary key,
    kind text not null check (kind in ('direct', 'group')),
    title text,
    description text,
    history_visible boolean not null default false,
    created_by uuid not null references users,
    created_at bigint not null,
    deleted_at bigint
);

-- The row that is locked: narrow, updated by every commit. last_at has no index and half of each
-- page stays free, so that all updates are heap-only. member_count changes behind the same lock as
-- the members it counts.
create table conversation_heads (
    conversation_id uuid primary key references conversations,
    last_seq bigint not null default 0,
    last_at bigint not null,
    member_version bigint not null default 1,
    member_count bigint not null default 0,
    fanout_mode text not null default 'direct' check (fanout_mode in ('direct', 'channel'))
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- Sees joined_seq < seq <= left_seq (from 0 where history is visible). read_seq and delivered_seq
-- start at joined_seq and only grow; they have no index, so that raising them is heap-only.
create table members (
    conversation_id uuid not null references conversations,
    user_id uuid not null references users,
    role text not null check (role in ('member', 'admin', 'owner')),
    joined_at bigint not null,
    joined_seq bigint not null,
    left_seq bigint,
    delivered_seq bigint not null,
    read_seq bigint not null,
    read_at bigint,
    muted_until bigint,
    primary key (conversation_id, user_id)
) with (fillfactor = 80);
create index members_user on members (user_id, conversation_id);

-- The log. No foreign keys: a row is only ever written behind the lock of its conversation's head,
-- and checking three references would cost more than writing the row.
-- kind: text, system, edit, delete or reaction. Without a CHECK, which PostgreSQL would parse for
-- each partition in each statement (measured: 1.5 µs a row).
-- request_hash: 16 bytes over everything the sender asked for; null on entries of the server.
-- target_seq: the message that an edit, delete or reaction entry is about.
-- content: UTF-8, or sealed with the key content_key_id. metadata: a JSON object.
-- mentions: the ids of the mentioned users, 16 bytes each, one after the other; null if there are none.
create table messages (
    conversation_id uuid not null,
    seq bigint not null,
    kind text not null,
    message_id uuid not null,
    sender_id uuid not null,
    request_hash bytea,
    target_seq bigint,
    content bytea not null,
    content_key_id text,
    metadata text,
    reply_to bigint,
    mentions bytea,
    created_at bigint not null,
    edited_at bigint,
    deleted_at bigint,
    -- With what counting unread messages needs, so that it reads the index alone.
    primary key (conversation_id, seq) include (sender_id, kind),
    unique (conversation_id, message_id)
) partition by hash (conversation_id);
-- Vacuumed often, though rows are hardly ever updated: reading the index alone works for pages that
-- a vacuum has seen, and what is counted is new.
do $$
begin
    for part in 0..15 loop
        execute format(
            'create table messages_%s partition of messages '
            'for values with (modulus 16, remainder %s) '
            'with (autovacuum_vacuum_insert_scale_factor = 0.02)',
            lpad(part::text, 2, '0'), part);
    end loop;
end $$;
-- Few messages mention anybody; counting mentions looks at those alone.
create index messages_mentions on messages (conversation_id, seq) where mentions is not null;

create table reactions (
    conversation_id uuid not null,
    seq bigint not null,
    emoji text not null,
    user_id uuid not null,
    created_at bigint not null,
    primary key (conversation_id, seq, emoji, user_id)
);

create table blocks (
    user_id uuid not null references users,
    blocked_id uuid not null references users,
    created_at bigint not null,
    primary key (user_id, blocked_id)
);

-- What each commit changed, for nodes that lost the news. xid is the writing transaction: a row is
-- visible to everyone once no transaction up to xid is open any more. payload is packed; ids are 16
-- bytes, numbers 8, most significant first:
--   entries: (conversation, last seq) for each log that grew
--   members: conversation, then each user whose membership began or ended
--   revoked: user, then each session that ended
create table journal (
    xid xid8 not null default pg_current_xact_id(),
    kind text not null check (kind in ('entries', 'members', 'revoked')),
    payload bytea not null,
    at bigint not null
);
create index journal_xid on journal (xid);
create index journal_at on journal (at);

create table audit_log (
    audit_id uuid primary key,
    at bigint not null,
    actor_id uuid,
    action text not null,
    target text,
    details text,
    ip text
);
create index audit_log_at on audit_log (at);
