// The devices: what they are, how they are, and what went wrong last.
import { post } from "../api.js";
import * as f from "../format.js";
import { Ago, Badge, Card, Empty, Figure, Order, Sortable, Task, Waiting, useGrowing } from "../parts.js";
import { touch, useNeeds, useStore } from "../store.js";
import { html, useMemo, useState } from "../view.js";

const STATES = {
  working: ["busy", "working"], online: ["good", "online"], offline: ["", "offline"], quarantine: ["bad", "quarantine"],
  unfit: ["warn", "cannot serve"], revoked: ["bad", "revoked"],
};
const ORDER = Object.keys(STATES);
const AT_ONCE = 25; // rows: more than a screen holds

/** In which of the states above a device is. */
export function stateOf(device, time = Date.now() / 1000) {
  if (device.membership === "revoked") return "revoked";
  if (device.standing?.until > time) return "quarantine";
  if (!device.online) return "offline";
  if (device.problem) return "unfit";
  return device.working_on?.length ? "working" : "online";
}

/** The last thing that went wrong with a device; "" if nothing has. */
const errorOf = (device) => device.problem || device.last_error?.reason || device.standing?.reason || device.no_model || "";

/** All joules of a device or phase by their quality. */
export const joulesOf = (joules) => Object.entries(joules ?? {}).filter(([quality]) => quality !== "none")
  .map(([quality, parts]) => [quality, Object.values(parts).reduce((a, b) => a + b, 0)]).filter(([, sum]) => sum > 0);

const COLUMNS = {
  name: (device) => device.name.toLowerCase(), machine: (device) => device.machine, engine: (device) => device.engine,
  state: (device) => ORDER.indexOf(stateOf(device)), battery: (device) => device.board?.battery_percent ?? -1,
  heat: (device) => device.board?.temperature_c ?? -Infinity, seen: (device) => device.last_seen, reports: (device) => device.reports,
};

/** The list. */
export function Fleet() {
  useNeeds("devices", "run");
  const { data, problems } = useStore("data", "problems");
  const [sort, setSort] = useState({ by: "name", down: false });
  const [query, setQuery] = useState("");
  const [state, setState] = useState("");
  const items = data.devices?.items;
  const minute = Math.floor(Date.now() / 60000); // quarantines end by themselves
  const rows = useMemo(() => chosen(items ?? [], query, state, sort), [items, query, state, sort, minute]);
  const drawn = useGrowing(rows.length, AT_ONCE);
  const body = useMemo(() => rows.slice(0, drawn).map((device) => html`<${Row} key=${device.name} device=${device} />`), [rows, drawn]);
  if (!items) return html`<h1 tabindex="-1">Fleet</h1><${Waiting} problem=${problems.devices} what="the fleet" />`;
  const heading = { sort, onSort: setSort };
  return html`
    <div class="head"><h1 tabindex="-1">Fleet</h1><span class="muted">${f.plural(items.length, "device")}, ${f.count(items.filter((device) => device.online).length)} online${data.run && !data.run.served ? " when the run was last served" : ""}</span></div>
    ${data.run?.members && html`<${Joining} />`}
    ${items.length === 0 ? html`<div class="card"><${Empty} title="No device has come yet"><p>On each device: <code>mas-edge-device run</code> with the address of the broker. It appears here as soon as it is connected.</p></${Empty}></div>` : html`
    <section class="card" aria-label="Devices">
      <header>
        <input type="search" aria-label="Filter by name, board, engine or error" placeholder="Filter by name, board, engine, error" value=${query} onInput=${(event) => setQuery(event.target.value)} style=${{ flex: "1 1 14rem", minWidth: 0 }} />
        <select aria-label="State" value=${state} onChange=${(event) => setState(event.target.value)}>
          <option value="">All states</option>${ORDER.map((key) => html`<option value=${key}>${STATES[key][1]}</option>`)}
        </select>
      </header>
      <div class="flush scroll" tabindex="0" role="region" aria-label="Devices, table">
        ${rows.length === 0 ? html`<${Empty} title="No device fits the filter"><button type="button" class="button" onClick=${() => { setQuery(""); setState(""); }}>Show all</button></${Empty}>` : html`
        <table class="stack">
          <thead><tr>
            <${Sortable} name="name" label="Device" ...${heading} /><${Sortable} name="state" label="State" ...${heading} /><${Sortable} name="machine" label="Board" ...${heading} />
            <${Sortable} name="engine" label="Engine" ...${heading} /><${Sortable} name="battery" label="Battery" number ...${heading} /><${Sortable} name="heat" label="Heat" number ...${heading} />
            <${Sortable} name="reports" label="Reports" number ...${heading} /><${Sortable} name="seen" label="Last seen" ...${heading} /><th scope="col">Last error</th>
          </tr></thead>
          <tbody>${body}</tbody>
        </table>`}
      </div>
    </section>`}`;
}

