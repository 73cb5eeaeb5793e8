// Bringing the new models to the fleet in stages, and the words that steer it.
import { order } from "../api.js";
import * as f from "../format.js";
import { Icon } from "../icons.js";
import { Badge, Card, Empty, Figure, Order, Pages, Waiting } from "../parts.js";
import { useNeeds, useStore } from "../store.js";
import { html, useState } from "../view.js";
import { MODEL } from "./fleet.js";

const MODES = { running: "busy", paused: "warn", halted: "bad", complete: "good", aborted: "bad", rolling_back: "warn", rolled_back: "" };

/** The last rollout, or how to begin one. */
export function RolloutView() {
  useNeeds("rollouts", "run");
  const { data, problems } = useStore("data", "problems");
  const heading = html`<h1 tabindex="-1">Rollout</h1>`;
  if (!data.rollouts) return html`${heading}<${Waiting} problem=${problems.rollouts} what="the rollout" />`;
  const { current, ready } = data.rollouts;
  const aborted = data.run?.phase === "aborted";
  const waits = data.run && !data.run.served && (ready || current);
  return html`
    ${current ? html`<${Current} rollout=${current} />` : heading}
    ${waits && html`<div class="note"><strong>Nobody serves this run now</strong><p>What is asked for here is noted, and done when <code>mas-edge serve</code> with <code>--stay</code> works on it again.</p></div>`}
    ${ready ? (!current || isOver(current) ? html`<${Begin} again=${Boolean(current)} />` : null) : !current && html`
      <div class="card"><${Empty} title=${aborted ? "There are no models to roll out" : "There are no models to roll out yet"}><p>${aborted ? "The job was aborted before the export, which makes them." : `The job is ${f.phaseName(data.run?.phase ?? "prepare")}; its models are made at the end, in the export.`}</p></${Empty}></div>`}
    ${current && html`<${Standings} rollout=${current} />`}`;
}

const isOver = ({ state }) => ["complete", "aborted", "rolled_back"].includes(state.mode);

const VERBS = {
  pause: { label: "Pause", icon: "pause" },
  resume: { label: "Resume", icon: "resume", main: true },
  rollback: {
    label: "Roll back …", icon: "back", danger: true,
    ask: { title: "Roll back?", yes: "Roll back", text: "Every device that took the new models returns to the last good ones that it had before." },
  },
  abort: {
    label: "Abort …", icon: "stop", danger: true,
    ask: { title: "Abort this rollout?", yes: "Abort the rollout", text: "No further device gets the new models. Devices that have them keep them; to take them back, roll back." },
  },
};

function Current({ rollout }) {
  const { state, counts, verbs } = rollout;
  const told = Object.values(counts).reduce((a, b) => a + b, 0);
  const say = (verb) => order("/api/rollouts/orders", { verb });
  const over = isOver(rollout);
  return html`
    <div class="head">
      <h1 tabindex="-1">Rollout ${state.number}</h1><${Badge} kind=${MODES[state.mode]}>${f.words(state.mode)}</${Badge}>
      <div class="end">${Object.entries(VERBS).filter(([verb]) => verbs.includes(verb)).map(([verb, { icon, ...rest }]) => html`
        <${Order} key=${verb} ...${rest} icon=${html`<${Icon} name=${icon} />`} act=${() => say(verb)} />`)}</div>
    </div>
    ${state.reason && html`<div class="note bad"><strong>It was halted</strong><p class="break">${state.reason}</p><p class="small">Resume goes on and lets the failed devices be; roll back returns all of them.</p></div>`}
    <${Card} title="Stages" note=${`each waits until its devices were healthy for ${f.seconds(state.spec.soak_s)}; it halts when more than ${f.percent(state.spec.halt_on)} fail`}>
      <ol class="stages">${state.spec.shares.map((share, i) => {
        const past = i < state.stage || state.mode === "complete";
        const now = i === state.stage && !past;
        const kind = past ? "past" : now ? (["halted", "aborted"].includes(state.mode) ? "bad" : over ? "" : "now") : "";
        return html`<li key=${i} class=${kind} aria-current=${now ? "step" : undefined}>${f.percent(share)}<span class="unseen">${past ? ", done" : now ? `, ${f.words(state.mode)}` : ", to come"}</span></li>`;
      })}</ol>
    </${Card}>
    <dl class="card figures">
      <${Figure} label="Devices told" value=${f.count(told)} note=${`stage ${state.stage + 1} of ${state.spec.shares.length}`} />
      <${Figure} label="Healthy" value=${f.count(counts.healthy ?? 0)} note="they use the new models" />
      <${Figure} label="Failed" value=${f.count(counts.failed ?? 0)} note=${`more than ${f.percent(state.spec.halt_on)} halt it`} />
      <${Figure} label="Returned" value=${f.count(counts.returned ?? 0)} note="to the models before" />
    </dl>`;
}

