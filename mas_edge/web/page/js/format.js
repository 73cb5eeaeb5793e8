// Numbers, units and times as people read them. Pure functions; times are seconds since the epoch.

const PHASES = {
  prepare: "preparing", initial_evaluation: "initial evaluation", merge: "training merged",
  merged_evaluation: "evaluating merged", probe: "training probes", probe_evaluation: "evaluating probes",
  split: "splitting", groups: "training groups", regroup: "regrouping", group_evaluation: "evaluating groups",
  export: "exporting", deploy: "deploying", done: "done", aborted: "aborted", paused: "paused",
};

/** A phase in words. */
export const phaseName = (phase) => PHASES[phase] ?? words(phase);

/** An identifier as words: `rolling_back` is "rolling back". */
export const words = (name) => String(name ?? "").replaceAll("_", " ");

/** A number with `digits` significant digits, and no trailing noise; a dash where there is none. */
export function number(x, digits = 3) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const size = Math.abs(x);
  if (size >= 1e6 || size < 1e-4) return x.toExponential(Math.max(0, digits - 1)).replace("e+", "e").replace("-", "−");
  const places = Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  return minus(decimals(Math.min(places, 20)).format(x));
}

// To make a format takes a hundred times as long as to use it.
const formats = new Map();
const made = (name, make) => formats.get(name) ?? formats.set(name, make()).get(name);
const decimals = (places) => made(places, () => new Intl.NumberFormat("en", { maximumFractionDigits: places }));

/** A number with a fixed number of decimals and its sign: +0.07, −0.85. */
export function signed(x, places = 2) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  const text = Math.abs(x).toFixed(places);
  return Number(text) === 0 ? text : (x > 0 ? "+" : "−") + text;
}

const minus = (text) => text.replace("-", "−");
const scaled = (x, steps, unit) => {
  for (const [factor, prefix] of steps) if (Math.abs(x) >= factor) return `${number(x / factor)} ${prefix}${unit}`;
  return `${number(x)} ${unit}`;
};

/** Bytes in decimal units, as storage and networks are sold. */
export const bytes = (x) => (Number.isFinite(x) ? scaled(x, [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]], "B") : "–");

/** Joules. */
export const joules = (x) => (Number.isFinite(x) ? scaled(x, [[1e6, "M"], [1e3, "k"]], "J") : "–");

/** A count: 1,234. */
export const count = (x) => (Number.isFinite(x) ? decimals(0).format(x) : "–");

/** A share of one in percent. */
export const percent = (x, digits = 3) => (Number.isFinite(x) ? `${number(100 * x, digits)} %` : "–");

/** A duration. */
export function seconds(x) {
  if (!Number.isFinite(x)) return "–";
  if (x > 0 && x < 1) return `${number(1000 * x)} ms`;
  if (x === 0) return "0 s";
  if (x < 10) return `${x.toFixed(1)} s`;
  const whole = Math.round(x);
  if (whole < 60) return `${whole} s`;
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** How long ago, coarsely. */
export function ago(passed) {
  if (!Number.isFinite(passed)) return "never";
  if (passed < 2) return "just now";
  const [unit, size] = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]].find(([, each]) => passed >= each);
  return `${Math.floor(passed / size)} ${unit} ago`;
}

/** A moment in full, in the reader's zone. */
export const moment = (time) =>
  time ? made("moment", () => new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" })).format(1000 * time) : "never";

/** A day: Mon 23 Nov 2026. */
export const day = (time) => made("day", () => new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", year: "numeric" })).format(1000 * time);

/** The time of the day. */
export const clock = (time) => made("clock", () => new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" })).format(1000 * time);

/** A list in words: a, b and c. */
export const listed = (names) =>
  names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;

/** "1 device", "3 devices". */
export const plural = (n, word) => `${count(n)} ${word}${n === 1 ? "" : "s"}`;

/** A metric in the unit people know. */
export function metric(name, value) {
  if (!Number.isFinite(value)) return "–";
  if (name === "accuracy") return percent(value);
  if (name === "angle_degrees") return `${number(value)}°`;
  return number(value);
}
