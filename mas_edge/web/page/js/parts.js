// What views are put together from. Components are functions of what they are given.
import { now } from "./api.js";
import * as f from "./format.js";
import { html, useEffect, useRef, useState } from "./view.js";

/** A moment as "3 min ago", in full on hover; it keeps itself up to date. */
export function Ago({ time }) {
  const text = useTicking(() => (time ? f.ago(Math.max(0, now() - time)) : "never"));
  if (!time) return html`<span class="muted">${text}</span>`;
  return html`<time datetime=${new Date(1000 * time).toISOString()} class="nowrap" onMouseEnter=${(event) => { event.currentTarget.title = f.moment(time); }}>${text}</time>`;
}

/** A duration since a moment that goes on. */
export const Since = ({ time }) => html`<span class="number">${useTicking(() => f.seconds(Math.max(0, Math.floor(now() - time))))}</span>`;

const tickers = new Set();
setInterval(() => {
  if (document.visibilityState === "visible") for (const ticker of tickers) ticker();
}, 1000);

/** A text that the passing time changes: the component is drawn again in the second in which it does. */
export function useTicking(tell) {
  const [, show] = useState(tell);
  const newest = useRef(tell);
  newest.current = tell;
  useEffect(() => {
    const ticker = () => show(newest.current());
    tickers.add(ticker);
    return () => tickers.delete(ticker);
  }, []);
  return tell();
}

/** How many of `total` rows are drawn: `first` at once, which is more than a screen holds, the others when there is time. */
export function useGrowing(total, first) {
  const [drawn, setDrawn] = useState(first);
  useEffect(() => {
    if (drawn >= total) return undefined;
    const timer = setTimeout(() => setDrawn(drawn + GROWTH), GROWTH_MS);
    return () => clearTimeout(timer);
  }, [drawn, total]);
  return Math.min(drawn, total);
}

const GROWTH = 100; // rows at a time: a few milliseconds, which no finger feels
const GROWTH_MS = 30; // in between, so that what was pressed meanwhile comes first

/** A card with a heading. */
export const Card = ({ title, end, children, flush, note, id }) => html`
  <section class="card" aria-labelledby=${id ?? slug(title)}>
    <header>
      <div><h2 id=${id ?? slug(title)}>${title}</h2>${note && html`<p class="muted small">${note}</p>`}</div>
      ${end && html`<div class="end">${end}</div>`}
    </header>
    <div class=${flush ? "flush" : "body"}>${children}</div>
  </section>`;

const slug = (title) => `h-${title.toLowerCase().replaceAll(/[^a-z]+/g, "-")}`;

/** A word in a coloured pill; the word says it, the colour repeats it. */
export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

/** A task with its colour. */
export const Task = ({ name, index }) => html`
  <span class="chip"><span class="swatch" style=${{ "--swatch": `var(--task-${index % 8})` }}></span><span>${name}</span></span>`;

/** One large number, or `word`, with what it is. */
export const Figure = ({ label, value, unit, note, word }) => html`
  <div>
    <dt>${label}</dt>
    <dd class=${word ? "figure word" : "figure"}>${value}${unit && html` <small>${unit}</small>`}</dd>
    ${note && html`<dd class="hint">${note}</dd>`}
  </div>`;

/** Why there is nothing to see, and what to do next. */
export const Empty = ({ title, children }) => html`<div class="empty"><strong>${title}</strong>${children}</div>`;

/** What stands in a view's place while its data are on their way, or when they did not come. */
export function Waiting({ problem, what }) {
  if (!problem) return html`<div class="card"><${Empty} title=${`Reading ${what} …`} /></div>`;
  const later = problem.status === 503; // nothing is wrong: there is no run yet, or its files are written just now
  return html`<div class=${later ? "note" : "note bad"} role="alert"><strong>${later ? "There is nothing to show yet" : problem.title}</strong><p class="break">${withCode(adviceOn(problem, what))}</p></div>`;
}

function adviceOn(problem, what) {
  if (problem.status === 0) {
    return `${sentence(problem.message)} Check that mas-edge serve or mas-edge web still runs on the server; this page goes on by itself when it is back.`;
  }
  if (problem.status === 503) return `${sentence(problem.message)} This page looks again by itself.`;
  if (problem.status === 403) return `${sentence(problem.message)} This token may not read ${what}: ask for another role.`;
  if (problem.status === 404) return `${sentence(problem.message)} It may have been removed: go back to the list.`;
  return `${sentence(problem.message)} The server's log says more.`;
}

