// A node of a chat server that speaks the part of Rookery's protocol which a load test needs: ready,
// ping, message.send, message.ack, message.new, error. Several nodes find each other through Redis.

import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import jwt from 'jsonwebtoken';
import { WebSocketServer } from 'ws';
import { Rooms } from './rooms.js';
import { Store } from './store.js';

const { DATABASE_URL, JWT_SECRET, NODE_NAME, PORT, REDIS_URL } = process.env;
const PROTOCOL = 'rookery.v1.json';
const HEARTBEAT_SECONDS = 25;
const MAX_FRAME_BYTES = 64 * 1024;
const LIMITS = { frame_bytes: MAX_FRAME_BYTES, content_chars: 16_000, in_flight: 1_000, presence_watch: 0 };

const store = new Store(DATABASE_URL);
const rooms = new Rooms(REDIS_URL);
const sockets = new WebSocketServer({
  noServer: true,
  maxPayload: MAX_FRAME_BYTES,
  handleProtocols: (offered) => (offered.has(PROTOCOL) ? PROTOCOL : false),
});
const server = createServer((_request, response) => response.writeHead(404).end());

server.on('upgrade', (request, tcp, head) => {
  let claims;
  try {
    const token = (request.headers.authorization ?? '').replace(/^Bearer /, '');
    claims = jwt.verify(token, JWT_SECRET, { algorithms: ['HS256'] });
  } catch {
    tcp.end('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
    return;
  }
  sockets.handleUpgrade(request, tcp, head, (socket) => {
    connected(socket, claims).catch((error) => {
      console.error('a connection failed:', error.message);
      socket.close(1011);
    });
  });
});

async function connected(socket, claims) {
  socket.id = randomUUID();
  socket.user = claims.sub;
  socket.isAlive = true;
  socket.on('pong', alive);
  socket.on('error', (error) => console.error('a socket failed:', error.message));
  const conversations = await store.conversationsOf(socket.user);
  await rooms.join(socket, conversations);
  if (socket.readyState !== socket.OPEN) {
    rooms.leave(socket, conversations);
    return;
  }
  socket.on('close', () => rooms.leave(socket, conversations));

  // One command after the other: what somebody sends is stored in the order in which it came.
  let last = Promise.resolve();
  socket.on('message', (data) => {
    last = last.then(() => command(socket, data)).catch((error) => {
      console.error('a command failed:', error.message);
      refuse(socket, 'INTERNAL', 'the command failed');
    });
  });
  send(socket, ready(socket, claims));
}

async function command(socket, data) {
  let frame;
  try {
    frame = JSON.parse(data);
  } catch {
    return refuse(socket, 'BAD_FRAME', 'not JSON');
  }
  switch (frame.type) {
    case 'ping':
      return send(socket, { type: 'pong', ref: frame.ref });
    case 'message.send':
      return message(socket, frame);
    default:
      return refuse(socket, 'UNKNOWN_TYPE', 'no such command');
  }
}

async function message(socket, { conversation_id, message_id, content }) {
  if (typeof content !== 'string' || content.length === 0 || content.length > LIMITS.content_chars) {
    return refuse(socket, 'INVALID', 'content: 1 to 16,000 characters', message_id);
  }
  const stored = await store.append({ conversation_id, message_id, content }, socket.user);
  if (!stored) return refuse(socket, 'NOT_FOUND', 'no such conversation', message_id);
  const { seq, created_at, duplicate = false } = stored;
  if (!duplicate) {
    const message = { message_id, conversation_id, seq, sender_id: socket.user, kind: 'text', content, created_at };
    rooms.publish(conversation_id, socket.id, JSON.stringify({ type: 'message.new', message }));
  }
  send(socket, { type: 'message.ack', message_id, conversation_id, seq, created_at, status: 'sent', duplicate });
}

function ready(socket, claims) {
  const now = new Date().toISOString();
  return {
    type: 'ready',
    user: { user_id: socket.user, username: claims.username, role: 'user', created_at: now },
    session_id: socket.id,
    node_id: NODE_NAME,
    epoch: 'peer',
    server_time: now,
    heartbeat_seconds: HEARTBEAT_SECONDS,
    token_expires_at: new Date(claims.exp * 1_000).toISOString(),
    limits: LIMITS,
  };
}

function refuse(socket, code, message, message_id) {
  send(socket, { type: 'error', code, message, message_id, retryable: false, details: [] });
}

function send(socket, event) {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(event));
}

function alive() {
  this.isAlive = true;
}

setInterval(() => {
  for (const socket of sockets.clients) {
    if (!socket.isAlive) socket.terminate();
    else {
      socket.isAlive = false;
      socket.ping();
    }
  }
}, HEARTBEAT_SECONDS * 1_000);

// The default of 511 is too few for a thousand connections at once.
server.listen({ port: Number(PORT), host: '127.0.0.1', backlog: 4_096 });
