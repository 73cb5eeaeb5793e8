// The split as a picture: tasks on a circle, those of a group side by side under one arc, and the affinities between
// them as chords. What the groups were made of can be seen: thick helping chords inside, thin or hurting ones across.
import { taskToken } from "./colour.js";
import * as f from "./format.js";
import { html } from "./view.js";

const SIZE = { width: 620, height: 400, radius: 128 };
const GAP = 0.55; // between groups, in steps between neighbours
const SHOWN = 24; // characters of a name

/** `groups`: positions of tasks; `matrix`: affinities; `limit`: the strongest that is drawn at full width. */
export function Ties({ tasks, groups, matrix, limit }) {
  const places = placesOf(groups);
  const chords = chordsOf(matrix, groups, limit);
  const told = groups.map((group, g) => `group ${g + 1}: ${f.listed(group.map((i) => tasks[i]))}`).join("; ");
  return html`
    <svg class="ties" viewBox=${`0 0 ${SIZE.width} ${SIZE.height}`} role="img" aria-label=${`The split. ${told}`}>
      ${groups.map((group, g) => html`<path key=${`hull-${g}`} class="hull" d=${band(group.map((i) => places.get(i)))} />`)}
      ${chords.map(({ i, j, value, inside, share }) => html`
        <path key=${`${i}-${j}`} d=${chord(places.get(i), places.get(j))} fill="none" stroke=${value < 0 ? "var(--hurts)" : "var(--helps)"}
          stroke-width=${0.75 + 7 * share} stroke-dasharray=${value < 0 ? "7 5" : undefined} stroke-linecap="round" opacity=${inside ? 0.95 : 0.4}>
          <title>${`${tasks[i]} and ${tasks[j]}: ${f.signed(value, 3)} on average of both ways`}</title></path>`)}
      ${groups.flatMap((group) => group.map((i) => html`<${Node} key=${`node-${i}`} place=${places.get(i)} name=${tasks[i]} index=${i} />`))}
    </svg>
    <ul class="legend" aria-label="What the lines mean">
      <li><svg viewBox="0 0 24 10" aria-hidden="true"><line x1="1" y1="5" x2="23" y2="5" stroke="var(--helps)" stroke-width="4" /></svg>they help each other</li>
      <li><svg viewBox="0 0 24 10" aria-hidden="true"><line x1="1" y1="5" x2="23" y2="5" stroke="var(--hurts)" stroke-width="3" stroke-dasharray="6 4" /></svg>they hurt each other</li>
      <li class="muted">the thicker, the stronger; faint across groups</li>
    </ul>`;
}

function Node({ place, name, index }) {
  const side = Math.cos(place.angle);
  const anchor = side > 0.25 ? "start" : side < -0.25 ? "end" : "middle";
  const { x, y } = at(place.angle, SIZE.radius + 34);
  const lift = Math.abs(side) <= 0.25 ? (Math.sin(place.angle) < 0 ? -2 : 12) : 4;
  return html`
    <circle class="node" cx=${place.x} cy=${place.y} r="9" fill=${`var(${taskToken(index)})`} />
    <text x=${x} y=${y + lift} text-anchor=${anchor}>${name.length > SHOWN ? `${name.slice(0, SHOWN - 1)}…` : name}<title>${name}</title></text>`;
}

const at = (angle, radius) => ({ x: SIZE.width / 2 + radius * Math.cos(angle), y: SIZE.height / 2 + radius * Math.sin(angle) });

/** Where each task stands, evenly, with a gap between groups. */
function placesOf(groups) {
  const steps = groups.reduce((sum, group) => sum + group.length, 0) + (groups.length > 1 ? GAP * groups.length : 0);
  const found = new Map();
  let step = 0;
  for (const group of groups) {
    for (const i of group) {
      const angle = -Math.PI / 2 + (2 * Math.PI * (step + 0.5)) / steps;
      if (!found.has(i)) found.set(i, { angle, ...at(angle, SIZE.radius) });
      step += 1;
    }
    step += groups.length > 1 ? GAP : 0;
  }
  return found;
}

/** The band around the tasks of a group. */
function band(places) {
  const pad = 0.13;
  const [from, to] = [places[0].angle - pad, places.at(-1).angle + pad];
  const [outer, inner] = [SIZE.radius + 20, SIZE.radius - 20];
  const [a, b, c, d] = [at(from, outer), at(to, outer), at(to, inner), at(from, inner)];
  const long = to - from > Math.PI ? 1 : 0;
  return `M${a.x} ${a.y}A${outer} ${outer} 0 ${long} 1 ${b.x} ${b.y}A20 20 0 0 1 ${c.x} ${c.y}A${inner} ${inner} 0 ${long} 0 ${d.x} ${d.y}A20 20 0 0 1 ${a.x} ${a.y}Z`;
}

function chord(from, to) {
  const pull = 0.35; // of the way to the middle: chords between neighbours stay apart from the arcs
  const [cx, cy] = [SIZE.width / 2, SIZE.height / 2];
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  return `M${from.x} ${from.y}Q${middle.x + (cx - middle.x) * pull} ${middle.y + (cy - middle.y) * pull} ${to.x} ${to.y}`;
}

/** The pairs that are strong enough to be seen, the faint ones first. */
function chordsOf(matrix, groups, limit) {
  const home = new Map(groups.flatMap((group, g) => group.map((i) => [i, g])));
  const found = [];
  for (let i = 0; i < matrix.length; i += 1) {
    for (let j = i + 1; j < matrix.length; j += 1) {
      const value = (matrix[i][j] + matrix[j][i]) / 2;
      const share = limit > 0 ? Math.min(1, Math.abs(value) / limit) : 0;
      if (share > 0.01 && home.has(i) && home.has(j)) found.push({ i, j, value, share, inside: home.get(i) === home.get(j) });
    }
  }
  return found.sort((a, b) => Number(a.inside) - Number(b.inside) || a.share - b.share);
}
