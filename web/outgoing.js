// What is on its way to the server: messages until they are acknowledged, and marks.

const STORED = "rookery.unsent";
const RETRY_AFTER_MS = 1_000;
/** Marks are sent together after this time: one frame for a burst of messages. */
const MARKS_AFTER_MS = 300;

/** Messages without an acknowledgement. Each keeps its `message_id`, so that sending it again, over
 * another connection or after a reload, stores it once. */
export class Unsent {
  #connection;
  #sends = new Map();
  #changed;

  constructor(connection, changed) {
    this.#connection = connection;
    this.#changed = changed;
    const kept = JSON.parse(sessionStorage.getItem(STORED) ?? "[]");
    for (const send of kept) this.#sends.set(send.message_id, send);
  }

  /** The largest frame the server takes. */
  frameBytes = 65_536;

  of(conversationId) {
    return [...this.#sends.values()].filter((send) => send.conversation_id === conversationId);
  }

  add(conversationId, content) {
    const send = { message_id: newId(), conversation_id: conversationId, content };
    this.#sends.set(send.message_id, send);
    this.#transmit(send);
  }

  /** There is a connection: whatever has no ack goes out (again), in the order it was written. */
  flush() {
    for (const send of this.#sends.values()) if (!send.failed) this.#transmit(send);
  }

  retry(messageId) {
    const send = this.#sends.get(messageId);
    if (!send) return;
    delete send.failed;
    this.#transmit(send);
  }

  /** Takes a send out, because it was stored or because nobody wants it any more. */
  take(messageId) {
    const send = this.#sends.get(messageId);
    this.#sends.delete(messageId);
    this.#save();
    return send;
  }

  refused(error) {
    const send = this.#sends.get(error.message_id ?? error.ref);
    if (!send) return;
    if (error.retryable) {
      setTimeout(() => this.#transmit(send), error.retry_after_ms ?? RETRY_AFTER_MS);
    } else {
      send.failed = error.message;
      this.#save();
    }
  }

  forget() {
    this.#sends.clear();
    sessionStorage.removeItem(STORED);
  }

  #transmit(send) {
    if (!this.#sends.has(send.message_id)) return;
    const { message_id, conversation_id, content } = send;
    const frame = { type: "message.send", ref: message_id, message_id, conversation_id, content };
    if (new TextEncoder().encode(JSON.stringify(frame)).length > this.frameBytes) {
      send.failed = "the message is too long";
    } else {
      this.#connection.send(frame);
    }
    this.#save();
  }

  #save() {
    sessionStorage.setItem(STORED, JSON.stringify([...this.#sends.values()]));
    this.#changed();
  }
}

/** How far this person got in each conversation, told to the server now and then. */
export class Marks {
  #connection;
  #waiting = new Map();
  #timer = null;

  constructor(connection) {
    this.#connection = connection;
  }

  /** Everything up to `seq` has arrived (`delivered`) or was read (`read`). */
  raise(conversationId, kind, seq) {
    const mark = this.#waiting.get(conversationId) ?? { delivered: 0, read: 0 };
    mark[kind] = Math.max(mark[kind], seq);
    this.#waiting.set(conversationId, mark);
    this.#timer ??= setTimeout(() => this.flush(), MARKS_AFTER_MS);
  }

  /** Sends what waits; without a connection it goes on waiting. */
  flush() {
    clearTimeout(this.#timer);
    this.#timer = null;
    if (!this.#connection.live) return;
    for (const [conversation_id, { delivered, read }] of this.#waiting) {
      const mark = (type, seq) => this.#connection.send({ type, conversation_id, seq });
      if (read > 0) mark("message.read", read);
      // Reading implies delivery.
      if (delivered > read) mark("message.delivered", delivered);
    }
    this.#waiting.clear();
  }
}

/** A random UUID. `crypto.randomUUID` exists on HTTPS and localhost only. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
