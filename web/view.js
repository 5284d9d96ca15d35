// Draws conversations and messages. Reads the model, changes nothing in it.

const STATUS_MARK = { sent: "✓", delivered: "✓✓", read: "✓✓ read" };

/** Makes an element; texts become text nodes, so that nothing anybody wrote is taken for markup. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);

export function drawConversations(model, choose) {
  const rows = model.newestFirst().map((entry) => {
    const { conversation_id: id, unread_count: unread } = entry.wire;
    const button = element("button", { type: "button", onclick: () => choose(id) });
    button.append(element("span", { className: "name" }, model.title(entry)));
    if (unread > 0) {
      const count = unread >= 999 ? "999+" : String(unread);
      button.append(element("span", { className: "unread", title: "unread" }, count));
    }
    button.append(element("span", { className: "last" }, lastLine(model, entry.wire.last_message)));
    if (id === model.open) button.setAttribute("aria-current", "true");
    button.dataset.id = id;
    return element("li", {}, button);
  });
  replaceKeepingFocus(byId("conversations"), rows);
}

function lastLine(model, message) {
  if (!message) return "No messages yet";
  const text = message.deleted_at ? "deleted" : message.content;
  if (message.kind === "system") return text;
  return `${message.sender_id === model.me ? "You" : model.people.name(message.sender_id)}: ${text}`;
}

export function drawTalk(model, act) {
  const entry = model.get(model.open);
  byId("send-form").hidden = !entry;
  byId("title").textContent = entry ? model.title(entry) : "Choose a conversation";
  const members = entry?.wire.kind === "group" ? `${entry.wire.member_count} members` : "";
  byId("subtitle").textContent = members;
  byId("older").hidden = !entry?.hasOlder;
  const scroller = byId("scroller");
  const fromEnd = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
  const rows = model.messages(model.open).map((message) => messageRow(model, entry, message));
  const unsent = entry ? model.unsent.of(model.open).map((send) => unsentRow(send, act)) : [];
  update(byId("messages"), [...rows, ...unsent]);
  // Stays at the end if it was there; keeps its place when older messages come in above.
  if (fromEnd < 80) scroller.scrollTop = scroller.scrollHeight;
  else scroller.scrollTop = scroller.scrollHeight - scroller.clientHeight - fromEnd;
}

function messageRow(model, entry, message) {
  const mine = message.sender_id === model.me;
  const row = element("li", { className: mine ? "mine" : "" });
  const { message_id, status, edited_at, deleted_at } = message;
  row.dataset.key = `${message_id} ${status} ${edited_at} ${deleted_at}`;
  if (message.kind === "system") {
    row.className = "system";
    row.append(message.content);
    return row;
  }
  if (!mine && entry.wire.kind === "group") {
    const name = model.people.name(message.sender_id);
    row.dataset.key += name;
    row.append(element("strong", {}, name));
  }
  const gone = deleted_at !== null;
  const text = element("div", { className: gone ? "text gone" : "text" });
  text.append(gone ? "deleted" : message.content);
  const foot = element("div", { className: "foot" });
  const at = new Date(message.created_at);
  const time = at.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  foot.append(element("time", { dateTime: message.created_at, title: at.toLocaleString() }, time));
  if (edited_at && !gone) foot.append("edited");
  if (mine) foot.append(STATUS_MARK[status] ?? "✓");
  row.append(text, foot);
  return row;
}

function unsentRow(send, act) {
  const row = element("li", { className: send.failed ? "mine failed" : "mine waiting" });
  row.dataset.key = `unsent ${send.message_id} ${send.failed}`;
  const foot = element("div", { className: "foot" });
  if (send.failed) {
    const again = () => act.retry(send.message_id);
    const discard = () => act.discard(send.message_id);
    foot.append(
      `Not sent: ${send.failed}`,
      element("button", { type: "button", onclick: again }, "Try again"),
      element("button", { type: "button", onclick: discard }, "Discard"),
    );
  } else {
    foot.append("sending…");
  }
  row.append(element("div", { className: "text" }, send.content), foot);
  return row;
}

/** Replaces only what differs, so that screen readers hear new messages and no old ones again. */
function update(list, rows) {
  const present = new Map([...list.children].map((row) => [row.dataset.key, row]));
  const wanted = rows.map((row) => present.get(row.dataset.key) ?? row);
  const kept = new Set(wanted);
  for (const row of [...list.children]) if (!kept.has(row)) row.remove();
  wanted.forEach((row, index) => {
    if (list.children[index] !== row) list.insertBefore(row, list.children[index] ?? null);
  });
}

function replaceKeepingFocus(list, rows) {
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.id : null;
  list.replaceChildren(...rows);
  if (focused) list.querySelector(`[data-id="${focused}"]`)?.focus();
}
