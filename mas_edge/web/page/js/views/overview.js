// What the job is doing: phase, progress, losses and metrics per task, rounds, and the words that steer it.
import { order } from "../api.js";
import { Lines } from "../chart.js";
import * as f from "../format.js";
import { Icon } from "../icons.js";
import { Ago, Badge, Card, Empty, Figure, Order, Pages, Since, Task, Toggles, Waiting } from "../parts.js";
import { useNeeds, useStore } from "../store.js";
import { html, useMemo, useState } from "../view.js";

// What a person follows; the steps of mas_edge.federation.flow that belong to each.
const STEPS = [
  ["Initial evaluation", ["prepare", "initial_evaluation"]],
  ["Merge and measure affinity", ["merge", "merged_evaluation"]],
  ["Split", ["probe", "probe_evaluation", "split"]],
  ["Train groups", ["groups", "regroup", "group_evaluation"]],
  ["Export", ["export"]],
  ["Deploy", ["deploy"]],
];

/** The first view. */
export function Overview() {
  useNeeds("run", "rounds", "devices");
  const { data, problems, theme } = useStore("data", "problems", "theme");
  if (!data.run) return html`<h1 tabindex="-1">Overview</h1><${Waiting} problem=${problems.run} what="the run" />`;
  const { run, rounds } = data;
  return html`
    <${Head} run=${run} />
    <${Stepper} run=${run} />
    <${Figures} run=${run} devices=${data.devices} />
    <${Now} run=${run} />
    <${Losses} run=${run} rounds=${rounds} problem=${problems.rounds} theme=${theme} />
    <${Metrics} run=${run} rounds=${rounds} />
    <${Rounds} rounds=${rounds} problem=${problems.rounds} run=${run} />`;
}

const STATES = {
  running: ["busy", "Running"], held: ["warn", "Waiting for start"], paused: ["warn", "Paused"], aborted: ["bad", "Aborted"],
};

function Head({ run }) {
  const over = run.finished !== null;
  const still = !run.served && !over;
  const [kind, text] = over && run.phase === "done" ? ["good", "Done"] : still && run.control === "running" ? ["warn", "Not served"] : STATES[run.control] ?? ["", f.words(run.control)];
  const idle = run.served ? undefined : "Nobody serves this run now: start it with mas-edge serve";
  const say = (verb) => order("/api/job/orders", { verb });
  const stop = {
    title: `Abort ${run.name}?`, yes: "Abort the job",
    text: "Open rounds end without a result, and the run cannot be continued. Models that devices have in use stay there.",
  };
  return html`
    <div class="head">
      <h1 tabindex="-1" class="break">${run.name}</h1>
      <${Badge} kind=${kind}>${text}</${Badge}>
      ${still && run.control !== "running" && html`<${Badge} kind="warn">Not served</${Badge}>`}
      <span class="muted small">started <${Ago} time=${run.started} />${over && html`, finished <${Ago} time=${run.finished} />`}</span>
      ${!over && html`
        <div class="end">
          ${run.control === "paused" || run.control === "held"
            ? html`<${Order} key="hold" label=${run.control === "held" ? "Start" : "Resume"} icon=${html`<${Icon} name="resume" />`} main act=${() => say(run.control === "held" ? "start" : "resume")} why=${idle} />`
            : html`<${Order} key="hold" label="Pause" icon=${html`<${Icon} name="pause" />`} act=${() => say("pause")} why=${idle ?? "Open rounds end, no new one begins"} disabled=${run.control === "aborted"} />`}
          <${Order} key="abort" label="Abort …" danger icon=${html`<${Icon} name="stop" />`} ask=${stop} act=${() => say("abort")} why=${idle} disabled=${run.control === "aborted"} />
        </div>`}
    </div>
    ${still && html`<div class="note"><strong>Nobody works on this run now</strong><p>Start <code>mas-edge serve</code> with its job file and this state directory: it goes on where it was. What is asked for here waits until then.</p></div>`}`;
}

