// The event log: what happened, the newest last, followed as it grows.
import * as f from "../format.js";
import { Badge, Empty, Waiting, useGrowing } from "../parts.js";
import { MAX_EVENTS, useNeeds, useStore } from "../store.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "../view.js";

const LEVELS = ["info", "warning", "error"];
const KINDS = { info: "", warning: "warn", error: "bad" };
const DRAWN = 300; // lines without being asked for
const AT_ONCE = 40; // more than a screen holds

/** The log. */
export function Events() {
  useNeeds("events");
  const { data, problems } = useStore("data", "problems");
  const [least, setLeast] = useState("info");
  const [query, setQuery] = useState("");
  const [follow, setFollow] = useState(true);
  const [most, setMost] = useState(DRAWN);
  const box = useRef(null);
  const items = data.events?.items;
  const lines = useMemo(() => (items ?? []).filter((line) => rank(line.level) >= LEVELS.indexOf(least) && line.text.toLowerCase().includes(query.trim().toLowerCase())), [items, least, query]);
  const drawn = useGrowing(Math.min(lines.length, most), AT_ONCE);
  const shown = useMemo(() => drawnLines(lines.slice(lines.length - drawn)), [lines, drawn]);
  useLayoutEffect(() => {
    if (follow && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [shown, follow]);
  // Whoever scrolls up wants to read: following goes on at the end.
  const scrolled = ({ target }) => setFollow(target.scrollHeight - target.scrollTop - target.clientHeight < 24);
  if (!items) return html`<h1 tabindex="-1">Events</h1><${Waiting} problem=${problems.events} what="the event log" />`;
  return html`
    <div class="head"><h1 tabindex="-1">Events</h1><span class="muted">${f.plural(lines.length, "line")}${lines.length < items.length ? ` of ${f.count(items.length)}` : ""}</span></div>
    <section class="card" aria-label="Event log">
      <header>
        <input type="search" aria-label="Filter by text" placeholder="Filter by text" value=${query} onInput=${(event) => setQuery(event.target.value)} style=${{ flex: "1 1 12rem", minWidth: 0 }} />
        <select aria-label="Least level" value=${least} onChange=${(event) => setLeast(event.target.value)}>
          <option value="info">All levels</option><option value="warning">Warnings and errors</option><option value="error">Errors</option>
        </select>
        <label class="check"><input type="checkbox" checked=${follow} onChange=${(event) => setFollow(event.target.checked)} />Follow</label>
      </header>
      <div class="flush">
        ${lines.length === 0 ? html`<${Empty} title=${items.length ? "No line fits the filter" : "Nothing has happened yet"}>${items.length > 0 && html`<button type="button" class="button" onClick=${() => { setLeast("info"); setQuery(""); }}>Show all</button>`}</${Empty}>` : html`
        ${lines.length > most && html`<p class="row" style=${{ padding: "var(--s3) var(--s4)" }}><button type="button" class="button" onClick=${() => { setFollow(false); setMost(most + 500); }}>Show ${f.count(Math.min(500, lines.length - most))} older lines</button></p>`}
        <ol class="log" ref=${box} tabindex="0" aria-label="Lines, the newest last" onScroll=${scrolled}>${shown}</ol>`}
      </div>
    </section>
    ${items.length >= MAX_EVENTS && html`<p class="small muted">Older lines are in the server's own log.</p>`}`;
}

/** Each line, and above the first of a day which one it is. */
function drawnLines(lines) {
  return lines.flatMap((line, i) => {
    const day = f.day(line.time);
    const drawn = html`<${Line} key=${line.number} line=${line} />`;
    return i > 0 && f.day(lines[i - 1].time) === day ? [drawn] : [html`<li key=${`day ${line.number}`} class="day">${day}</li>`, drawn];
  });
}

const Line = ({ line }) => html`
  <li><time datetime=${new Date(1000 * line.time).toISOString()} title=${f.moment(line.time)}>${f.clock(line.time)}</time>
    <span><${Badge} kind=${KINDS[line.level] ?? ""}>${line.level}</${Badge}></span><span class="break">${line.text}</span></li>`;

const rank = (level) => Math.max(0, LEVELS.indexOf(level));
