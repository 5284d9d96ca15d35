// Messages and conversations in PostgreSQL. One statement appends a message: it checks membership,
// takes the next place in the conversation, and stores the message in it.

import pg from 'pg';

// Enough for PostgreSQL to commit several transactions with one fsync.
const CONNECTIONS = 20;
const UNIQUE_VIOLATION = '23505';

const APPEND = `
  with head as (
    update conversations set last_seq = last_seq + 1
    where conversation_id = $1
      and exists (select from members where conversation_id = $1 and user_id = $2)
    returning last_seq
  )
  insert into messages (conversation_id, seq, message_id, sender_id, content)
  select $1, last_seq, $3, $2, $4 from head
  returning seq, created_at`;
const FIND = `
  select seq, created_at from messages
  where message_id = $1 and conversation_id = $2 and sender_id = $3`;
const CONVERSATIONS = 'select conversation_id from members where user_id = $1';

// Places in a conversation stay far below 2^53.
pg.types.setTypeParser(pg.types.builtins.INT8, Number);

export class Store {
  constructor(url) {
    this.pool = new pg.Pool({ connectionString: url, max: CONNECTIONS, idleTimeoutMillis: 0 });
    this.pool.on('error', (error) => console.error('an idle connection was lost:', error.message));
  }

  // { seq, created_at } of the stored message; undefined if the sender is no member. A message that
  // was stored before keeps its place.
  async append({ conversation_id, message_id, content }, sender) {
    try {
      const values = [conversation_id, sender, message_id, content];
      const { rows } = await this.pool.query({ name: 'append', text: APPEND, values });
      return rows[0];
    } catch (error) {
      if (error.code !== UNIQUE_VIOLATION) throw error;
      const values = [message_id, conversation_id, sender];
      const { rows } = await this.pool.query({ name: 'find', text: FIND, values });
      return rows[0] && { ...rows[0], duplicate: true };
    }
  }

  async conversationsOf(user) {
    const query = { name: 'conversations', text: CONVERSATIONS, values: [user] };
    const { rows } = await this.pool.query(query);
    return rows.map((row) => row.conversation_id);
  }
}
