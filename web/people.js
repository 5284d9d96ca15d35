// Names of people, asked for when they are first needed.

const ASK_AFTER_MS = 20;
/** Most ids in one request, as the server allows. */
const ASK_AT_MOST = 200;

export class People {
  #session;
  #changed;
  #known = new Map();
  #wanted = new Set();
  #timer = null;

  constructor(session, changed) {
    this.#session = session;
    this.#changed = changed;
    this.add([session.user]);
  }

  add(users) {
    for (const user of users) this.#known.set(user.user_id, user);
  }

  /** The name to show; a dash until it is known. */
  name(userId) {
    const user = this.#known.get(userId);
    if (user) return user.full_name || user.username;
    this.#wanted.add(userId);
    this.#timer ??= setTimeout(() => this.#ask(), ASK_AFTER_MS);
    return "–";
  }

  async #ask() {
    const ids = [...this.#wanted].slice(0, ASK_AT_MOST);
    this.#wanted.clear();
    try {
      const { items } = await this.#session.request("GET", `/users?user_ids=${ids.join(",")}`);
      // Whoever is not found has no account any more; asking again would not help.
      this.add(ids.map((user_id) => ({ user_id, username: "somebody" })));
      this.add(items);
      this.#changed();
    } catch {
      // The next time the name is needed, it is asked for again.
    } finally {
      this.#timer = null;
    }
  }
}
