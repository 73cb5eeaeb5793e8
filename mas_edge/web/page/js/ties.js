// The split as a picture: tasks on a circle, those of a group side by side under one arc, and the affinities between
// them as chords. What the groups were made of can be seen: thick helping chords inside, thin or hurting ones across.
import { taskToken } from "./colour.js";
import * as f from "./format.js";
import { html, useEffect, useRef, useState } from "./view.js";

const MOST = { width: 640, radius: 130 };
const LEAST_RADIUS = 52; // below, chords are not told apart
const GAP = 0.55; // between groups, in steps between neighbours
const LEAST_NAME = 40; // px: some five letters
const AWAY = 28; // px from a task to its name
const PHONE = 480; // px: no room on either side

const DASH = [7, 5]; // px that are seen and not seen; round ends make a dash longer by the line's width

/** `groups`: positions of tasks; `matrix`: affinities; `limit`: the strongest that is drawn at full width. */
export function Ties({ tasks, groups, matrix, limit }) {
  const box = useRef(null);
  const [width, setWidth] = useState(MOST.width);
  useEffect(() => {
    const watcher = new ResizeObserver(([entry]) => setWidth(Math.min(MOST.width, Math.floor(entry.contentRect.width))));
    watcher.observe(box.current);
    return () => watcher.disconnect();
  }, []);
  const names = namesOf(tasks, width);
  const size = sizeOf(groups, names, width);
  const at = (angle, radius) => ({ x: size.width / 2 + radius * Math.cos(angle), y: size.height / 2 + radius * Math.sin(angle) });
  const places = new Map([...anglesOf(groups)].map(([i, angle]) => [i, { angle, ...at(angle, size.radius) }]));
  const chords = chordsOf(matrix, groups, limit);
  const told = groups.map((group, g) => `group ${g + 1}: ${f.listed(group.map((i) => tasks[i]))}`).join("; ");
  return html`
    <div ref=${box}><svg class="ties" width=${size.width} height=${size.height} viewBox=${`0 0 ${size.width} ${size.height}`} role="img" aria-label=${`The split. ${told}`}>
      ${groups.map((group, g) => html`<path key=${`hull-${g}`} class="hull" d=${band(group.map((i) => places.get(i).angle), size.radius, at)} />`)}
      ${chords.map(({ i, j, value, inside, share }) => html`
        <path key=${`${i}-${j}`} d=${chord(places.get(i), places.get(j), size)} fill="none" stroke=${value < 0 ? "var(--hurts)" : "var(--helps)"}
          stroke-width=${thickness(share)} stroke-dasharray=${value < 0 ? `${DASH[0]} ${DASH[1] + thickness(share)}` : undefined} stroke-linecap="round" opacity=${inside ? 0.95 : 0.4}>
          <title>${`${tasks[i]} and ${tasks[j]}: ${f.signed(value, 3)} on average of both ways`}</title></path>`)}
      ${groups.flatMap((group) => group.map((i) => html`<${Node} key=${`node-${i}`} place=${places.get(i)} label=${at(places.get(i).angle, size.radius + AWAY)} name=${names[i]} whole=${tasks[i]} index=${i} upright=${upright(tasks.length)} />`))}
    </svg></div>
    <ul class="legend" aria-label="What the lines mean">
      <li><svg viewBox="0 0 24 10" aria-hidden="true"><line x1="1" y1="5" x2="23" y2="5" stroke="var(--helps)" stroke-width="4" /></svg>they help each other</li>
      <li><svg viewBox="0 0 24 10" aria-hidden="true"><line x1="1" y1="5" x2="23" y2="5" stroke="var(--hurts)" stroke-width="3" stroke-dasharray="6 4" /></svg>they hurt each other</li>
      <li class="muted">the thicker, the stronger; faint across groups</li>
    </ul>`;
}

const thickness = (share) => 0.75 + 7 * share;

