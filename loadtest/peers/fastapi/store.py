"""Messages and conversations in PostgreSQL. One statement appends a message: it checks membership,
takes the next place in the conversation, and stores the message in it."""

import asyncpg

# Enough for PostgreSQL to commit several transactions with one fsync.
CONNECTIONS = 20

APPEND = """
    with head as (
        update conversations set last_seq = last_seq + 1
        where conversation_id = $1
          and exists (select from members where conversation_id = $1 and user_id = $2)
        returning last_seq
    )
    insert into messages (conversation_id, seq, message_id, sender_id, content)
    select $1, last_seq, $3, $2, $4 from head
    returning seq, created_at"""
FIND = """
    select seq, created_at from messages
    where message_id = $1 and conversation_id = $2 and sender_id = $3"""
CONVERSATIONS = "select conversation_id::text from members where user_id = $1"


class Connection(asyncpg.Connection):
    """Nothing here changes a session, so that a connection needs no reset, which is a round trip."""

    def get_reset_query(self):
        return ""


class Store:
    def __init__(self, pool):
        self.pool = pool

    @classmethod
    async def open(cls, url):
        pool = await asyncpg.create_pool(
            url, min_size=CONNECTIONS, max_size=CONNECTIONS, connection_class=Connection
        )
        return cls(pool)

    async def close(self):
        await self.pool.close()

    async def append(self, conversation_id, message_id, content, sender):
        """(seq, created_at, duplicate) of the stored message; None if the sender is no member. A
        message that was stored before keeps its place."""
        try:
            row = await self.pool.fetchrow(APPEND, conversation_id, sender, message_id, content)
            return row and (row["seq"], row["created_at"], False)
        except asyncpg.UniqueViolationError:
            row = await self.pool.fetchrow(FIND, message_id, conversation_id, sender)
            return row and (row["seq"], row["created_at"], True)

    async def conversations_of(self, user):
        rows = await self.pool.fetch(CONVERSATIONS, user)
        return [row["conversation_id"] for row in rows]
