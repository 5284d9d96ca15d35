// What this window knows of its conversations: members, messages by `seq`, how far it got. Every
// event of the server goes through `handle`; `change` is fired after anything changed.

import { Marks, newId, Unsent } from "./outgoing.js";
import { People } from "./people.js";

const HISTORY_PAGE = 50;
const STATUS_ORDER = [null, "sent", "delivered", "read"];

export class Conversations extends EventTarget {
  /** By id: { wire, messages, oldest, hasOlder, loaded, cursor, other, membersAsked }.
   * `messages`: by `seq`. `cursor`: the highest `seq` up to which everything came; undefined for
   * what is new since the list was read: the server then counts from the joining. */
  #all = new Map();
  /** The open conversation's id. */
  open = null;
  #session;
  #epoch = null;
  #listed = false;

  /** Knows nothing yet; for the person who is logged in now. */
  constructor(session, connection) {
    super();
    this.#session = session;
    this.me = session.user.user_id;
    this.people = new People(session, () => this.#changed());
    this.unsent = new Unsent(connection, () => this.#changed());
    this.marks = new Marks(connection);
  }

  /** The cursors to resume from, once there is a list of conversations. */
  async syncRequest(ready) {
    this.unsent.frameBytes = ready.limits.frame_bytes;
    // The database was set back: what was numbered before has other numbers now.
    if (this.#epoch !== null && this.#epoch !== ready.epoch) {
      this.#all.clear();
      this.#listed = false;
    }
    this.#epoch = ready.epoch;
    if (!this.#listed) await this.#list();
    const known = [...this.#all.values()].filter((entry) => entry.cursor !== undefined);
    return Object.fromEntries(known.map(({ wire, cursor }) => [wire.conversation_id, cursor]));
  }

  /** Reads the list. What happens after it was read comes by the socket. */
  async #list() {
    let after = "";
    do {
      const page = await this.#session.request("GET", `/conversations?limit=200${after}`);
      for (const wire of page.items) this.#listedOne(this.#update(wire));
      after = page.next_cursor ? `&cursor=${encodeURIComponent(page.next_cursor)}` : "";
    } while (after);
    this.#listed = true;
    if (this.open) this.show(this.open).catch(() => {});
  }

  /** Whatever was read before the list may lack what happened in between. */
  #listedOne(entry) {
    if (entry.cursor !== undefined) return;
    Object.assign(entry, { cursor: entry.wire.last_seq, loaded: false });
    entry.messages.clear();
  }

  get(id) {
    return this.#all.get(id);
  }

  newestFirst() {
    const activity = ({ wire }) => (wire.last_message ?? wire).created_at ?? "";
    return [...this.#all.values()].sort((a, b) => (activity(a) < activity(b) ? 1 : -1));
  }

  title(entry) {
    if (entry.wire.kind === "group") return entry.wire.title || "Group";
    if (entry.other) return this.people.name(entry.other);
    this.#readMembers(entry);
    return "–";
  }

  /** Messages to show, in order: from the oldest of the history that was read. */
  messages(id) {
    const entry = this.#all.get(id);
    if (!entry?.loaded) return [];
    const shown = [...entry.messages.values()].filter((message) => message.seq >= entry.oldest);
    return shown.sort((a, b) => a.seq - b.seq);
  }

  /** Opens a conversation; its newest messages are read the first time. */
  async show(id) {
    this.open = id;
    this.#changed();
    const entry = this.#all.get(id);
    if (entry && !entry.loaded) await this.older(id);
    this.seen();
  }

  /** Reads a page of history before what is there. */
  async older(id) {
    const entry = this.#all.get(id);
    const before = entry.loaded ? `&before_seq=${entry.oldest}` : "";
    const path = `/conversations/${id}/messages?limit=${HISTORY_PAGE}${before}`;
    const page = await this.#session.request("GET", path);
    this.people.add(page.users);
    // What the socket brought is as new as this page or newer.
    for (const message of page.items) {
      if (!entry.messages.has(message.seq)) entry.messages.set(message.seq, message);
    }
    entry.hasOlder = page.has_more && page.items.length > 0;
    entry.oldest = entry.hasOlder ? page.items[0].seq : 0;
    entry.loaded = true;
    this.#changed();
  }

  async search(query) {
    const path = `/users?limit=20&query=${encodeURIComponent(query)}`;
    const { items } = await this.#session.request("GET", path);
    this.people.add(items);
    return items.filter((user) => user.user_id !== this.me);
  }

  async startDirect(userId) {
    const body = { kind: "direct", user_id: userId };
    const wire = await this.#session.request("POST", "/conversations", body);
    this.#update(wire).other = userId;
    await this.show(wire.conversation_id);
  }

  /** The id is made here, so that a repeated request makes no second group. */
  async startGroup(title, memberIds) {
    const body = { kind: "group", conversation_id: newId(), title, member_ids: memberIds };
    const wire = await this.#session.request("POST", "/conversations", body);
    this.#update(wire);
    await this.show(wire.conversation_id);
  }

  /** If the open conversation is on the screen, everything in it counts as read. */
  seen() {
    const entry = this.#all.get(this.open);
    if (!entry?.loaded || document.hidden || !document.hasFocus()) return;
    const { wire, messages } = entry;
    const seq = Math.max(0, ...messages.keys());
    if (seq > wire.me.read_seq) {
      wire.me.read_seq = seq;
      this.marks.raise(wire.conversation_id, "read", seq);
    }
    if (wire.unread_count > 0) {
      wire.unread_count = 0;
      this.#changed();
    }
  }

  handle(event) {
    const action = this.#actions[event.type];
    if (!action) return;
    action(event);
    this.#changed();
  }

  #actions = {
    live: () => {
      this.unsent.flush();
      for (const entry of this.#all.values()) this.#delivered(entry, entry.wire.last_seq);
      this.seen();
      this.marks.flush();
    },
    "message.ack": (ack) => this.#acked(ack),
    "message.new": ({ message }) => this.#arrived(message),
    "message.edited": (change) => this.#altered(change),
    "message.deleted": (change) => this.#altered(change),
    "reaction.added": (change) => this.#altered(change),
    "reaction.removed": (change) => this.#altered(change),
    "message.batch": ({ conversation_id, messages, changed, to_seq }) => {
      for (const message of messages) this.#arrived(message);
      for (const message of changed) this.#altered({ conversation_id, seq: to_seq, message });
      advance(this.#entry(conversation_id), to_seq);
    },
    "sync.done": ({ reset }) => {
      for (const { conversation_id, seq } of reset) this.#reset(conversation_id, seq);
    },
    "conversation.created": ({ conversation }) => this.#update(conversation),
    "conversation.updated": ({ conversation }) => this.#update(conversation),
    "conversation.member_added": ({ conversation_id }) => this.#refresh(conversation_id),
    "conversation.member_removed": ({ conversation_id, member }) => {
      if (member.user_id === this.me) this.#left(conversation_id);
      else this.#refresh(conversation_id);
    },
    "conversation.read": ({ conversation_id, seq, unread_count }) => {
      const { wire } = this.#entry(conversation_id);
      wire.unread_count = unread_count;
      wire.me.read_seq = Math.max(wire.me.read_seq, seq);
    },
    "receipt.delivered": (receipt) => this.#raise(receipt, "delivered"),
    "receipt.read": (receipt) => this.#raise(receipt, "read"),
    error: (error) => this.unsent.refused(error),
  };

  #arrived(message) {
    const entry = this.#entry(message.conversation_id);
    const { wire } = entry;
    // A message may come twice: as its ack and as an event, or again after a lost connection.
    const known = message.seq <= (entry.cursor ?? 0) || entry.messages.has(message.seq);
    entry.messages.set(message.seq, message);
    advance(entry, message.seq);
    newest(wire, message);
    if (message.sender_id === this.me) {
      this.unsent.take(message.message_id);
      return;
    }
    const counts = !known && message.kind === "text" && message.seq > wire.me.read_seq;
    if (counts) wire.unread_count += 1;
    if (this.open === wire.conversation_id) this.seen();
    this.#delivered(entry, message.seq);
  }

  #altered({ conversation_id, seq, message }) {
    const entry = this.#entry(conversation_id);
    // Also one that is not shown: a page of history that is on its way may hold it as it was.
    entry.messages.set(message.seq, message);
    if (entry.wire.last_message?.seq === message.seq) entry.wire.last_message = message;
    advance(entry, seq);
  }

  /** An ack says where a message stands, and nothing of what came before it: it moves no cursor. */
  #acked({ message_id, conversation_id, seq, created_at, status }) {
    const send = this.unsent.take(message_id);
    const entry = this.#entry(conversation_id);
    if (!send || entry.messages.has(seq)) return;
    const message = {
      message_id, conversation_id, seq, created_at, status,
      sender_id: this.me, kind: "text", content: send.content, edited_at: null, deleted_at: null,
    };
    entry.messages.set(seq, message);
    newest(entry.wire, message);
  }

  /** Receipts say "up to": one on a later message holds for all before it. */
  #raise({ conversation_id, user_id, seq }, status) {
    if (user_id === this.me) return;
    const rank = (word) => STATUS_ORDER.indexOf(word ?? null);
    for (const message of this.#entry(conversation_id).messages.values()) {
      const concerned = message.sender_id === this.me && message.seq <= seq;
      if (concerned && rank(message.status) < rank(status)) message.status = status;
    }
  }