function Node({ place, label, name, whole, index, upright: bound }) {
  const side = Math.cos(place.angle);
  const anchor = side > bound ? "start" : side < -bound ? "end" : "middle";
  const lift = anchor === "middle" ? (Math.sin(place.angle) < 0 ? -2 : 12) : 4;
  return html`
    <circle class="node" cx=${place.x} cy=${place.y} r="9" fill=${`var(${taskToken(index)})`} />
    <text x=${label.x} y=${label.y + lift} text-anchor=${anchor}>${name}<title>${whole}</title></text>`;
}

const MANY = 12; // tasks; beyond, names at the top and the bottom stand side by side, and a phone has no room for names

/** Names nearer to the top or the bottom than this (a cosine) stand centred there. */
const upright = (count) => (count > MANY ? 0.02 : 0.25);

/** Names that leave room for the circle; the numbers that the matrix gives them where there is none. */
function namesOf(tasks, width) {
  if (tasks.length > MANY && width < PHONE) return tasks.map((_, i) => String(i + 1));
  const room = Math.max(LEAST_NAME, width / 2 - LEAST_RADIUS - AWAY);
  return tasks.map((name) => cut(name, room));
}

/** As much of a name as has room. */
function cut(name, room) {
  if (widthOf(name) <= room) return name;
  let long = name.length - 1;
  while (long > 1 && widthOf(`${name.slice(0, long)}…`) > room) long -= 1;
  return `${name.slice(0, long)}…`;
}

const pen = document.createElement("canvas").getContext("2d");

/** How wide a name is drawn, in px: letters differ by a factor of four. */
function widthOf(name) {
  pen.font = `600 13px ${getComputedStyle(document.body).fontFamily}`; // as the style sheet has it
  return pen.measureText(name).width;
}

/** The largest circle beside which every name has room. */
function sizeOf(groups, names, width) {
  let radius = MOST.radius;
  for (const [i, angle] of anglesOf(groups)) {
    const side = Math.abs(Math.cos(angle));
    if (side > upright(names.length)) radius = Math.min(radius, (width / 2 - widthOf(names[i])) / side - AWAY);
  }
  radius = Math.max(LEAST_RADIUS, radius);
  return { width, radius, height: 2 * (radius + AWAY + 24) };
}

/** At which angle each task stands: evenly, with a gap between groups. */
function anglesOf(groups) {
  const gap = groups.length > 1 ? GAP : 0;
  const steps = groups.reduce((sum, group) => sum + group.length + gap, 0);
  const found = new Map();
  let step = 0;
  for (const group of groups) {
    for (const i of group) {
      found.set(i, -Math.PI / 2 + (2 * Math.PI * (step + 0.5)) / steps);
      step += 1;
    }
    step += gap;
  }
  return found;
}

/** The band around the tasks of a group: an arc with round ends. */
function band(angles, radius, at) {
  const half = 18;
  const [from, to] = [angles[0] - 0.08, angles.at(-1) + 0.08];
  const [outer, inner] = [radius + half, radius - half];
  const [a, b, c, d] = [at(from, outer), at(to, outer), at(to, inner), at(from, inner)];
  const long = to - from > Math.PI ? 1 : 0;
  return `M${a.x} ${a.y}A${outer} ${outer} 0 ${long} 1 ${b.x} ${b.y}A${half} ${half} 0 0 1 ${c.x} ${c.y}A${inner} ${inner} 0 ${long} 0 ${d.x} ${d.y}A${half} ${half} 0 0 1 ${a.x} ${a.y}Z`;
}

function chord(from, to, { width, height }) {
  const pull = 0.35; // of the way to the middle: chords between neighbours stay apart from the arcs
  const middle = { x: (from.x + to.x) / 2, y: (from.y + to.y) / 2 };
  return `M${from.x} ${from.y}Q${middle.x + (width / 2 - middle.x) * pull} ${middle.y + (height / 2 - middle.y) * pull} ${to.x} ${to.y}`;
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
