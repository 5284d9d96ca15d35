// A node of a chat server on socket.io. A conversation is a room; the Redis adapter carries what is
// emitted to a room to the other nodes.

import { createServer } from 'node:http';
import { createAdapter } from '@socket.io/redis-adapter';
import Redis from 'ioredis';
import jwt from 'jsonwebtoken';
import { Server } from 'socket.io';
import { Store } from './store.js';

const { DATABASE_URL, JWT_SECRET, PORT, REDIS_URL } = process.env;
const MAX_FRAME_BYTES = 64 * 1024;
const MAX_CONTENT_CHARS = 16_000;

const store = new Store(DATABASE_URL);
const publisher = new Redis(REDIS_URL, { enableAutoPipelining: true });
const server = createServer((_request, response) => response.writeHead(404).end());
const io = new Server(server, {
  adapter: createAdapter(publisher, publisher.duplicate()),
  transports: ['websocket'],
  maxHttpBufferSize: MAX_FRAME_BYTES,
  serveClient: false,
});

// The upgrade request would stay in memory with the connection: socket.io's advice on memory.
io.engine.on('connection', (connection) => {
  connection.request = null;
});

io.use((socket, next) => {
  try {
    const claims = jwt.verify(socket.handshake.auth.token, JWT_SECRET, { algorithms: ['HS256'] });
    socket.data.user = claims.sub;
    next();
  } catch {
    next(new Error('UNAUTHENTICATED'));
  }
});

// Before the client hears of its connection: nothing is missed after that.
io.use((socket, next) => {
  store.conversationsOf(socket.data.user).then(
    (conversations) => {
      socket.data.rooms = conversations;
      next();
    },
    (error) => next(error),
  );
});

io.on('connection', (socket) => {
  socket.join(socket.data.rooms);
  delete socket.data.rooms;

  // One message after the other: what somebody sends is stored in the order in which it came.
  let last = Promise.resolve();
  socket.on('message.send', (frame, answer) => {
    if (typeof answer !== 'function') return;
    last = last.then(() => message(socket, frame)).then(answer, (error) => {
      console.error('a message failed:', error.message);
      answer({ code: 'INTERNAL', message: 'the message failed', message_id: frame?.message_id });
    });
  });
  socket.on('whoami', (answer) => answer?.({ user_id: socket.data.user }));
});

async function message(socket, { conversation_id, message_id, content } = {}) {
  if (typeof content !== 'string' || content.length === 0 || content.length > MAX_CONTENT_CHARS) {
    return { code: 'INVALID', message: 'content: 1 to 16,000 characters', message_id };
  }
  const sender_id = socket.data.user;
  const stored = await store.append({ conversation_id, message_id, content }, sender_id);
  if (!stored) return { code: 'NOT_FOUND', message: 'no such conversation', message_id };
  const { seq, created_at, duplicate = false } = stored;
  if (!duplicate) {
    const message = { message_id, conversation_id, seq, sender_id, kind: 'text', content, created_at };
    socket.to(conversation_id).emit('message.new', message);
  }
  return { message_id, conversation_id, seq, created_at, duplicate };
}

// The default of 511 is too few for a thousand connections at once.
server.listen({ port: Number(PORT), host: '127.0.0.1', backlog: 4_096 });
