// One WebSocket that stays up: connects, resumes with cursors, keeps its token fresh, comes back.
//
// It always connects with `resume=1`: the server holds back what happens in conversations until
// the first `sync`, and from then on everything arrives in `seq` order.

import { Refused } from "./session.js";

const SUBPROTOCOL = "rookery.v1.json";
/** Waits between attempts double from here to the cap; the actual wait is a random part of it. */
const WAIT_FIRST_MS = 1_000;
const WAIT_MAX_MS = 30_000;
/** From opening to `ready`; the server itself gives up after 10 s without a `sync`. */
const READY_WITHIN_MS = 15_000;
/** The token of a live socket is renewed this long before it runs out. */
const RENEW_BEFORE_MS = 60_000;
const RENEW_AT_MOST_EVERY_MS = 10_000;
/** The standard codes after which coming back would change nothing; 4000 to 4099 say so too. */
const FINAL = new Set([1000, 1002, 1003, 1007, 1008, 1009]);
const TOKEN_EXPIRED = 4103;

/** Fires `state` ({word, text}), `frame` ({sent, frame} or {note}) and `event` (a server event). */
export class Connection extends EventTarget {
  #session;
  #syncRequest;
  #socket = null;
  #timers = new Map();
  #attempts = 0;
  #wanted = false;
  #live = false;
  #hintMs = null;
  #heardAt = 0;

  /** `syncRequest(ready)` answers the cursors to resume from, once `ready` has come. */
  constructor(session, syncRequest) {
    super();
    this.#session = session;
    this.#syncRequest = syncRequest;
    addEventListener("online", () => this.#hurry());
  }

  /** Whether requests would reach the server now. */
  get live() {
    return this.#live;
  }

  start() {
    this.#wanted = true;
    this.#attempts = 0;
    this.#open();
  }

  stop() {
    this.#wanted = false;
    this.#drop();
    this.#tell("stopped", "Not connected");
  }

  /** Sends a frame; false if there is no live connection. */
  send(frame) {
    if (!this.#live) return false;
    this.#write(frame);
    return true;
  }

  async #open() {
    this.#drop();
    this.#tell("waiting", "Connecting…");
    let token;
    try {
      token = await this.#session.token();
    } catch (error) {
      const over = error instanceof Refused && error.status < 500 && error.status !== 429;
      if (!over) this.#later();
      return;
    }
    if (!this.#wanted || this.#socket) return;
    const url = new URL("/ws", location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("resume", "1");
    url.searchParams.set("token", token);
    const socket = new WebSocket(url, SUBPROTOCOL);
    this.#socket = socket;
    this.#note("connecting to /ws?resume=1&token=…");
    this.#after("ready", READY_WITHIN_MS, () => this.#lost(1006, "no answer in time"));
    // Events of a socket that was given up are of no interest.
    const current = (handle) => (event) => this.#socket === socket && handle(event);
    socket.onmessage = current((event) => this.#received(event.data));
    socket.onclose = current((event) => this.#lost(event.code, event.reason));
  }

  #received(text) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    this.#fire("frame", { sent: false, frame });
    if (frame.type === "ready") this.#ready(frame);
    if (frame.type === "auth.ok") this.#renewInTime();
    if (frame.type === "server.draining") this.#hintMs = frame.reconnect_after_ms;
    if (frame.type === "error" && frame.ref === "sync") this.#lost(1006, frame.message);
    this.#fire("event", frame);
    if (frame.type === "sync.done" && frame.ref === "sync") {
      this.#live = true;
      this.#attempts = 0;
      this.#tell("live", "Connected");
      this.#fire("event", { type: "live" });
    }
  }

  async #ready(ready) {
    const socket = this.#socket;
    this.#cancel("ready");
    this.#tell("waiting", "Catching up…");
    this.#renewInTime();
    this.#watch(ready.heartbeat_seconds * 1000);
    try {
      const cursors = await this.#syncRequest(ready);
      if (this.#socket === socket) this.#write({ type: "sync", ref: "sync", cursors });
    } catch (error) {
      if (this.#socket === socket) this.#lost(1006, error.message);
    }
  }

  /** Browsers hide the server's pings, so this side asks too: after one heartbeat of silence it
   * sends `ping`, after more than two the connection counts as lost. */
  #watch(heartbeatMs) {
    this.#after("watch", heartbeatMs, () => {
      const silence = Date.now() - this.#heardAt;
      if (silence > heartbeatMs * 2.4) return this.#lost(1006, "no sign of life");
      if (silence > heartbeatMs * 0.9) this.#write({ type: "ping" });
      this.#watch(heartbeatMs);
    });
  }

  #renewInTime() {
    const left = this.#session.expiresAt - Date.now() - RENEW_BEFORE_MS;
    this.#after("renew", Math.max(left, RENEW_AT_MOST_EVERY_MS), async () => {
      const socket = this.#socket;
      try {
        await this.#session.renew();
        const token = await this.#session.token();
        if (this.#socket === socket) this.#write({ type: "auth", ref: "renew", token });
      } catch {
        // The socket will be closed with 4103 and tried again, unless the session has ended.
      }
    });
  }

  async #lost(code, reason) {
    this.#note(`closed: ${code} ${reason}`);
    const hint = this.#hintMs;
    this.#drop();
    if (!this.#wanted) return;
    if (FINAL.has(code) || (code >= 4000 && code < 4100)) {
      this.#wanted = false;
      this.#tell("stopped", `Disconnected: ${reason || code}`);
      if (code === 4001) this.#session.end("Your session has ended. Log in again.");
      return;
    }
    if (code === TOKEN_EXPIRED) {
      try {
        await this.#session.renew();
      } catch (error) {
        if (!this.#session.user) return;
      }
      if (!this.#wanted) return;
    }
    this.#later(hint);
  }

  /** Tries again: after the server's hint, else after a random part of a growing wait, so that the
   * clients of a lost node do not all come at once. */
  #later(hintMs = null) {
    const most = Math.min(WAIT_FIRST_MS * 2 ** this.#attempts, WAIT_MAX_MS);
    const wait = hintMs ?? most * Math.random();
    this.#attempts = Math.min(this.#attempts + 1, 10);
    this.#tell("waiting", `Reconnecting in ${Math.ceil(wait / 1000)} s…`);
    this.#after("retry", wait, () => this.#open());
  }

  /** The network is back: no need to wait out a long pause. */
  #hurry() {
    if (!this.#wanted || this.#socket || !this.#timers.has("retry")) return;
    this.#attempts = 0;
    this.#later();
  }

  #drop() {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    this.#hintMs = null;
    this.#live = false;
    const socket = this.#socket;
    this.#socket = null;
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close(1000);
  }

  #write(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#socket.send(JSON.stringify(frame));
    const shown = frame.token ? { ...frame, token: "…" } : frame;
    this.#fire("frame", { sent: true, frame: shown });
  }

  #after(name, ms, action) {
    this.#cancel(name);
    const run = () => {
      this.#timers.delete(name);
      action();
    };
    this.#timers.set(name, setTimeout(run, ms));
  }

  #cancel(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #tell(word, text) {
    this.#fire("state", { word, text });
  }

  #note(note) {
    this.#fire("frame", { note });
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}