function Stepper({ run }) {
  const states = new Map(run.phases.map((phase) => [phase.name, phase.state]));
  const steps = STEPS.filter(([, names]) => names.some((name) => states.get(name) !== "passed_over"));
  const aborted = run.phase === "aborted"; // the server knows in which phase that was
  const isHere = (name) => ["current", "aborted"].includes(states.get(name));
  const at = run.phase === "done" ? steps.length : steps.findIndex(([, names]) => names.some(isHere));
  return html`
    <section class="card" aria-label="Phases"><div class="body" style=${{ paddingTop: "var(--s4)" }}>
      <ol class="phases">
        ${steps.map(([label], i) => html`
          <li key=${label} class=${i < at ? "past" : i === at ? (aborted ? "now bad" : "now") : ""} aria-current=${i === at ? "step" : undefined}>
            ${label}<span class="unseen">${i < at ? ", done" : i === at ? (aborted ? ", aborted" : ", under way") : ", to come"}</span>
          </li>`)}
      </ol>
      <div class=${`bar ${run.phase === "done" ? "done" : aborted ? "bad" : ""}`} role="progressbar" aria-label="Training rounds done" aria-valuenow=${Math.round(100 * run.progress.share)} aria-valuemin="0" aria-valuemax="100">
        <i style=${{ width: `${100 * run.progress.share}%` }}></i>
      </div>
    </div></section>`;
}

function Figures({ run, devices }) {
  const p = run.progress;
  const online = devices ? devices.items.filter((device) => device.online).length : run.online;
  const total = devices ? devices.items.length : run.devices;
  const done = p.merged + p.groups;
  const planned = p.merged_planned + p.groups_planned;
  return html`
    <dl class="card figures">
      <${Figure} label="Phase" word value=${run.control === "paused" ? "paused" : f.phaseName(run.phase)} note=${`method ${run.method}`} />
      <${Figure} label="Training rounds" value=${f.count(done)} unit=${`of ${f.count(planned)}`} note=${`${p.merged} of ${p.merged_planned} merged, ${p.groups} of ${p.groups_planned} in groups`} />
      <${Figure} label=${run.served ? "Devices online" : "Devices online at last"} value=${f.count(online)} unit=${`of ${f.count(total)}`} note=${`fleet ${run.fleet}`} />
      <div><dt>${run.finished ? "Took" : run.served ? "Running for" : "Since its start"}</dt><dd class="figure">${run.finished ? f.seconds(run.finished - run.started) : html`<${Since} time=${run.started} />`}</dd><dd class="hint">${f.plural(run.tasks.length, "task")}</dd></div>
    </dl>`;
}

function Now({ run }) {
  if (run.finished || !run.open_rounds.length) return null;
  return html`
    <${Card} title="Under way" flush>
      <div class="scroll"><table>
        <thead><tr><th scope="col">Round</th><th scope="col">Kind</th><th scope="col">Group</th><th scope="col" class="number">Reports</th><th scope="col" class="number">Open for</th></tr></thead>
        <tbody>${run.open_rounds.map((round) => html`
          <tr key=${round.round_id}>
            <td class="mono"><a href=${`#/rounds/${encodeURIComponent(round.round_id)}`}>${round.round_id}</a></td><td>${round.kind}</td><td>${round.group}</td>
            <td class="number">${round.reports} of ${round.selected.length}</td><td class="number"><${Since} time=${round.opened} /></td>
          </tr>`)}
        </tbody>
      </table></div>
    </${Card}>`;
}

function Losses({ run, rounds, problem, theme }) {
  const [scale, setScale] = useState("loss");
  const series = useMemo(() => (rounds ? seriesOf(run.tasks, rounds.items, scale) : []), [rounds, scale, run.tasks.length]);
  const end = html`<${Toggles} label="Scale" value=${scale} onChange=${setScale} options=${[["loss", "Loss"], ["relative", "% of first"]]} />`;
  if (!rounds) return html`<${Card} title="Training losses">${problem ? html`<${Waiting} problem=${problem} what="rounds" />` : html`<${Empty} title="Reading rounds …" />`}</${Card}>`;
  if (!series.some((each) => each.points.length)) {
    return html`<${Card} title="Training losses"><${Empty} title=${run.phase === "aborted" ? "No training round has closed" : "No training round has closed yet"}>
      <p>${run.phase === "aborted" ? "The job was aborted before one had closed." : run.control === "held" ? "The job waits for its start." : run.devices ? "The first one appears here as soon as its devices have reported." : "Start devices with mas-edge-device run; the job begins when enough of them are there."}</p></${Empty}></${Card}>`;
  }
  const split = rounds.items.find((round) => round.phase === "groups" && round.kind === "train");
  return html`
    <${Card} title="Training losses" note="mean over the devices of each round" end=${end}>
      <${Lines} series=${series} theme=${theme} label="Training loss per task" unit=${scale === "loss" ? "" : "%"} mark=${split && split.index > 0 ? { x: split.index + 0.5, label: "split" } : null} />
    </${Card}>`;
}

