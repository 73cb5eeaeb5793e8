// The groups, and why: the picture, what each task gets where it stands, and what other splits would have been worth.
import * as f from "../format.js";
import { moves, offDiagonalLimit, partners, score } from "../grouping.js";
import { Badge, Beam, Card, Empty, Figure, Task } from "../parts.js";
import { Ties } from "../ties.js";
import { html } from "../view.js";

/** What /api/split tells. */
export function Split({ split, unit, merging, aborted }) {
  if (!split.decided) {
    return html`<${Card} title="The split"><${Empty} title=${aborted ? "It was not decided" : "Not decided yet"}>
      <p>${aborted ? "The job was aborted before." : merging ? "The tasks still train together; they are split when the merged rounds are over." : "It appears here as soon as it is decided."}</p></${Empty}></${Card}>`;
  }
  const positions = split.groups.map((group) => group.map((name) => split.tasks.indexOf(name)));
  const S = split.affinity;
  const limit = S ? offDiagonalLimit([S]) : 0;
  const singular = new Set(split.groups.flat()).size === split.groups.flat().length;
  return html`
    <${Card} title="The split" note=${`${f.plural(split.tasks.length, "task")} in ${f.plural(split.groups.length, "group")}; method ${split.method}${unit && `; values in units of ${unit}`}`}>
      ${S && singular && html`<${Ties} tasks=${split.tasks} groups=${positions} matrix=${S} limit=${limit} />`}
      <${Gist} split=${split} />
      ${split.reason && html`<p>${split.reason}</p>`}
    </${Card}>
    <${Card} title="Why each task stands where it stands" note=${S ? "score of a task: the mean of what the others of its group do for it; bars: what each does for it" : ""}>
      <div class="groups">${split.groups.map((group, g) => html`
        <section class="group" key=${g} aria-label=${`Group ${g + 1}`}>
          <header><h3>Group ${g + 1}</h3>${S && html`<span class="small muted">mean score <b class="number">${f.signed(mean(positions[g].map((j) => score(S, j, positions[g]))))}</b></span>`}</header>
          ${positions[g].map((j) => html`<${Member} key=${j} split=${split} positions=${positions} g=${g} j=${j} limit=${limit} singular=${singular} />`)}
        </section>`)}</div>
    </${Card}>
    <${Alternatives} split=${split} />
    <${Candidates} candidates=${split.candidates} />`;
}

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;

function Gist({ split }) {
  const proven = split.bound !== null && split.value !== null && split.value >= split.bound;
  if (split.value === null) return null;
  return html`
    <dl class="figures" style=${{ borderRadius: "var(--round)", border: "1px solid var(--edge)" }}>
      <${Figure} label="Inside groups" value=${f.signed(split.within)} note="mean affinity of pairs" />
      <${Figure} label="Across groups" value=${f.signed(split.across)} note="mean affinity of pairs" />
      <${Figure} label="Value of the split" value=${f.signed(split.value, 3)} note="mean score of a task" />
      <div><dt>Is there a better one?</dt><dd class="figure">${proven ? "No" : "Perhaps"}</dd><dd class="hint">${proven ? "proven by an exact search" : split.bound === null ? "it was not searched for" : `at most ${f.signed(split.bound, 3)}`}</dd></div>
    </dl>`;
}

function Member({ split, positions, g, j, limit, singular }) {
  const S = split.affinity;
  const name = split.tasks[j];
  if (!S) return html`<div class="member"><${Task} name=${name} index=${j} /></div>`;
  const own = score(S, j, positions[g]);
  const inside = partners(S, j, positions[g]);
  return html`
    <div class="member">
      <div class="row" style=${{ justifyContent: "space-between", flexWrap: "nowrap" }}><b><${Task} name=${name} index=${j} /></b><b class="number">${f.signed(own)}</b></div>
      ${inside.map(({ task, help }) => html`<${Beam} key=${task} label=${split.tasks[task]} value=${help} limit=${limit} />`)}
      <p class="why">${reason(split, positions, g, j, inside, singular)}</p>
    </div>`;
}

