// Who of this node takes part in which conversation. A conversation has a Redis channel of its own,
// to which a node is subscribed while any of its members is connected here.

import Redis from 'ioredis';

// A published frame begins with the connection that it came from, which does not want it back.
const ORIGIN_BYTES = 36;

export class Rooms {
  constructor(url) {
    this.sockets = new Map();
    this.publisher = new Redis(url, { enableAutoPipelining: true });
    this.subscriber = new Redis(url);
    this.subscriber.on('messageBuffer', (channel, message) => this.#deliver(channel, message));
  }

  // Takes part in these from now on, on this node and on others.
  async join(socket, conversations) {
    for (const id of conversations) {
      const room = this.sockets.get(id);
      if (room) room.add(socket);
      else this.sockets.set(id, new Set([socket]));
    }
    // Those too that another connection has subscribed to: it may not have been answered yet.
    if (conversations.length > 0) await this.subscriber.subscribe(...conversations);
  }

  leave(socket, conversations) {
    const empty = conversations.filter((id) => {
      const room = this.sockets.get(id);
      return room?.delete(socket) && room.size === 0 && this.sockets.delete(id);
    });
    if (empty.length > 0) this.subscriber.unsubscribe(...empty).catch(report);
  }

  publish(conversation, origin, frame) {
    this.publisher.publish(conversation, origin + frame).catch(report);
  }

  #deliver(channel, message) {
    const room = this.sockets.get(channel.toString());
    if (!room) return;
    const origin = message.toString('latin1', 0, ORIGIN_BYTES);
    const frame = message.subarray(ORIGIN_BYTES);
    for (const socket of room) {
      if (socket.id !== origin && socket.readyState === socket.OPEN) {
        socket.send(frame, { binary: false });
      }
    }
  }
}

function report(error) {
  console.error('Redis:', error.message);
}
