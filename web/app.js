// The page: wires the forms to the session, the connection and the conversations.

import { Connection } from "./connection.js";
import { Conversations } from "./conversations.js";
import { Frames } from "./frames.js";
import { Session } from "./session.js";
import { drawConversations, drawTalk, element } from "./view.js";

const SEARCH_AFTER_MS = 250;

const byId = (id) => document.getElementById(id);
const session = new Session();
const frames = new Frames();
let connection = null;
let model = null;
let registering = false;
let groupPeople = new Map();
let searchTimer = null;

function draw() {
  if (!model) return;
  drawConversations(model, (id) => attempt(() => model.show(id).then(focusContent)));
  drawTalk(model, {
    retry: (id) => model.unsent.retry(id),
    discard: (id) => model.unsent.take(id),
  });
}

/** Many changes, one drawing. */
let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  // Not an animation frame: those do not come to a window in the background.
  setTimeout(() => {
    drawing = false;
    draw();
  }, 16);
}

function enter() {
  byId("entrance").hidden = true;
  byId("rooms").hidden = false;
  const { username, full_name } = session.user;
  byId("myself").textContent = full_name ? `${full_name} (${username})` : username;
  document.title = `${username} – Rookery`;
  connection = new Connection(session, (ready) => model.syncRequest(ready));
  model = new Conversations(session, connection);
  model.addEventListener("change", drawSoon);
  connection.addEventListener("event", ({ detail }) => model?.handle(detail));
  connection.addEventListener("frame", ({ detail }) => frames.add(detail));
  connection.addEventListener("state", ({ detail }) => {
    byId("state").className = `state ${detail.word}`;
    byId("state").textContent = detail.text;
  });
  connection.start();
  draw();
}

function leave(why) {
  connection?.stop();
  model?.unsent.forget();
  connection = null;
  model = null;
  groupPeople = new Map();
  drawGroupForm();
  byId("search").value = "";
  byId("found").replaceChildren();
  byId("rooms").hidden = true;
  byId("entrance").hidden = false;
  document.title = "Rookery";
  showError("entrance-error", why);
}

function showError(id, text) {
  byId(id).textContent = text;
  byId(id).hidden = !text;
}

/** What went wrong, in words; refused fields by name. */
function words(error) {
  const fields = (error.details ?? []).map(({ field, reason, allowed }) => {
    return allowed ? `${field} ${reason} (${allowed})` : `${field} ${reason}`;
  });
  return fields.length > 0 ? fields.join("; ") : error.message;
}

/** Does something that may fail, and says so if it does. */
async function attempt(action, where = "talk-error") {
  showError(where, "");
  try {
    await action();
  } catch (error) {
    showError(where, words(error));
  }
}

function chooseForm(register) {
  registering = register;
  byId("choose-login").setAttribute("aria-pressed", String(!register));
  byId("choose-register").setAttribute("aria-pressed", String(register));
  byId("name-label").textContent = register ? "Username" : "Username or e-mail";
  byId("entrance-submit").textContent = register ? "Register" : "Log in";
  for (const part of document.querySelectorAll(".register-only")) {
    part.hidden = !register;
    for (const input of part.querySelectorAll("input")) input.disabled = !register;
  }
  const form = byId("entrance-form");
  form.elements.email.required = register;
  form.elements.password.autocomplete = register ? "new-password" : "current-password";
}

async function submitEntrance(event) {
  event.preventDefault();
  const { name, email, full_name, password } = byId("entrance-form").elements;
  byId("entrance-submit").disabled = true;
  await attempt(async () => {
    const device = { password: password.value, device_name: "Browser" };
    if (registering) {
      const fields = { username: name.value.trim(), email: email.value.trim(), ...device };
      if (full_name.value.trim()) fields.full_name = full_name.value.trim();
      await session.register(fields);
    } else {
      await session.login({ login: name.value.trim(), ...device });
    }
    password.value = "";
    enter();
  }, "entrance-error");
  byId("entrance-submit").disabled = false;
}

function focusContent() {
  byId("content").focus();
}

async function searchPeople() {
  const query = byId("search").value.trim();
  if (!query) return byId("found").replaceChildren();
  await attempt(async () => {
    const found = await model.search(query);
    // The answer to an earlier question may come later.
    if (query !== byId("search").value.trim()) return;
    byId("found").replaceChildren(...found.map(foundRow));
    if (found.length === 0) byId("found").append(element("li", { className: "hint" }, "Nobody found"));
  });
}

function foundRow(user) {
  const name = user.full_name ? `${user.full_name} (${user.username})` : user.username;
  const talk = () => attempt(() => model.startDirect(user.user_id).then(focusContent));
  const add = () => {
    groupPeople.set(user.user_id, user.username);
    drawGroupForm();
  };
  const talkLabel = `Talk to ${user.username}`;
  const addLabel = `Add ${user.username} to a new group`;
  return element(
    "li",
    {},
    element("span", { className: "who", title: name }, name),
    element("button", { type: "button", onclick: talk, ariaLabel: talkLabel }, "Talk"),
    element("button", { type: "button", onclick: add, ariaLabel: addLabel }, "+ Group"),
  );
}

function drawGroupForm() {
  byId("group-form").hidden = groupPeople.size === 0;
  byId("group-people").textContent = [...groupPeople.values()].join(", ");
}

async function createGroup(event) {
  event.preventDefault();
  await attempt(async () => {
    await model.startGroup(byId("group-title").value.trim(), [...groupPeople.keys()]);
    groupPeople.clear();
    byId("group-title").value = "";
    drawGroupForm();
    focusContent();
  });
}

function sendMessage(event) {
  event?.preventDefault();
  const content = byId("content").value;
  if (!content.trim() || !model?.open) return;
  showError("talk-error", "");
  model.unsent.add(model.open, content);
  byId("content").value = "";
  byId("scroller").scrollTop = byId("scroller").scrollHeight;
}

function showFrames(show) {
  byId("rooms").classList.toggle("no-frames", !show);
  byId("frames-pane").hidden = !show;
  byId("toggle-frames").setAttribute("aria-expanded", String(show));
}

byId("choose-login").onclick = () => chooseForm(false);
byId("choose-register").onclick = () => chooseForm(true);
byId("entrance-form").onsubmit = submitEntrance;
byId("logout").onclick = () => session.logout();
byId("search-form").onsubmit = (event) => {
  event.preventDefault();
  searchPeople();
};
byId("search").oninput = () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(searchPeople, SEARCH_AFTER_MS);
};
byId("group-form").onsubmit = createGroup;
byId("group-cancel").onclick = () => {
  groupPeople.clear();
  drawGroupForm();
};
byId("older").onclick = () => attempt(() => model.older(model.open));
byId("send-form").onsubmit = sendMessage;
byId("content").onkeydown = (event) => {
  // While an input method composes, Enter chooses a word.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) sendMessage(event);
};
byId("toggle-frames").onclick = () => showFrames(byId("frames-pane").hidden);
addEventListener("focus", () => model?.seen());
document.addEventListener("visibilitychange", () => model?.seen());
session.addEventListener("ended", ({ detail }) => leave(detail));

// On a telephone there is no room for both.
if (matchMedia("(max-width: 40rem)").matches) showFrames(false);
await session.claim();
if (session.user) enter();
else byId("entrance").hidden = false;