/** A text in which commands stand between backticks, as the program writes them in a terminal. */
const withCode = (text) => text.split("`").map((part, i) => (i % 2 ? html`<code>${part}</code>` : part));

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

/** A button that places an order, asks first where that matters, and tells what became of it. It keeps the focus. */
export function Order({ label, icon, danger, main, ask, act, disabled, why }) {
  const [doing, setDoing] = useState(null);
  const [asking, setAsking] = useState(false);
  const [told, setTold] = useState(null);
  const button = useRef(null);
  useEffect(() => () => {
    // What it was for is over: who steers by keyboard is not sent back to the top of the page.
    if (document.activeElement === button.current) requestAnimationFrame(() => document.querySelector("main h1")?.focus({ preventScroll: true }));
  }, []);
  const go = async () => {
    setDoing(label);
    setTold(null);
    try {
      setTold({ text: (await act()) ?? "Done." });
    } catch (problem) {
      setTold({ text: problem.message, bad: true });
    }
    setDoing((now) => (now === label ? null : now));
  };
  const busy = doing === label; // it may have become another's button meanwhile: pause, then resume
  useEffect(() => {
    if (!told || told.bad) return undefined;
    const timer = setTimeout(() => setTold(null), 6000); // long enough to read a line
    return () => clearTimeout(timer);
  }, [told]);
  return html`
    <button type="button" class=${`button ${danger ? "danger" : ""} ${main ? "main" : ""}`} ref=${button} disabled=${disabled} aria-disabled=${busy ? "true" : undefined} title=${why}
      onClick=${() => { if (!busy) (ask ? setAsking(true) : go()); }}>${icon}${label}</button>
    ${asking && html`<${Confirm} ...${ask} danger=${danger} onYes=${go} onNo=${() => setAsking(false)} />`}
    <span role="status" class=${told?.bad ? "small level-error" : "small muted"}>${busy ? "…" : told?.text}</span>`;
}

/** A question before something that cannot be taken back. */
export function Confirm({ title, text, yes, danger, onYes, onNo }) {
  const ref = useRef(null);
  useEffect(() => {
    ref.current.showModal();
  }, []);
  return html`
    <dialog ref=${ref} aria-labelledby="asked" onClose=${onNo}>
      <form method="dialog" onSubmit=${(event) => { event.preventDefault(); ref.current.close(); onYes(); }}>
        <h2 id="asked">${title}</h2>
        <p>${text}</p>
        <div class="end">
          <button type="button" class="button" autofocus onClick=${() => ref.current.close()}>Cancel</button>
          <button type="submit" class=${`button main ${danger ? "danger" : ""}`}>${yes}</button>
        </div>
      </form>
    </dialog>`;
}

/** Buttons of which one is pressed. */
export const Toggles = ({ label, options, value, onChange }) => html`
  <div class="toggles" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`
      <button type="button" key=${key} aria-pressed=${String(key === value)} onClick=${() => onChange(key)}>${text}</button>`)}
  </div>`;

/** The heading of a column by which a table can be sorted. */
export const Sortable = ({ name, label, sort, onSort, number }) => html`
  <th class=${number ? "number" : ""} scope="col" aria-sort=${sort.by === name ? (sort.down ? "descending" : "ascending") : undefined}>
    <button type="button" onClick=${() => onSort({ by: name, down: sort.by === name ? !sort.down : Boolean(number) })}>
      ${label}<span aria-hidden="true">${sort.by === name ? (sort.down ? "↓" : "↑") : ""}</span>
    </button>
  </th>`;

/** Forward and back through a long list. */
export function Pages({ page, pages, onPage, what }) {
  if (pages < 2) return null;
  return html`
    <nav class="row" aria-label=${`Pages of ${what}`}>
      <button type="button" class="button" disabled=${page === 0} onClick=${() => onPage(page - 1)}>Newer</button>
      <span class="small muted number">${page + 1} of ${f.count(pages)}</span>
      <button type="button" class="button" disabled=${page >= pages - 1} onClick=${() => onPage(page + 1)}>Older</button>
    </nav>`;
}

/** A signed bar from the middle. */
export function Beam({ label, value, limit }) {
  const width = limit > 0 ? `${Math.min(50, (50 * Math.abs(value)) / limit)}%` : "0%";
  return html`<div class="pair"><span title=${label}>${label}</span><span class="beam" aria-hidden="true"><i class=${value < 0 ? "minus" : ""} style=${{ width }}></i></span><span>${f.signed(value)}</span></div>`;
}
