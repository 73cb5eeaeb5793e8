// Speaks to the API: JSON over fetch, problem details (RFC 9457) as errors, the token of this browser.

const TOKEN = "mas-edge-token";
// An answer takes milliseconds; after so long the server is gone or stuck, and the page says so.
const PATIENCE_MS = 15000;
let token = remembered();

function remembered() {
  try {
    return sessionStorage.getItem(TOKEN) ?? localStorage.getItem(TOKEN) ?? "";
  } catch {
    return ""; // storage is forbidden here: the token lives as long as the page
  }
}

/** Take a token; `keep`: beyond this tab. An empty one forgets it. */
export function setToken(given, keep = false) {
  token = given.trim();
  globalThis.begun.clear(); // asked for with another token
  try {
    sessionStorage.removeItem(TOKEN);
    localStorage.removeItem(TOKEN);
    if (token) (keep ? localStorage : sessionStorage).setItem(TOKEN, token);
  } catch {
    // As above.
  }
}

export const hasToken = () => token !== "";

/** What the server refused, or `status` 0: it was not reached. */
export class Problem extends Error {
  constructor(status, title, detail) {
    super(detail || title);
    this.status = status;
    this.title = title;
  }
}

/** The headers of every request. */
export const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

const held = new Map(); // address -> [mark, what it marks]

/** Read a resource; what is still the same is the same object. */
export async function get(path) {
  const answer = await ask(path, { headers: headers(), cache: "no-cache" });
  const mark = answer.headers.get("ETag");
  const [before, kept] = held.get(path) ?? [];
  if (mark !== null && mark === before) {
    answer.body?.cancel();
    return kept;
  }
  const found = await answer.json();
  if (mark !== null && !path.includes("after=")) held.set(path, [mark, found]); // further pages are read once
  return found;
}

/** Send something that is done at once. */
export const post = async (path, body = {}) =>
  (await ask(path, { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

// An orchestrator that works looks for orders twice a second; after so long it does not.
const ANSWER_MS = 10000;
const LOOK_MS = 300;

/** Place an order and wait for the orchestrator's word on it; resolves to a sentence, or throws why it was refused. */
export async function order(path, body) {
  let found = await post(path, body);
  const end = Date.now() + ANSWER_MS;
  while (found.state === "waiting" && Date.now() < end) {
    await new Promise((done) => setTimeout(done, LOOK_MS));
    found = await get(`/api/orders/${encodeURIComponent(found.id)}`);
  }
  if (found.state === "refused") throw new Problem(409, "The order was refused", found.answer);
  return found.state === "waiting" ? "Noted: it is done as soon as the orchestrator works again." : found.answer || "Done.";
}

async function ask(path, options) {
  let answer;
  try {
    answer = await (begun(path) ?? fetch(path, { ...options, signal: AbortSignal.timeout(PATIENCE_MS) }));
  } catch (error) {
    const why = error.name === "TimeoutError" ? `it did not answer within ${PATIENCE_MS / 1000} s` : "no connection";
    throw new Problem(0, "The server cannot be reached", why);
  }
  if (!answer.ok) throw await problemOf(answer);
  noteServerTime(answer);
  return answer;
}

/** What begin.js has asked for at this address, once. */
function begun(path) {
  const answer = globalThis.begun.get(path);
  globalThis.begun.delete(path);
  return answer;
}

/** The problem that an answer describes, also where a proxy in between wrote it. */
export async function problemOf(answer) {
  const told = await answer.json().catch(() => ({}));
  return new Problem(answer.status, told.title ?? (answer.statusText || `Status ${answer.status}`), told.detail ?? "");
}

// Relative times are told by the server's clock: a phone's may be minutes off.
let offset = 0;
function noteServerTime(answer) {
  const theirs = Date.parse(answer.headers.get("Date") ?? "");
  // The header has whole seconds and the answer took a moment: only what is beyond that is an offset.
  if (Number.isFinite(theirs)) offset = Math.abs(theirs - Date.now()) > 2000 ? theirs - Date.now() : 0;
}

/** The server's time, in seconds since the epoch. */
export const now = () => (Date.now() + offset) / 1000;
