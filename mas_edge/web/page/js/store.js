// What the page knows: each resource of the API as it was read last, why it could not be, and the live connection.
// Views say what they need while they are shown; only that is read, at first and when the server tells of a change.
import { get } from "./api.js";
import { useEffect, useState } from "./view.js";

const PAGE = 1000; // rounds and events of one request: the most that the server gives
export const MAX_EVENTS = 2000; // the server keeps no more

const PATHS = {
  run: "/api/run", devices: "/api/devices", affinity: "/api/affinity", split: "/api/split",
  artifacts: "/api/artifacts", rollouts: "/api/rollouts", traffic: "/api/traffic", energy: "/api/energy", members: "/api/fleet",
};
const READERS = { rounds: readRounds, events: readEvents };

const state = { data: {}, problems: {}, denied: false, live: { state: "connecting", last: 0, retryAt: 0 }, theme: 0 };
const listeners = new Set();
const wanted = new Map(); // resource -> how many views need it
const reading = new Map(); // resource -> whether it has changed again meanwhile
const stale = new Set();
let changes = 0; // how often the state has been changed

/** The state; it is replaced in part, never changed in place. */
export const current = () => state;

/** Change a part of the state and draw what depends on it. */
export function set(patch) {
  Object.assign(state, patch);
  changes += 1;
  for (const listener of listeners) listener(patch);
}

/** Within a component: draw again when one of these parts of the state changes. */
export function useStore(...parts) {
  const [, bump] = useState(0);
  const drawn = changes;
  useEffect(() => {
    const listener = (patch) => parts.some((part) => part in patch) && bump((n) => n + 1);
    listeners.add(listener);
    if (changes !== drawn) bump((n) => n + 1); // between drawing and this: nobody would tell of it again
    return () => listeners.delete(listener);
  }, [parts.join()]);
  return state;
}

/** Within a view: read these resources as long as it is shown. */
export function useNeeds(...names) {
  useEffect(() => {
    for (const name of names) {
      wanted.set(name, (wanted.get(name) ?? 0) + 1);
      if (!reading.has(name) && (!(name in state.data) || stale.has(name))) read(name);
    }
    return () => {
      for (const name of names) wanted.set(name, wanted.get(name) - 1);
    };
  }, [names.join()]);
}

/** Read these before anybody has said that they are needed. */
export const readFirst = (names) => Promise.all(names.map(read));

/** These resources have changed on the server (none given: all may have). */
export function touch(names = [...Object.keys(PATHS), ...Object.keys(READERS)]) {
  for (const name of names) {
    stale.add(name);
    if ((wanted.get(name) ?? 0) > 0 && document.visibilityState === "visible") read(name);
  }
}

/** What the live stream says is another than before: taken over where it is all there is to know, else read. */
export function apply(change) {
  const gist = { phase: change.phase, control: change.control, served: change.served, finished: change.finished };
  const merged = {
    run: (run) => ({ ...run, ...gist, progress: change.progress, open_rounds: change.open_rounds }),
    rounds: (rounds) => withRounds(rounds, change),
    devices: (devices) => ({ items: replaced(devices.items, change.devices, "name") }),
    events: (events) => withEvents(events, change.events),
  };
  const data = { ...state.data };
  const whole = change.parts.length >= PARTS; // another run lies in the directory
  for (const [name, merge] of Object.entries(merged)) {
    if (whole || !(name in data) || reading.has(name) || stale.has(name)) touch([name]);
    else data[name] = merge(data[name]);
  }
  set({ data });
  const others = change.parts.filter((part) => part === "run" || !(part in merged));
  const costs = change.parts.includes("rounds") ? ["traffic", "energy"] : [];
  touch([...others, ...costs, ...(change.parts.includes("devices") ? ["members"] : [])]);
}

const PARTS = 8; // that the server tells apart

function withRounds(known, change) {
  const open = new Set(change.open_rounds.map((each) => each.number));
  const closed = known.items.filter((each) => each.closed !== null && !open.has(each.number));
  const running = change.open_rounds.map((each) => ({ ...each, outcome: "", closed: null, selected: each.selected.length, losses: {}, metrics: {} }));
  const items = [...replaced(closed, change.rounds, "number"), ...running].sort((a, b) => a.number - b.number);
  return { items, cursor: settled(items) };
}

function withEvents(known, lines) {
  const fresh = lines.filter((line) => line.number > (known.next ?? 0));
  const next = fresh.at(-1)?.number ?? known.next;
  return { items: [...known.items, ...fresh].slice(-MAX_EVENTS), next };
}

function replaced(items, changed, key) {
  const found = new Map(items.map((each) => [each[key], each]));
  for (const each of changed) found.set(each[key], each);
  return [...found.values()].sort((a, b) => (a[key] < b[key] ? -1 : 1));
}

// A run that has not begun, a file that cannot be read for a moment: looked at again without being told.
const AGAIN_MS = 5000;
setInterval(() => {
  if (state.denied || document.visibilityState !== "visible") return;
  for (const [name, problem] of Object.entries(state.problems)) if (problem && problem.status !== 404 && (wanted.get(name) ?? 0) > 0) read(name);
}, AGAIN_MS);

/** Read what has changed while the page could not be seen. */
export function refresh() {
  for (const name of stale) if ((wanted.get(name) ?? 0) > 0) read(name);
}

async function read(name) {
  if (reading.has(name)) {
    reading.set(name, true); // one request at a time: a slow server is not asked twice
    return;
  }
  reading.set(name, false);
  stale.delete(name);
  try {
    const found = await (READERS[name]?.(state.data[name]) ?? get(PATHS[name]));
    if (found !== state.data[name] || state.problems[name] || state.denied) {
      set({ data: { ...state.data, [name]: found }, problems: { ...state.problems, [name]: null }, denied: false });
    }
  } catch (problem) {
    stale.add(name);
    set({ problems: { ...state.problems, [name]: problem }, denied: state.denied || problem.status === 401 });
  }
  const again = reading.get(name);
  reading.delete(name);
  if (again) read(name);
}

// Closed rounds never change, so they are read once; what follows the first open one is read again.
async function readRounds(known = { items: [], cursor: null }) {
  const items = known.items.filter((round) => known.cursor !== null && round.number <= known.cursor);
  let after = known.cursor;
  for (;;) {
    const page = await get(`/api/rounds?limit=${PAGE}${after === null ? "" : `&after=${after}`}`);
    items.push(...page.items);
    if (page.next === null) break;
    after = page.next;
  }
  const same = items.length === known.items.length && items.every((round, i) => round === known.items[i]);
  return same ? known : { items, cursor: settled(items) };
}

/** The number of the last round before the first that is open. */
function settled(items) {
  const open = items.findIndex((round) => round.closed === null);
  return (open < 0 ? items.at(-1) : items[open - 1])?.number ?? null;
}

async function readEvents(known = { items: [], next: null }) {
  const items = [...known.items];
  let after = known.next;
  for (;;) {
    const page = await get(`/api/events?limit=${PAGE}${after === null ? "" : `&after=${after}`}`);
    items.push(...page.items);
    after = page.next;
    if (page.items.length < PAGE) break;
  }
  if (known.next !== null && after === known.next) return known;
  return { items: items.slice(-MAX_EVENTS), next: after };
}
