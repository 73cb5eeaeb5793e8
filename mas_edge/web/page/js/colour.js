// Colours of the design system as numbers: the diverging scale of affinities, and the text that is read on it.

/** Resolve a token such as "--helps" to [r, g, b], 0 to 255, in the theme that is shown. */
export function token(name) {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.documentElement.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}

/** As CSS. */
export const css = ([r, g, b]) => `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;

/** The three anchors of the scale, resolved once for a theme. */
export const anchors = () => ({ hurts: token("--hurts"), nothing: token("--nothing"), helps: token("--helps") });

/** The background and text colour of a value on a scale from -limit to limit, symmetric around 0. */
export function diverging(value, limit, { hurts, nothing, helps }) {
  const share = limit > 0 ? Math.max(-1, Math.min(1, value / limit)) : 0;
  // The root opens up the middle, where most affinities are; the sign and the order of values are kept.
  const ground = mix(nothing, share < 0 ? hurts : helps, Math.sqrt(Math.abs(share)));
  const light = luminance(ground);
  const white = 1.05 / (light + 0.05);
  const black = (light + 0.05) / 0.05;
  return { background: css(ground), color: white > black ? "#fff" : "#000" };
}

/** The colour `share` of the way from one to the other, along OKLab (Ottosson 2020): even to the eye. */
export function mix(from, to, share) {
  const [a, b] = [toOklab(from), toOklab(to)];
  return fromOklab(a.map((x, i) => x + (b[i] - x) * share));
}

/** WCAG's relative luminance. */
export function luminance(rgb) {
  const [r, g, b] = rgb.map(linear);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

const linear = (x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4);
const gamma = (x) => 255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
const clamp = (x) => Math.max(0, Math.min(255, x));

function toOklab(rgb) {
  const [r, g, b] = rgb.map(linear);
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

function fromOklab([L, a, b]) {
  const l = (L + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (L - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (L - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((x) => clamp(gamma(x)));
}

/** The token of the n-th task's colour; there are eight, then they come again with other dashes. */
export const taskToken = (index) => `--task-${((index % 8) + 8) % 8}`;

// Seven, beside eight colours: the same pair comes again after 56 tasks.
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [18, 4], [5, 5], [10, 3, 2, 3, 2, 3]];

/** The dashes of the n-th task's line: colour is never the only difference. */
export const taskDash = (index) => DASHES[index % DASHES.length];
