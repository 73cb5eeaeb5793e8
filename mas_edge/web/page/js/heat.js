// The affinity matrix as a heat map that is a table: the numbers stand in it, and a keyboard walks through it.
import { diverging } from "./colour.js";
import * as f from "./format.js";
import { html, useRef, useState } from "./view.js";

const NUMBERS_UP_TO = 12; // tasks; beyond, a cell has no room for a number, and the line below tells it

/** `order`: positions in which tasks stand together; `together(i, j)`: whether two share a group; `limit`: the scale's. */
export function Heat({ tasks, matrix, devices, spread, order, together, limit, colours, caption, error: isError }) {
  const [at, setAt] = useState(null); // [row, column], places in `order`
  const table = useRef(null);
  const many = tasks.length > NUMBERS_UP_TO;
  const move = (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = (at ?? [0, 0]).map((x, k) => Math.max(0, Math.min(order.length - 1, x + step[k])));
    setAt([row, column]);
    table.current.querySelector(`[data-at="${row},${column}"]`).focus();
  };
  const told = at && sentence(order[at[0]], order[at[1]]);
  function sentence(i, j) {
    const value = matrix[i][j];
    const measured = devices ? devices[i][j] > 0 : value !== null;
    if (isError) return measured ? `The mean of what ${tasks[i]} does for ${tasks[j]} has a standard error of ${f.number(value)} over the rounds.` : `Fewer than two rounds measured what ${tasks[i]} does for ${tasks[j]}: no error is known.`;
    if (!measured) return `No device measured what ${tasks[i]} does for ${tasks[j]}.`;
    const by = devices ? `, mean of ${f.plural(devices[i][j], "measurement")}` : "";
    const error = spread?.[i][j] ?? null;
    const doubt = error === null ? "" : `, standard error ${f.number(error, 2)}`;
    if (i === j) return `A step on ${tasks[i]} for itself: ${f.signed(value, 3)}${by}${doubt}.`;
    const verb = value > 0 ? "helps" : value < 0 ? "hurts" : "does nothing for";
    return `A step on ${tasks[i]} ${verb} ${tasks[j]}: ${f.signed(value, 3)}${by}${doubt}.`;
  }
  const text = (value) => (isError ? value.toFixed(2) : f.signed(value));
  const inGroup = (row, column) => order[row] !== undefined && order[column] !== undefined && together(order[row], order[column]);
  const frame = (row, column) => (!inGroup(row, column) ? "" : [["up", row - 1, column], ["right", row, column + 1], ["down", row + 1, column], ["left", row, column - 1]]
    .filter(([, r, c]) => !inGroup(r, c)).map(([side]) => side).join(" "));
  return html`
    <div class="scroll" role="region" aria-label="Affinity matrix" tabindex="-1">
      <table class=${`heat ${many ? "many" : ""}`} ref=${table} onKeyDown=${move}>
        <caption class="unseen">${caption}. Row: the task whose step it is; column: the task that it helps or hurts. Arrow keys walk from cell to cell.</caption>
        <thead><tr><td class="corner">${many ? "" : html`step on ↓ for →`}</td>
          ${order.map((j) => html`<th scope="col" key=${j} title=${tasks[j]}>${many ? j + 1 : tasks[j]}</th>`)}</tr></thead>
        <tbody>${order.map((i, row) => html`
          <tr key=${i}><th scope="row" title=${tasks[i]}>${many ? `${i + 1} ${tasks[i]}` : tasks[i]}</th>
            ${order.map((j, column) => {
              const value = matrix[i][j];
              const measured = value !== null && (!devices || devices[i][j] > 0);
              const own = i === j;
              const kind = `${measured ? "" : "none"} ${own ? "self" : ""} ${frame(row, column)}`;
              return html`
                <td key=${j} class=${kind} data-at=${`${row},${column}`} tabindex=${(at ? at[0] === row && at[1] === column : row + column === 0) ? 0 : -1}
                  style=${measured ? diverging(own ? 0 : value, limit, colours) : undefined} title=${sentence(i, j)}
                  onFocus=${() => setAt([row, column])} onClick=${(event) => event.currentTarget.focus()}
                  onMouseEnter=${() => setAt([row, column])}>
                  ${many ? html`<span class="unseen">${measured ? text(value) : "not measured"}</span>` : measured ? text(value) : "–"}
                </td>`;
            })}</tr>`)}
        </tbody>
      </table>
    </div>
    <p class="small" role="status" aria-live="polite">${told ?? html`<span class="muted">Point at a cell, or walk there with the arrow keys, to read it in words.</span>`}</p>`;
}

/** What the colours mean. */
export const Scale = ({ limit }) => html`
  <div class="scale" aria-hidden="true"><span>hurts ${f.signed(-limit)}</span><span></span><span>${f.signed(limit)} helps</span></div>`;
