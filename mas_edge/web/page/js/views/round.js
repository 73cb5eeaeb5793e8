// One round: what was asked of whom, and what each device reported.
import { get } from "../api.js";
import * as f from "../format.js";
import { Ago, Badge, Card, Empty, Waiting } from "../parts.js";
import { useNeeds, useStore } from "../store.js";
import { html, useEffect, useState } from "../view.js";
import { joulesOf } from "./fleet.js";

/** The round with this id. */
export function Round({ id }) {
  useNeeds("rounds");
  const { data, problems } = useStore("data", "problems");
  const [found, setFound] = useState({});
  const row = data.rounds?.items.find((each) => each.round_id === id);
  const closed = row !== undefined && row.closed !== null;
  useEffect(() => {
    if (!closed) return undefined;
    let shown = true;
    get(`/api/rounds/${encodeURIComponent(id)}`).then((record) => shown && setFound({ record }), (problem) => shown && setFound({ problem }));
    return () => { shown = false; };
  }, [id, closed]);
  const back = html`<p><a href="#/">All rounds</a></p>`;
  if (!data.rounds) return html`${back}<h1 tabindex="-1" class="break">${id}</h1><${Waiting} problem=${problems.rounds} what="this round" />`;
  if (!row) return html`${back}<h1 tabindex="-1" class="break">${id}</h1><div class="card"><${Empty} title="No such round"><p>It has not been opened in this run.</p></${Empty}></div>`;
  return html`
    ${back}
    <div class="head"><h1 tabindex="-1" class="break">${id}</h1>
      <${Badge} kind=${!closed ? "busy" : row.outcome === "complete" ? "good" : "warn"}>${row.outcome || "open"}</${Badge}></div>
    <${Card} title="What it was"><${Facts} round=${row} /></${Card}>
    ${!closed ? html`<${Card} title="Reports"><${Empty} title=${`${row.reports} of ${row.selected} devices have reported`}><p>What they found stands here when the round has closed.</p></${Empty}></${Card}>`
      : found.record ? html`<${Reports} record=${found.record} />` : html`<${Waiting} problem=${found.problem} what="the reports" />`}`;
}

function Facts({ round }) {
  const facts = [
    ["Phase", f.phaseName(round.phase)], ["Kind", round.kind], ["Group", round.group], ["Tasks", f.listed(round.tasks ?? [])],
    ["Opened", html`<${Ago} time=${round.opened} />`], ["Took", f.seconds(round.wall_seconds)],
    ["Learning rate", round.learning_rate ? f.number(round.learning_rate) : "–"],
    ["Sent", f.bytes(round.sent_bytes)], ["Received", f.bytes(round.received_bytes)],
    ["Losses", Object.entries(round.losses ?? {}).map(([task, loss]) => `${task} ${f.number(loss)}`).join(", ") || "–"],
  ];
  return html`<dl class="facts two">${facts.map(([name, value]) => html`<dt key=${`${name}.`}>${name}</dt><dd key=${name}>${value}</dd>`)}</dl>`;
}

const device = (name) => html`<a href=${`#/fleet/${encodeURIComponent(name)}`}>${name}</a>`;

function Reports({ record }) {
  const reports = Object.entries(record.reports).sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
  const refused = Object.entries(record.refused);
  const silent = record.selected.filter((name) => !(name in record.reports) && !(name in record.refused));
  return html`
    <${Card} title="Reports" note=${`${reports.length} of ${f.plural(record.selected.length, "device")}`} flush>
      <div class="scroll" tabindex="0" role="region" aria-label="Reports, table"><table class="stack">
        <thead><tr><th scope="col">Device</th><th scope="col">Engine</th><th scope="col" class="number">After</th><th scope="col" class="number">Steps</th><th scope="col" class="number">Processor</th>
          <th scope="col" class="number">Received</th><th scope="col" class="number">Energy</th><th scope="col">Remark</th></tr></thead>
        <tbody>
          ${reports.map(([name, report]) => {
            const energy = report.energy ? joulesOf({ [report.energy.quality]: report.energy.joules })[0] : undefined;
            return html`
            <tr key=${name}><td>${device(name)}</td><td>${report.engine || "–"}</td><td class="number" data-label="After">${f.seconds(record.report_seconds[name])}</td><td class="number" data-label="Steps">${f.count(report.steps)}</td>
              <td class="number" data-label="Processor">${f.seconds(report.cpu_seconds)}</td><td class="number" data-label="Received">${f.bytes(report.received_bytes)}</td>
              <td class="number" data-label="Energy" title=${report.energy?.source}>${energy ? `${f.joules(energy[1])} ${energy[0]}` : "–"}</td>
              <td class=${`wide break ${report.healthy === false ? "" : "absent"}`}>${report.healthy === false ? report.health_reason : ""}</td></tr>`;
          })}
          ${refused.map(([name, reason]) => html`<tr key=${name}><td>${device(name)}</td><td colspan="6"><${Badge} kind="bad">refused</${Badge}></td><td class="wide break">${reason}</td></tr>`)}
          ${silent.map((name) => html`<tr key=${name}><td>${device(name)}</td><td colspan="6"><${Badge} kind="warn">no report</${Badge}></td><td>${record.stragglers.includes(name) ? "still at work when the round closed" : ""}</td></tr>`)}
        </tbody>
      </table></div>
    </${Card}>`;
}
