// Lines over rounds, by uPlot: many points at the price of one canvas. The same numbers stand in a table below it.
import { css, taskDash, taskToken, token } from "./colour.js";
import * as f from "./format.js";
import { html, useEffect, useMemo, useRef, useState } from "./view.js";

/** Lines. `series`: [{name, index, points: [[x, y], ...]}]; `mark`: {x, label}, a line across; `theme` redraws. */
export function Lines({ series, label, unit, mark, theme, height = 260 }) {
  const place = useRef(null);
  const chart = useRef(null);
  const [hidden, setHidden] = useState(new Set());
  const [open, setOpen] = useState(false);
  const data = useMemo(() => aligned(series), [series]);
  const names = series.map((each) => each.name).join("\n");

  useEffect(() => {
    const made = new uPlot(options(place.current, series, mark, height), data, place.current);
    chart.current = made;
    series.forEach((each, i) => made.setSeries(i + 1, { show: !hidden.has(each.name) }));
    const watcher = new ResizeObserver(([entry]) => made.setSize({ width: Math.floor(entry.contentRect.width), height }));
    watcher.observe(place.current);
    return () => {
      watcher.disconnect();
      made.destroy();
    };
  }, [names, theme, mark?.x, height]);
  useEffect(() => chart.current.setData(data), [data]);

  const toggle = (name, at) => {
    const next = new Set(hidden);
    if (!next.delete(name)) next.add(name);
    setHidden(next);
    chart.current.setSeries(at + 1, { show: !next.has(name) });
  };
  return html`
    <figure class="chart">
      <div ref=${place} role="img" aria-label=${`${label}. ${summary(series)}`}></div>
    </figure>
    <ul class="legend" aria-label="Lines">
      ${series.map((each, at) => html`
        <li key=${each.name}>
          <button type="button" aria-pressed=${String(!hidden.has(each.name))} onClick=${() => toggle(each.name, at)}>
            <svg viewBox="0 0 32 10" aria-hidden="true"><line x1="0" y1="5" x2="32" y2="5" stroke-width="3"
              stroke=${`var(${taskToken(each.index)})`} stroke-dasharray=${taskDash(each.index).join(" ")} /></svg>
            ${each.name} <span class="muted number">${f.number(each.points.at(-1)?.[1])}</span>
          </button>
        </li>`)}
    </ul>
    <details onToggle=${(event) => setOpen(event.currentTarget.open)}><summary>${label} as a table</summary>
      ${open && html`<div class="scroll" tabindex="0" role="region" aria-label=${`${label}, table`}><${NumbersTable} data=${data} series=${series} unit=${unit} /></div>`}
    </details>`;
}

const SHOWN_ROWS = 100; // of the table: the newest

function NumbersTable({ data, series, unit }) {
  const rows = data[0].map((x, i) => i).slice(-SHOWN_ROWS).reverse();
  return html`
    <table>
      <thead><tr><th scope="col">Round</th>${series.map((each) => html`<th scope="col" class="number">${each.name}${unit ? ` (${unit})` : ""}</th>`)}</tr></thead>
      <tbody>${rows.map((i) => html`
        <tr key=${data[0][i]}><th scope="row">${data[0][i]}</th>${series.map((_, s) => html`<td class="number">${f.number(data[s + 1][i] ?? null)}</td>`)}</tr>`)}
      </tbody>
    </table>`;
}

/** The columns that uPlot draws: every x once, null where a line has no value. */
export function aligned(series) {
  const xs = [...new Set(series.flatMap((each) => each.points.map(([x]) => x)))].sort((a, b) => a - b);
  return [xs, ...series.map((each) => {
    const found = new Map(each.points);
    return xs.map((x) => found.get(x) ?? null);
  })];
}

const summary = (series) => series.filter((each) => each.points.length).map((each) => {
  const [first, last] = [each.points[0], each.points.at(-1)];
  return `${each.name}: ${f.number(first[1])} in round ${first[0]}, ${f.number(last[1])} in round ${last[0]}`;
}).join("; ");

function options(place, series, mark, height) {
  const [text, edge, muted] = ["--text", "--edge", "--muted"].map((name) => css(token(name)));
  const font = `12px ${getComputedStyle(place).fontFamily}`;
  const axis = { stroke: muted, font, grid: { stroke: edge, width: 1 }, ticks: { stroke: edge, width: 1, size: 4 } };
  const few = (u, splits) => splits.map((x) => (Number.isInteger(x) ? f.count(x) : ""));
  return {
    width: Math.max(200, Math.floor(place.getBoundingClientRect().width)), height,
    legend: { show: false }, padding: [12, 12, 0, 0],
    cursor: { y: false, points: { size: 8 }, drag: { x: true, y: false } },
    scales: { x: { time: false, range: (u, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) } },
    axes: [
      { ...axis, values: few, space: 60, incrs: [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000], size: 28, label: "round", labelFont: font, labelSize: 18, labelGap: 0 },
      { ...axis, values: (u, splits) => splits.map((y) => f.number(y)), size: 52 },
    ],
    series: [{}, ...series.map((each) => ({
      label: each.name, stroke: css(token(taskToken(each.index))), width: 2, dash: taskDash(each.index), spanGaps: true,
      points: { show: each.points.length < 40, size: 6 },
    }))],
    hooks: { setCursor: [tip(place, series)], draw: [(u) => drawMark(u, mark, text, font)] },
  };
}

function drawMark(u, mark, colour, font) {
  if (!mark || mark.x < u.scales.x.min || mark.x > u.scales.x.max) return;
  const { ctx, bbox } = u;
  const x = Math.round(u.valToPos(mark.x, "x", true));
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = colour;
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  ctx.beginPath();
  ctx.moveTo(x, bbox.top);
  ctx.lineTo(x, bbox.top + bbox.height);
  ctx.stroke();
  ctx.font = font.replace("12px", `${12 * devicePixelRatio}px`);
  const left = x + 90 * devicePixelRatio > bbox.left + bbox.width;
  ctx.textAlign = left ? "right" : "left";
  ctx.textBaseline = "top";
  ctx.fillText(mark.label, x + (left ? -6 : 6) * devicePixelRatio, bbox.top + 2);
  ctx.restore();
}

function tip(place, series) {
  const box = document.createElement("div");
  box.className = "tip";
  box.hidden = true;
  place.append(box);
  return (u) => {
    const at = u.cursor.idx;
    box.hidden = at === null || at === undefined || u.cursor.left < 0;
    if (box.hidden) return;
    const lines = series.flatMap((each, s) => (u.series[s + 1].show && u.data[s + 1][at] !== null ? [`${each.name}: ${f.number(u.data[s + 1][at])}`] : []));
    box.replaceChildren(...[`Round ${u.data[0][at]}`, ...lines].map((text, i) => {
      const line = document.createElement(i ? "span" : "strong");
      line.textContent = text;
      return line;
    }));
    if (!box.isConnected) place.append(box);
    const x = u.cursor.left + u.over.offsetLeft;
    const flip = x + box.offsetWidth + 24 > place.clientWidth;
    box.style.left = `${Math.max(0, flip ? x - box.offsetWidth - 12 : x + 12)}px`;
    box.style.top = "12px";
  };
}