  #delivered({ wire }, seq) {
    if (seq <= wire.me.delivered_seq) return;
    wire.me.delivered_seq = seq;
    this.marks.raise(wire.conversation_id, "delivered", seq);
  }

  /** Too far behind to be replayed: history is read anew when somebody looks. */
  #reset(id, seq) {
    const entry = this.#entry(id);
    Object.assign(entry, { cursor: seq, loaded: false, hasOlder: false });
    entry.messages.clear();
    this.#refresh(id);
    if (this.open === id) this.show(id).catch(() => {});
  }

  #left(id) {
    this.#all.delete(id);
    if (this.open === id) this.open = null;
    this.#changed();
  }

  /** What the server says of a conversation, put over what is known. */
  #update(wire) {
    const id = wire.conversation_id;
    const entry = this.#all.get(id) ?? { messages: new Map(), loaded: false, hasOlder: false };
    const before = entry.wire;
    entry.wire = wire;
    if (before) {
      for (const mark of ["delivered_seq", "read_seq"]) {
        wire.me[mark] = Math.max(wire.me[mark], before.me[mark]);
      }
      if (before.last_seq > wire.last_seq) {
        Object.assign(wire, { last_seq: before.last_seq, last_message: before.last_message });
      }
    }
    this.#all.set(id, entry);
    const sender = wire.last_message?.sender_id;
    if (wire.kind === "direct" && sender && sender !== this.me) entry.other ??= sender;
    this.#changed();
    return entry;
  }

  /** The entry of a conversation; one heard of for the first time is asked for. */
  #entry(id) {
    const entry = this.#all.get(id);
    if (entry) return entry;
    this.#refresh(id);
    const me = { role: "member", joined_seq: 0, delivered_seq: 0, read_seq: 0, muted_until: null };
    const wire = { conversation_id: id, kind: "group", title: "…", member_count: 0, last_seq: 0 };
    return this.#update({ ...wire, last_message: null, unread_count: 0, mention_count: 0, me });
  }

  #refresh(id) {
    const request = this.#session.request("GET", `/conversations/${id}`);
    request.then((wire) => this.#update(wire)).catch((error) => {
      if (error.code === "NOT_FOUND") this.#left(id);
    });
  }

  /** Finds out who the other one of a direct conversation is. */
  async #readMembers(entry) {
    if (entry.membersAsked) return;
    entry.membersAsked = true;
    try {
      const path = `/conversations/${entry.wire.conversation_id}/members`;
      const { items } = await this.#session.request("GET", path);
      this.people.add(items);
      entry.other = items.find((member) => member.user_id !== this.me)?.user_id;
      this.#changed();
    } catch {
      entry.membersAsked = false;
    }
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

function advance(entry, seq) {
  entry.cursor = Math.max(entry.cursor ?? 0, seq);
}

function newest(wire, message) {
  if (message.seq < wire.last_seq) return;
  wire.last_seq = message.seq;
  wire.last_message = message;
}