const PER_PAGE = 50; // rows that are read without scrolling for long
const BY_NEED = ["failed", "told", "excused", "returned", "healthy"];

function Standings({ rollout }) {
  const [page, setPage] = useState(0);
  const rows = Object.entries(rollout.standings).flatMap(([device, groups]) => Object.entries(groups).map(([group, standing]) => ({ device, group, ...standing })));
  rows.sort((a, b) => BY_NEED.indexOf(a.stage) - BY_NEED.indexOf(b.stage) || a.device.localeCompare(b.device, "en", { numeric: true }));
  if (!rows.length) return html`<${Card} title="Devices"><${Empty} title="No device has been told yet"><p>The first stage opens as soon as devices that can run the models are online.</p></${Empty}></${Card}>`;
  const pages = Math.ceil(rows.length / PER_PAGE);
  const at = Math.min(page, pages - 1);
  return html`
    <${Card} title="Devices" note="those that need a look first" flush end=${html`<${Pages} page=${at} pages=${pages} onPage=${setPage} what="devices" />`}>
      <div class="scroll" tabindex="0" role="region" aria-label="Devices of the rollout"><table class="stack">
        <thead><tr><th scope="col">Device</th><th scope="col">State</th><th scope="col">Group</th><th scope="col" class="number">Time per sample</th><th scope="col">Model</th><th scope="col">Remark</th></tr></thead>
        <tbody>${rows.slice(at * PER_PAGE, (at + 1) * PER_PAGE).map((row) => html`
          <tr key=${`${row.device} ${row.group}`}><td><a href=${`#/fleet/${encodeURIComponent(row.device)}`}>${row.device}</a></td><td><${Badge} kind=${MODEL[row.stage]}>${row.stage}</${Badge}></td><td class="nowrap">${row.group}</td>
            <td class="number">${row.latency_s ? f.seconds(row.latency_s) : "–"}</td><td class="mono only-wide" title=${row.model}>${row.model.slice(0, 12) || "–"}</td><td class=${`wide break ${row.reason ? "" : "absent"}`}>${row.reason}</td></tr>`)}
        </tbody>
      </table></div>
    </${Card}>`;
}

function Begin({ again }) {
  const [stages, setStages] = useState("1, 10, 100");
  const [halt, setHalt] = useState("5");
  const [soak, setSoak] = useState("60");
  const shares = stages.split(/[\s,;]+/).filter(Boolean).map(Number);
  const wrong = shares.some((share, i) => !(share > 0 && share <= 100) || (i > 0 && share <= shares[i - 1])) || !shares.length
    ? "Stages are percentages that grow, such as 1, 10, 100."
    : !(Number(halt) >= 0 && Number(halt) < 100) ? "The share that may fail is a percentage below 100." : !(Number(soak) >= 0) ? "The wait is a number of seconds." : "";
  const spec = { shares: shares.map((share) => share / 100), halt_on: Number(halt) / 100, soak_s: Number(soak) };
  const ask = { title: "Begin the rollout?", yes: "Begin", text: `The new models go to ${shares[0]} % of the devices first${shares.length > 1 ? `, then to ${f.listed(shares.slice(1).map((share) => `${share} %`))}` : ""}.` };
  return html`
    <${Card} title=${again ? "Begin another" : "Begin a rollout"} note="the models go to a few devices first; each stage has to be healthy before the next">
      <div class="columns three">
        <label class="field">Stages, in % of the devices<input type="text" inputmode="decimal" value=${stages} onInput=${(event) => setStages(event.target.value)} aria-describedby="wrong" /></label>
        <label class="field">Halt when more than so many % fail<input type="text" inputmode="decimal" value=${halt} onInput=${(event) => setHalt(event.target.value)} aria-describedby="wrong" /></label>
        <label class="field">Seconds a stage has to stay healthy<input type="text" inputmode="decimal" value=${soak} onInput=${(event) => setSoak(event.target.value)} aria-describedby="wrong" /></label>
      </div>
      <p id="wrong" class="small level-error" role="status">${wrong}</p>
      <div class="row"><${Order} label="Begin …" main disabled=${Boolean(wrong)} ask=${ask} act=${() => order("/api/rollouts", spec)} /></div>
    </${Card}>`;
}
