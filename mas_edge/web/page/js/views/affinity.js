// Which tasks help each other, round by round, and the groups that came of it.
import { anchors } from "../colour.js";
import * as f from "../format.js";
import { offDiagonalLimit, ordered } from "../grouping.js";
import { Heat, Scale } from "../heat.js";
import { Beam, Card, Empty, Toggles, Waiting } from "../parts.js";
import { useNeeds, useStore } from "../store.js";
import { inUnits } from "../units.js";
import { html, useMemo, useState } from "../view.js";
import { Split } from "./split.js";

/** The matrix and the split. */
export function Affinity() {
  useNeeds("affinity", "split", "run");
  const { data, problems, theme } = useStore("data", "problems", "theme");
  const colours = useMemo(anchors, [theme]);
  const { affinity, split, unit } = useMemo(() => (data.affinity ? inUnits(data.affinity, data.split) : data), [data.affinity, data.split]);
  const heading = html`<h1 tabindex="-1">Affinity and split</h1>`;
  const aborted = data.run?.phase === "aborted";
  if (!affinity) return html`${heading}<${Waiting} problem=${problems.affinity} what="the affinity" />`;
  return html`
    ${heading}
    <${Matrix} affinity=${affinity} split=${split} unit=${unit} colours=${colours} aborted=${aborted} />
    ${split ? html`<${Split} split=${split} unit=${unit} aborted=${aborted} merging=${["prepare", "initial_evaluation", "merge", "merged_evaluation"].includes(data.run?.phase)} />` : html`<${Waiting} problem=${problems.split} what="the split" />`}`;
}

const MEANING = {
  lookahead: "How much an encoder step on one task lowers the loss of another, relative to that loss and per unit of step size.",
  first_order: "How much an encoder step on one task would lower the loss of another, to first order, from both tasks' gradients.",
  features: "How much a step on one task would lower the loss of another, to first order, from gradients at the encoder's output.",
};

function Matrix({ affinity, split, unit, colours, aborted }) {
  const { tasks, rounds, average } = affinity;
  const [shown, setShown] = useState("average");
  const [at, setAt] = useState(null); // null: the newest
  const [sorted, setSorted] = useState("groups");
  const groups = split?.decided ? split.groups : null;
  const order = groups && sorted === "groups" ? ordered(tasks, groups) : tasks.map((_, i) => i);
  const together = (i, j) => Boolean(groups?.some((group) => group.includes(tasks[i]) && group.includes(tasks[j])));
  const matrices = useMemo(() => [...rounds.map((round) => round.matrix), ...(average ? [average.matrix] : [])], [rounds, average]);
  if (!average) {
    return html`<${Card} title="Affinity matrix"><${Empty} title=${aborted ? "Nothing was measured" : "Nothing has been measured yet"}>
      <p>Devices measure affinity while the merged network trains. ${aborted ? "The job was aborted before the first merged round had closed." : "The first matrix appears when the first merged round has closed."}</p></${Empty}></${Card}>`;
  }
  const place = at === null || at >= rounds.length ? rounds.length - 1 : at;
  const round = rounds[place];
  const spreadOnly = shown === "spread";
  // One scale for all rounds, so that the colour of a pair can be followed; the mean and its error have their own.
  const matrix = shown === "rounds" ? round.matrix : spreadOnly ? average.spread : average.matrix;
  const limit = shown === "rounds" ? offDiagonalLimit(matrices) : offDiagonalLimit([average.matrix]);
  const title = shown === "rounds" ? `Round ${round.index + 1}` : spreadOnly ? "Standard error of the mean over rounds" : `Mean of ${f.plural(rounds.length, "round")}`;
  const options = [["average", "Mean"], ["spread", "Spread"], ["rounds", "By round"]];
  return html`
    <${Card} title="Affinity matrix" note=${`${MEANING[affinity.kind] ?? ""}${unit && ` All numbers in units of ${unit}.`}`} end=${html`
      ${groups && html`<${Toggles} label="Order of tasks" value=${sorted} onChange=${setSorted} options=${[["groups", "By group"], ["job", "As in the job"]]} />`}
      <${Toggles} label="Which matrix" value=${shown} onChange=${setShown} options=${options} />`}>
      <div class="slider">
        <label for="round">Round</label>
        <input id="round" type="range" min="0" max=${Math.max(0, rounds.length - 1)} step="1" value=${place} disabled=${rounds.length < 2}
          aria-valuetext=${`round ${round.index + 1} of ${rounds.length}`}
          onInput=${(event) => { setAt(Number(event.target.value)); setShown("rounds"); }} />
        <output for="round">${title}</output>
      </div>
      <div class="beside">
        <div>
          <${Heat} tasks=${tasks} matrix=${matrix} devices=${spreadOnly ? null : shown === "rounds" ? round.devices : average.devices}
            spread=${shown === "average" ? average.spread : null} order=${order} together=${together} limit=${limit} colours=${colours} caption=${`Affinity, ${title}`} error=${spreadOnly} />
          <${Scale} limit=${limit} />
          <p class="small muted">${groups ? "A frame holds the tasks of one group. " : ""}The diagonal, a step on the task itself, has no colour: no group is made by it.</p>
        </div>
        ${!spreadOnly && html`<${Strongest} tasks=${tasks} matrix=${matrix} devices=${shown === "rounds" ? round.devices : average.devices} limit=${limit} />`}
      </div>
    </${Card}>`;
}

const SHOWN = 5; // pairs of each list: what can be taken in at a glance

/** The pairs that matter most, in words. */
function Strongest({ tasks, matrix, devices, limit }) {
  const pairs = tasks.flatMap((_, i) => tasks.map((__, j) => ({ i, j, value: matrix[i][j] })))
    .filter(({ i, j }) => i !== j && devices[i][j] > 0).sort((a, b) => b.value - a.value);
  const lists = [["Helps most", pairs.filter(({ value }) => value > 0).slice(0, SHOWN)], ["Hurts most", pairs.filter(({ value }) => value < 0).reverse().slice(0, SHOWN)]];
  return html`
    <div class="strongest">${lists.map(([title, list]) => html`
      <div key=${title}><h3>${title}</h3>
        ${list.length === 0 ? html`<p class="small muted">No pair.</p>` : html`<ul>${list.map(({ i, j, value }) => html`
          <li key=${`${i}-${j}`}><${Beam} label=${`${tasks[i]} → ${tasks[j]}`} value=${value} limit=${limit} /></li>`)}</ul>`}
      </div>`)}</div>`;
}
