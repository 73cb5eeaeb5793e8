// What the run has taken: joules with who measured them, and bytes over the broker, by phase.
import * as f from "../format.js";
import { Badge, Card, Empty, Figure, Waiting } from "../parts.js";
import { useNeeds, useStore } from "../store.js";
import { html } from "../view.js";
import { joulesOf } from "./fleet.js";

const QUALITY = { measured: "good", mixed: "busy", estimated: "warn", none: "" };
const KINDS = {
  sent_weights: ["Weights", 0], sent_program: ["Programs", 1], sent_model: ["Models", 2], sent_golden: ["Golden outputs", 3],
  sent_control: ["Control", 4], sent_metadata: ["Signing", 5], received_update: ["Updates", 0], received_control: ["Control", 4],
};

/** Energy and bytes. */
export function Costs() {
  useNeeds("energy", "traffic", "run");
  const { data, problems } = useStore("data", "problems");
  const { energy, traffic } = data;
  const heading = html`<h1 tabindex="-1">Energy and bytes</h1>`;
  if (!energy || !traffic) return html`${heading}<${Waiting} problem=${problems.energy ?? problems.traffic} what="what the run has taken" />`;
  const joules = totals(energy.phases);
  const busy = traffic.phases.reduce((sum, phase) => sum + phase.wall_seconds, 0);
  return html`
    ${heading}
    <dl class="card figures">
      ${joules.length === 0 ? html`<${Figure} label="Energy above idle" value="–" note="no report with joules yet" />` : joules.map(([quality, sum]) => html`
        <${Figure} key=${quality} label=${`Energy above idle, ${quality}`} value=${f.joules(sum)} note="all devices together" />`)}
      <${Figure} label="Sent to devices" value=${f.bytes(traffic.sent_bytes)} note="payload and topic" />
      <${Figure} label="Received from devices" value=${f.bytes(traffic.received_bytes)} note="payload and topic" />
      <${Figure} label="Rounds took" value=${f.seconds(busy)} note="their times on the wall, added up" />
    </dl>
    <${Energy} energy=${energy} />
    <${Sources} energy=${energy} />
    <${Traffic} traffic=${traffic} />`;
}

function totals(phases) {
  const sums = new Map();
  for (const joules of Object.values(phases)) for (const [quality, sum] of joulesOf(joules)) sums.set(quality, (sums.get(quality) ?? 0) + sum);
  return [...sums];
}

const ACTIVITIES = ["train", "affinity", "evaluate", "other"];

function Energy({ energy }) {
  const rows = Object.entries(energy.phases).flatMap(([phase, joules]) => joulesOf(joules).map(([quality, sum]) => ({ phase, quality, sum, parts: joules[quality] })));
  if (!rows.length) {
    return html`<${Card} title="Energy by phase"><${Empty} title="No joules yet"><p>Devices report them with their rounds. <code>mas-edge-device doctor</code> on a device shows which sensors it finds.</p></${Empty}></${Card}>`;
  }
  const most = Math.max(...rows.map((row) => row.sum));
  return html`
    <${Card} title="Energy by phase" note="above what the devices take when idle; measured and estimated are never added up" end=${html`<${Key} names=${ACTIVITIES.map((name, i) => [name, i])} />`}>
      <ul class="bars">${rows.map((row) => html`
        <li key=${`${row.phase} ${row.quality}`}>
          <div class="line"><span>${f.phaseName(row.phase)} <${Badge} kind=${QUALITY[row.quality]}>${row.quality}</${Badge}></span><b class="number">${f.joules(row.sum)}</b></div>
          <${Bar} parts=${Object.entries(row.parts).map(([name, x]) => [name, x, Math.max(0, ACTIVITIES.indexOf(name)), f.joules(x)])} most=${most} />
        </li>`)}</ul>
    </${Card}>`;
}

function Sources({ energy }) {
  if (!energy.sources.length && !energy.silent) return null;
  return html`
    <${Card} title="Who says so" flush>
      <div class="scroll" tabindex="0" role="region" aria-label="Who says so"><table class="stack">
        <thead><tr><th scope="col">Source</th><th scope="col">Quality</th><th scope="col" class="number">Error</th><th scope="col" class="number">Devices</th></tr></thead>
        <tbody>${energy.sources.map((source) => html`
          <tr key=${`${source.source} ${source.quality}`}><td class="break">${source.source || "–"}</td><td><${Badge} kind=${QUALITY[source.quality]}>${source.quality}</${Badge}></td>
            <td class="number" data-label="Error">${source.error ? `± ${f.percent(source.error)}` : "–"}</td><td class="number" data-label="Devices" title=${source.devices.join(", ")}>${f.count(source.devices.length)}</td></tr>`)}
        </tbody></table></div>
      ${energy.silent > 0 && html`<p class="small muted" style=${{ padding: "var(--s3) var(--s4)" }}>${f.plural(energy.silent, "report")} came without joules: their energy is missing above.</p>`}
    </${Card}>`;
}

function Traffic({ traffic }) {
  const rows = traffic.phases.filter((phase) => phase.sent_bytes + phase.received_bytes > 0);
  if (!rows.length) return html`<${Card} title="Bytes by phase"><${Empty} title="Nothing has been sent yet" /></${Card}>`;
  const most = Math.max(...rows.map((row) => Math.max(row.sent_bytes, row.received_bytes)));
  const parts = (row, direction) => Object.entries(row.kinds).filter(([kind, size]) => kind.startsWith(direction) && size > 0 && KINDS[kind])
    .map(([kind, size]) => [KINDS[kind][0], size, KINDS[kind][1], f.bytes(size)]);
  return html`
    <${Card} title="Bytes by phase" note="payload and topic, over the broker" end=${html`<${Key} names=${[["weights and updates", 0], ["programs", 1], ["models", 2], ["golden outputs", 3], ["control", 4], ["signing", 5]]} />`}>
      <ul class="bars">${rows.map((row) => html`
        <li key=${row.phase}>
          <div class="line"><span>${f.phaseName(row.phase)} <span class="muted">${f.plural(row.rounds, "round")}</span></span></div>
          <div class="line small"><span class="muted">to devices</span><b class="number">${f.bytes(row.sent_bytes)}</b></div><${Bar} parts=${parts(row, "sent_")} most=${most} />
          <div class="line small"><span class="muted">from devices</span><b class="number">${f.bytes(row.received_bytes)}</b></div><${Bar} parts=${parts(row, "received_")} most=${most} />
        </li>`)}</ul>
    </${Card}>`;
}

/** One bar of parts: [name, amount, colour, text]. */
function Bar({ parts, most }) {
  const told = parts.map(([name, , , text]) => `${name} ${text}`).join(", ");
  return html`
    <div class="bar" role="img" aria-label=${told} title=${told}>
      ${parts.map(([name, amount, colour]) => html`<i key=${name} style=${{ width: `${most > 0 ? (100 * amount) / most : 0}%`, "--swatch": `var(--task-${colour})` }}></i>`)}
    </div>`;
}

const Key = ({ names }) => html`
  <ul class="legend" aria-label="Parts of the bars">${names.map(([name, colour]) => html`<li key=${name}><span class="swatch" style=${{ "--swatch": `var(--task-${colour})` }}></span>${name}</li>`)}</ul>`;
