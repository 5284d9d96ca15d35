// The log of frames: what this window sent and received, the newest first.

const KEPT = 200;
/** Longer frames are cut in the log, not on the wire. */
const SHOWN_CHARS = 4_000;

export class Frames {
  #list = document.getElementById("frames");
  #pause = document.getElementById("frames-pause");

  constructor() {
    document.getElementById("frames-clear").onclick = () => this.#list.replaceChildren();
  }

  add({ sent, frame, note }) {
    if (this.#pause.checked) return;
    const row = document.createElement("li");
    const time = new Date().toLocaleTimeString([], { hour12: false });
    if (note) {
      row.className = "note";
      row.textContent = `${time} ${note}`;
    } else {
      row.className = sent ? "sent" : "received";
      row.append(details(`${time} ${sent ? "→" : "←"} ${frame.type}`, frame));
    }
    this.#list.prepend(row);
    while (this.#list.childElementCount > KEPT) this.#list.lastElementChild.remove();
  }
}

function details(title, frame) {
  const details = document.createElement("details");
  const summary = document.createElement("summary");
  const text = document.createElement("pre");
  const { type, ...fields } = frame;
  summary.textContent = `${title} ${JSON.stringify(fields).slice(0, 120)}`;
  // Written out only when somebody looks: a busy socket brings hundreds a second.
  details.ontoggle = () => {
    const whole = JSON.stringify(frame, null, 2);
    text.textContent = whole.length > SHOWN_CHARS ? `${whole.slice(0, SHOWN_CHARS)} …` : whole;
  };
  details.append(summary, text);
  return details;
}