/** Why a task is not elsewhere, in a sentence. */
function reason(split, positions, g, j, inside, singular) {
  const S = split.affinity;
  const alone = positions[g].length === 1;
  const best = singular ? moves(S, positions, j)[0] : undefined;
  const elsewhere = best && `In group ${best.group + 1} it would get ${f.signed(score(S, j, [...positions[best.group], j]))}, and the split would be worth ${f.signed(best.value, 3)} instead of ${f.signed(split.value, 3)}.`;
  if (alone) return "It stands alone: its score is the mean of what it would give and get. There have to be as many groups as the job asks for.";
  const top = inside[0];
  const help = top.help > 0 ? `${split.tasks[top.task]} helps it most.` : "Nobody here helps it.";
  const gives = inside.filter(({ back, help: own }) => back > Math.max(0, own)).length;
  const giving = top.help <= 0 && gives > 0 ? ` It is here for what it does for ${f.plural(gives, "other")}.` : "";
  return `${help}${giving} ${elsewhere ?? ""}`;
}

function Alternatives({ split }) {
  if (!split.alternatives.length) return null;
  const rows = [{ name: "this split", groups: split.groups, value: split.value, chosen: true }, ...split.alternatives];
  rows.sort((a, b) => b.value - a.value);
  const limit = Math.max(...rows.map((row) => Math.abs(row.value)));
  return html`
    <${Card} title="Against other splits" note="value: the mean score of a task, by the same affinities" flush>
      <div class="scroll" tabindex="0" role="region" aria-label="Against other splits, table"><table class="stack">
        <thead><tr><th scope="col">Split</th><th scope="col">Groups</th><th scope="col" class="only-wide" style=${{ minWidth: "9rem" }}></th><th scope="col" class="number">Value</th></tr></thead>
        <tbody>${rows.map((row) => html`
          <tr key=${row.name}><th scope="row" class="nowrap">${row.chosen ? html`<${Badge} kind="good">chosen</${Badge}>` : row.name}</th>
            <td class="wide">${row.groups.map((group) => html`<span class="pill" key=${group.join()}>${group.map((name) => html`<${Task} key=${name} name=${name} index=${split.tasks.indexOf(name)} />`)}</span>`)}</td>
            <td class="only-wide"><span class="beam" style=${{ display: "block" }} aria-hidden="true"><i class=${row.value < 0 ? "minus" : ""} style=${{ width: `${limit ? (50 * Math.abs(row.value)) / limit : 0}%` }}></i></span></td>
            <td class="number">${f.signed(row.value, 3)}</td></tr>`)}
        </tbody>
      </table></div>
      ${rows[0].chosen ? null : html`<p class="small muted" style=${{ padding: "var(--s3) var(--s4)" }}>A split above the chosen one was not allowed: it has another number of groups, or a network over the job's limits.</p>`}
    </${Card}>`;
}

function Candidates({ candidates }) {
  if (!candidates.length) return null;
  return html`
    <${Card} title="How many groups" note="each further group has to gain more than it costs" flush>
      <div class="scroll" tabindex="0" role="region" aria-label="How many groups"><table>
        <thead><tr><th scope="col">Groups</th><th scope="col" class="number">Value</th><th scope="col" class="number">Gain</th><th scope="col" class="number">Noise</th><th scope="col" class="number">Cost</th><th scope="col"></th></tr></thead>
        <tbody>${candidates.map((row) => html`
          <tr key=${row.groups}><th scope="row">${row.groups}</th><td class="number">${f.signed(row.value, 3)}</td><td class="number">${f.signed(row.gain, 3)}</td><td class="number">${f.number(row.noise)}</td>
            <td class="number">${f.number(row.cost)}</td><td>${row.chosen && html`<${Badge} kind="good">chosen</${Badge}>`}</td></tr>`)}
        </tbody>
      </table></div>
    </${Card}>`;
}