function chosen(items, query, state, { by, down }) {
  const needle = query.trim().toLowerCase();
  const fits = (device) => (!state || stateOf(device) === state)
    && (!needle || [device.name, device.machine, device.engine, errorOf(device)].join("\n").toLowerCase().includes(needle));
  const key = COLUMNS[by];
  const found = items.filter(fits).map((device) => [key(device), device]);
  found.sort(([a, x], [b, y]) => (a < b ? -1 : a > b ? 1 : x.name.localeCompare(y.name, "en", { numeric: true })));
  if (down) found.reverse();
  return found.map(([, device]) => device);
}

const stateBadge = (device) => {
  const [kind, text] = STATES[stateOf(device)];
  return html`<${Badge} kind=${kind}>${text}</${Badge}>`;
};
const battery = (board) => (Number.isFinite(board?.battery_percent) ? `${f.number(board.battery_percent)} %${board.plugged ? ", plugged in" : ""}` : "");
const heat = (board) => (Number.isFinite(board?.temperature_c) ? `${f.number(board.temperature_c)} °C` : "");

function Row({ device }) {
  const wrong = errorOf(device);
  const cell = (text, label, number) => html`<td class=${`${number ? "number" : ""} ${text ? "" : "absent"}`} data-label=${label}>${text || html`<span class="muted">–</span>`}</td>`;
  return html`
    <tr>
      <td class="break"><a href=${`#/fleet/${encodeURIComponent(device.name)}`}>${device.name}</a></td>
      <td>${stateBadge(device)}</td>
      ${cell(device.machine, "")}${cell(device.engine, "")}${cell(battery(device.board), "Battery", true)}${cell(heat(device.board), "Heat", true)}
      <td class="number" data-label="Reports">${f.count(device.reports)} of ${f.count(device.selected)}</td>
      <td data-label="Seen"><${Ago} time=${device.last_seen} /></td>
      <td class=${`wide break small ${wrong ? "" : "absent"}`}>${wrong ? html`<span class="level-error">${wrong}</span>` : html`<span class="muted">–</span>`}</td>
    </tr>`;
}

/** One device. */
export function Device({ name }) {
  useNeeds("devices", "run");
  const { data, problems } = useStore("data", "problems");
  const device = data.devices?.items.find((each) => each.name === name);
  const back = html`<p><a href="#/fleet">All devices</a></p>`;
  if (!data.devices) return html`${back}<h1 tabindex="-1" class="break">${name}</h1><${Waiting} problem=${problems.devices} what="this device" />`;
  if (!device) return html`${back}<h1 tabindex="-1" class="break">${name}</h1><div class="card"><${Empty} title="No such device"><p>It has not been at this run, or its name is another.</p></${Empty}></div>`;
  const tasks = (data.run?.tasks ?? []).map((task) => task.name);
  const wrong = errorOf(device);
  const energy = joulesOf(device.joules);
  return html`
    ${back}
    <div class="head"><h1 tabindex="-1" class="break">${device.name}</h1>${stateBadge(device)}<span class="muted small">seen <${Ago} time=${device.last_seen} /></span><${Membership} device=${device} /></div>
    ${wrong && html`<div class="note warn"><strong>${device.problem ? "It cannot serve this job" : "Last error"}</strong><p class="break">${wrong}</p>
      ${device.last_error && html`<p class="small muted">in ${device.last_error.round_id}, <${Ago} time=${device.last_error.time} /></p>`}</div>`}
    ${stateOf(device) === "quarantine" && html`<div class="note bad"><strong>In quarantine</strong><p>Its updates are not counted until ${f.moment(device.standing.until)}, after ${f.plural(device.standing.strikes, "refusal")}.</p></div>`}
    <dl class="card figures">
      <${Figure} label="Reports" value=${f.count(device.reports)} unit=${`of ${f.plural(device.selected, "round")}`} note=${device.last_round && `last in ${device.last_round}`} />
      <${Figure} label="Processor time" value=${f.seconds(device.cpu_seconds)} note="on rounds of this run" />
      <${Figure} label="Received" value=${f.bytes(device.received_bytes)} note="programs, weights, models" />
      <${Figure} label="Energy above idle" value=${energy.length ? f.joules(energy[0][1]) : "–"} note=${energy.length ? `${energy[0][0]}: ${device.energy_source}` : "nothing measures it"} />
    </dl>
    <div class="columns">
      <${Card} title="Board"><dl class="facts">
        <dt>Machine</dt><dd>${device.machine || "–"}</dd><dt>Engine</dt><dd>${device.engine || "–"}</dd><dt>Agent</dt><dd>${device.runtime || "–"}</dd>
        <dt>Battery</dt><dd>${battery(device.board) || "not reported"}</dd><dt>Heat</dt><dd>${heat(device.board) || "not reported"}</dd>
        <dt>Works on</dt><dd>${device.working_on.length ? f.listed(device.working_on) : "nothing now"}</dd>
      </dl></${Card}>
      <${Card} title="Training data" flush>
        ${Object.keys(device.tasks).length === 0 ? html`<${Empty} title="No labels for this job" />` : html`
        <table><thead><tr><th scope="col">Task</th><th scope="col" class="number">Labelled samples</th></tr></thead>
          <tbody>${Object.entries(device.tasks).map(([task, samples]) => html`<tr key=${task}><td><${Task} name=${task} index=${Math.max(0, tasks.indexOf(task))} /></td><td class="number">${f.count(samples)}</td></tr>`)}</tbody></table>`}
      </${Card}>
    </div>
    ${Object.keys(device.models ?? {}).length > 0 && html`
      <${Card} title="Models" note="of the last rollout" flush><div class="scroll"><table>
        <thead><tr><th scope="col">Group</th><th scope="col">State</th><th scope="col" class="number">Time per sample</th><th scope="col">Model</th><th scope="col">Remark</th></tr></thead>
        <tbody>${Object.entries(device.models).map(([group, model]) => html`
          <tr key=${group}><td>${group}</td><td><${Badge} kind=${MODEL[model.stage]}>${model.stage}</${Badge}></td><td class="number">${model.latency_s ? f.seconds(model.latency_s) : "–"}</td>
            <td class="mono" title=${model.model}>${model.model.slice(0, 12) || "–"}</td><td class="break">${model.reason}</td></tr>`)}
        </tbody></table></div>
      </${Card}>`}`;
}

/** How a model's stage on a device is coloured. */
export const MODEL = { told: "busy", healthy: "good", failed: "bad", excused: "warn", returned: "" };

function Membership({ device }) {
  if (device.membership !== "enrolled") return null;
  const act = () => post(`/api/fleet/${encodeURIComponent(device.name)}/revoke`).then(() => "Revoked.");
  const ask = { title: `Revoke ${device.name}?`, yes: "Revoke", text: "Its certificate is not accepted any more, and it is disconnected. To come back it has to join anew." };
  return html`<div class="end"><${Order} label="Revoke …" danger ask=${ask} act=${act} /></div>`;
}

/** Devices that ask to be let in. */
function Joining() {
  useNeeds("members");
  const { data } = useStore("data");
  const waiting = (data.members?.items ?? []).filter((member) => member.state === "waiting");
  if (!waiting.length) return null;
  return html`
    <${Card} title="Waiting for approval" note="compare the key with what the device itself shows: somebody else may use its name">
      <ul class="asking">${waiting.map((member) => html`<${Applicant} key=${member.name} member=${member} />`)}</ul>
    </${Card}>`;
}

const KEY = /^[0-9a-f]{16,64}$/i; // as many digits as the API asks for

function Applicant({ member }) {
  const [key, setKey] = useState("");
  const digits = key.replaceAll(/[\s:]/g, "");
  const act = async () => {
    await post(`/api/fleet/${encodeURIComponent(member.name)}/approve`, { key: digits });
    touch(["members", "devices"]);
    return "Approved.";
  };
  return html`
    <li class="row"><b class="break">${member.name}</b>
      <input type="text" class="mono" spellcheck=${false} autocomplete="off" aria-label=${`Key that ${member.name} shows, 16 digits or more`} placeholder="key on the device, 16 digits or more"
        value=${key} onInput=${(event) => setKey(event.target.value)} />
      <${Order} label="Approve" main disabled=${!KEY.test(digits)} act=${act} /></li>`;
}
