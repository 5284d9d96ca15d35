// Who this window is: tokens, kept per window (sessionStorage), and requests made with them.

const STORED = "rookery.session";
const API = "/api/v1";
/** How long another window has to say that it uses the same log-in. */
const CLAIM_MS = 200;
/** A token is renewed when it has less than this left. */
const RENEW_BEFORE_MS = 30_000;

/** A request that the server refused. `code` is one of the protocol's error codes. */
export class Refused extends Error {
  constructor(status, error, retryAfterMs) {
    super(error?.message ?? `the server answered ${status}`);
    this.status = status;
    this.code = error?.code ?? "INTERNAL";
    this.details = error?.details ?? [];
    this.retryAfterMs = retryAfterMs;
  }
}

/** Fires `ended` when the log-in is over, by log-out or because the server says so. */
export class Session extends EventTarget {
  #tokens = JSON.parse(sessionStorage.getItem(STORED) ?? "null");
  #renewal = null;
  #windows = new BroadcastChannel(STORED);

  constructor() {
    super();
    this.#windows.onmessage = ({ data }) => {
      if (data.ask && data.ask === this.#tokens?.id) this.#windows.postMessage({ held: data.ask });
    };
  }

  get user() {
    return this.#tokens?.user ?? null;
  }

  /** When the access token runs out, by this machine's clock. */
  get expiresAt() {
    return this.#tokens?.expiresAt ?? 0;
  }

  /** Makes sure that no other window uses this log-in: a duplicated tab starts with a copy of its
   * tokens, and two that renew the same one look like theft. Ends the session here if so. */
  async claim() {
    const id = this.#tokens?.id;
    if (!id) return;
    const held = await new Promise((resolve) => {
      this.#windows.addEventListener("message", ({ data }) => data.held === id && resolve(true));
      // A channel does not hear itself, so only other windows answer.
      this.#windows.postMessage({ ask: id });
      setTimeout(() => resolve(false), CLAIM_MS);
    });
    if (held) this.end("Another window uses this log-in. Log in here as well.");
  }

  async register(fields) {
    this.#keep(await exchange("POST", "/auth/register", fields));
  }

  async login(fields) {
    this.#keep(await exchange("POST", "/auth/login", fields));
  }

  /** Ends the session here, and on the server if it can be reached. */
  async logout() {
    const token = this.#tokens?.access;
    this.end("");
    if (token) await exchange("POST", "/auth/logout", undefined, token).catch(() => {});
  }

  /** Forgets the tokens; `why` is shown. */
  end(why) {
    this.#tokens = null;
    sessionStorage.removeItem(STORED);
    this.dispatchEvent(new CustomEvent("ended", { detail: why }));
  }

  /** An access token that is good for a while. */
  async token() {
    if (!this.#tokens) throw new Refused(401, { code: "UNAUTHENTICATED", message: "logged out" });
    if (this.#tokens.expiresAt - Date.now() < RENEW_BEFORE_MS) await this.renew();
    return this.#tokens.access;
  }

  /** Exchanges the refresh token. Only one exchange is under way at a time: the server takes a
   * second use of the same token for theft. */
  renew() {
    this.#renewal ??= this.#renew().finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  async #renew() {
    const before = this.#tokens;
    try {
      const refreshed = await exchange("POST", "/auth/refresh", { refresh_token: before.refresh });
      // Logged out while the answer was on its way.
      if (this.#tokens === before) this.#keep(refreshed);
    } catch (error) {
      const over = error instanceof Refused && [400, 401, 403].includes(error.status);
      if (over && this.#tokens === before) this.end("Your session has ended. Log in again.");
      throw error;
    }
  }

  /** A request in this person's name; answers the `data` of the envelope. */
  async request(method, path, body) {
    const token = await this.token();
    try {
      return await exchange(method, path, body, token);
    } catch (error) {
      if (error.status !== 401) throw error;
      await this.renew();
      return exchange(method, path, body, await this.token());
    }
  }

  #keep(tokens) {
    this.#tokens = {
      id: this.#tokens?.id ?? String(Math.random()),
      user: tokens.user,
      access: tokens.access_token,
      refresh: tokens.refresh_token,
      expiresAt: Date.now() + tokens.expires_in * 1000,
    };
    sessionStorage.setItem(STORED, JSON.stringify(this.#tokens));
  }
}

async function exchange(method, path, body, token) {
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(API + path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer?.success) {
    const seconds = Number(response.headers.get("retry-after"));
    throw new Refused(response.status, answer?.error, seconds > 0 ? seconds * 1000 : undefined);
  }
  return answer.data;
}
