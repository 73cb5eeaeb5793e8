// The live connection: server-sent events over fetch (an EventSource cannot carry a token), with a way back after a
// loss that is quick at first and patient later.
import { headers, problemOf } from "./api.js";
import { apply, current, refresh, set, touch } from "./store.js";

const RETRY_MS = [500, 1000, 2000, 5000, 10000];
// The server says something at least every 15 s; a connection that is silent for two of these is dead.
const SILENCE_MS = 32000;

let lastId = "";
let failures = 0;
let abort = null;
let timer = 0;

/** Connect, and stay connected as long as the page lives. */
export function follow() {
  addEventListener("online", reconnect);
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    refresh();
    if (current().live.state === "lost") reconnect();
  });
  connect();
}

/** Try again now: the network is back, or a token was given. */
export function reconnect() {
  clearTimeout(timer);
  abort?.abort();
  failures = 0;
  connect();
}

async function connect() {
  const mine = (abort = new AbortController());
  try {
    const extra = lastId ? { "Last-Event-ID": lastId } : {};
    const answer = await fetch("/api/live", { headers: { ...headers(), Accept: "text/event-stream", ...extra }, signal: mine.signal, cache: "no-store" });
    if (!answer.ok) throw await problemOf(answer);
    failures = 0;
    say({ state: "live", last: Date.now() });
    refresh(); // what could not be read while the server was away; its first event tells of everything else
    await listen(answer.body.getReader(), mine);
    throw new Error("the server has closed the connection");
  } catch (problem) {
    if (mine === abort) lose(problem);
  }
}

async function listen(reader, mine) {
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const guard = setTimeout(() => mine.abort(), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(guard));
    if (done) return;
    text += decoder.decode(value, { stream: true }).replaceAll("\r\n", "\n");
    const parts = text.split("\n\n");
    text = parts.pop();
    say({ state: "live", last: Date.now() });
    for (const part of parts) take(part);
  }
}

function take(part) {
  const fields = { data: [] };
  for (const line of part.split("\n")) {
    const [, name, value] = /^([a-z]+): ?(.*)$/.exec(line) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name) fields[name] = value;
  }
  if (fields.id !== undefined) lastId = fields.id;
  if (fields.data.length) heed(fields.event, fields.data.join("\n"));
}

function heed(kind, data) {
  let told;
  try {
    told = JSON.parse(data);
  } catch {
    touch(); // nobody knows what it told: everything is read again
    return;
  }
  if (kind === "change") apply(told);
  else if (kind === "hello" || kind === "reset") touch();
  // "unavailable": the run's files cannot be read for a moment; reading them says so where it matters.
  else touch(["run"]);
}

function lose(problem) {
  if (problem.status === 401) {
    set({ denied: true });
    return;
  }
  const wait = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
  failures += 1;
  say({ state: "lost", retryAt: Date.now() + wait });
  timer = setTimeout(connect, wait);
}

function say(patch) {
  set({ live: { ...current().live, ...patch } });
}
