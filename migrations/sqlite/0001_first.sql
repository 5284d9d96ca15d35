-- The first schema. The PostgreSQL twin of this file makes the same tables and columns, and says
-- what they are for. Here: ids are 16-byte blobs, booleans 0 or 1.

create table meta (
    key text primary key,
    value text not null
) strict, without rowid;
insert into meta (key, value) values ('epoch', lower(hex(randomblob(16)))), ('schema_release', '1');

create table users (
    user_id blob primary key,
    username text not null,
    email text not null,
    password_hash text not null,
    full_name text,
    avatar_url text,
    role text not null check (role in ('user', 'admin')),
    auth_version integer not null default 1,
    banned_at integer,
    created_at integer not null,
    last_login_at integer,
    last_seen_at integer,
    deleted_at integer
) strict, without rowid;
create unique index users_username on users (lower(username));
create unique index users_email on users (lower(email));

create table sessions (
    session_id blob primary key,
    user_id blob not null references users,
    token_hash blob not null,
    previous_token_hash blob,
    rotated_at integer,
    device_name text,
    ip text,
    user_agent text,
    created_at integer not null,
    last_used_at integer not null,
    expires_at integer not null,
    revoked_at integer
) strict, without rowid;
create index sessions_user on sessions (user_id);
create index sessions_revoked on sessions (revoked_at) where revoked_at is not null;

create table conversations (
    conversation_id blob primary key,
    kind text not null check (kind in ('direct', 'group')),
    title text,
    description text,
    history_visible integer not null default 0 check (history_visible in (0, 1)),
    created_by blob not null references users,
    created_at integer not null,
    deleted_at integer
) strict, without rowid;

create table conversation_heads (
    conversation_id blob primary key references conversations,
    last_seq integer not null default 0,
    last_at integer not null,
    member_version integer not null default 1,
    member_count integer not null default 0,
    fanout_mode text not null default 'direct' check (fanout_mode in ('direct', 'channel'))
) strict, without rowid;

create table members (
    conversation_id blob not null references conversations,
    user_id blob not null references users,
    role text not null check (role in ('member', 'admin', 'owner')),
    joined_at integer not null,
    joined_seq integer not null,
    left_seq integer,
    delivered_seq integer not null,
    read_seq integer not null,
    read_at integer,
    muted_until integer,
    primary key (conversation_id, user_id)
) strict, without rowid;
create index members_user on members (user_id, conversation_id);

-- Without rowid: the rows of a log stand together.
create table messages (
    conversation_id blob not null,
    seq integer not null,
    kind text not null,
    message_id blob not null,
    sender_id blob not null,
    request_hash blob,
    target_seq integer,
    content blob not null,
    content_key_id text,
    metadata text,
    reply_to integer,
    mentions blob,
    created_at integer not null,
    edited_at integer,
    deleted_at integer,
    primary key (conversation_id, seq),
    unique (conversation_id, message_id)
) strict, without rowid;
create index messages_mentions on messages (conversation_id, seq) where mentions is not null;

create table reactions (
    conversation_id blob not null,
    seq integer not null,
    emoji text not null,
    user_id blob not null,
    created_at integer not null,
    primary key (conversation_id, seq, emoji, user_id)
) strict, without rowid;

create table blocks (
    user_id blob not null references users,
    blocked_id blob not null references users,
    created_at integer not null,
    primary key (user_id, blocked_id)
) strict, without rowid;

-- One writer at a time: the number of a row is its place in the order of commits. Numbers are never
-- used again, also after all rows were pruned (autoincrement).
create table journal (
    xid integer primary key autoincrement,
    kind text not null check (kind in ('entries', 'members', 'revoked')),
    payload blob not null,
    at integer not null
) strict;
create index journal_at on journal (at);

create table audit_log (
    audit_id blob primary key,
    at integer not null,
    actor_id blob,
    action text not null,
    target text,
    details text,
    ip text
) strict, without rowid;
create index audit_log_at on audit_log (at);