function seriesOf(tasks, rounds, scale) {
  return tasks.map(({ name }, index) => {
    const points = rounds.filter((round) => round.kind === "train" && round.closed !== null && name in (round.losses ?? {}) && ["merge", "groups", "regroup"].includes(round.phase))
      .map((round) => [round.index + 1, round.losses[name]]);
    points.sort((a, b) => a[0] - b[0]);
    const first = points[0]?.[1];
    return { name, index, points: scale === "relative" && first ? points.map(([x, y]) => [x, (100 * y) / first]) : points };
  });
}

function Metrics({ run, rounds }) {
  const stages = [["initial_evaluation", "Untrained"], ["merged_evaluation", "Merged"], ["group_evaluation", "After the split"]];
  const found = stages.map(([phase]) => {
    const metrics = {};
    for (const round of rounds?.items ?? []) if (round.phase === phase && round.closed !== null) Object.assign(metrics, round.metrics);
    return metrics;
  });
  if (!found.some((metrics) => Object.keys(metrics).length)) return null;
  return html`
    <${Card} title="Metrics on test data" note="mean over all test samples of the fleet" flush>
      <div class="scroll" tabindex="0" role="region" aria-label="Metrics on test data"><table>
        <thead><tr><th scope="col">Task</th>${stages.map(([, label]) => html`<th scope="col" class="number">${label}</th>`)}</tr></thead>
        <tbody>${run.tasks.map((task, index) => html`
          <tr key=${task.name}><th scope="row"><${Task} name=${task.name} index=${index} /><br /><span class="muted metric">${f.words(task.metric)}</span></th>
            ${found.map((metrics) => html`<td class="number">${f.metric(task.metric, metrics[task.name])}</td>`)}</tr>`)}
        </tbody>
      </table></div>
    </${Card}>`;
}

const PER_PAGE = 25; // rows that are read without scrolling for long

function Rounds({ rounds, problem, run }) {
  const [page, setPage] = useState(0);
  if (!rounds) return problem ? html`<${Waiting} problem=${problem} what="rounds" />` : null;
  const total = rounds.items.length;
  const pages = Math.max(1, Math.ceil(total / PER_PAGE));
  const at = Math.min(page, pages - 1);
  const rows = rounds.items.slice(Math.max(0, total - (at + 1) * PER_PAGE), total - at * PER_PAGE).reverse();
  return html`
    <${Card} title="Rounds" note=${`${f.plural(total, "round")}, the newest first`} flush end=${html`<${Pages} page=${at} pages=${pages} onPage=${setPage} what="rounds" />`}>
      ${total === 0 ? html`<${Empty} title="No round has been opened"><p>${run.phase === "aborted" ? "The job was aborted before." : `The job waits for ${!run.served ? "mas-edge serve" : run.control === "held" ? "its start" : "its devices"}. Rounds appear here by themselves.`}</p></${Empty}>` : html`
      <div class="scroll" tabindex="0" role="region" aria-label="Rounds, table"><table class="stack">
        <thead><tr>
          <th scope="col">Round</th><th scope="col">Outcome</th><th scope="col">Phase</th><th scope="col" class="number">Reports</th>
          <th scope="col" class="number">Took</th><th scope="col" class="number">Sent</th><th scope="col" class="number">Received</th><th scope="col">Opened</th>
        </tr></thead>
        <tbody>${rows.map((round) => html`
          <tr key=${round.number}>
            <td class="mono nowrap"><a href=${`#/rounds/${encodeURIComponent(round.round_id)}`}>${round.round_id}</a></td>
            <td>${round.closed === null ? html`<${Badge} kind="busy">open</${Badge}>` : html`<${Badge} kind=${round.outcome === "complete" ? "good" : round.outcome === "abandoned" ? "bad" : "warn"}>${round.outcome}</${Badge}>`}</td>
            <td class="nowrap">${f.phaseName(round.phase)}</td>
            <td class="number" data-label="Reports">${round.reports} of ${round.selected}</td>
            <td class="number" data-label="Took">${round.closed === null ? "–" : f.seconds(round.wall_seconds)}</td>
            <td class="number only-wide" data-label="Sent">${round.closed === null ? "–" : f.bytes(round.sent_bytes)}</td>
            <td class="number only-wide" data-label="Received">${round.closed === null ? "–" : f.bytes(round.received_bytes)}</td>
            <td data-label="Opened"><${Ago} time=${round.opened} /></td>
          </tr>`)}
        </tbody>
      </table></div>`}
    </${Card}>`;
}
