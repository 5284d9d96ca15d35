-- What the peers keep that bring no schema of their own: as much of Rookery's as their work needs.
create table users (
    user_id uuid primary key,
    username text not null unique,
    created_at timestamptz not null default now()
);

-- last_seq gives messages their places: whoever appends locks the row.
create table conversations (
    conversation_id uuid primary key,
    last_seq bigint not null default 0
) with (fillfactor = 50);

create table members (
    conversation_id uuid not null references conversations,
    user_id uuid not null references users,
    primary key (conversation_id, user_id)
);
create index members_by_user on members (user_id);

-- No foreign keys, as in Rookery: whoever appends is a member, and has the conversation's row.
create table messages (
    conversation_id uuid not null,
    seq bigint not null,
    message_id uuid not null unique,
    sender_id uuid not null,
    content text not null,
    created_at timestamptz not null default now(),
    primary key (conversation_id, seq)
);
