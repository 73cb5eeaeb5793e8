// Line icons of one weight, 24 x 24; decoration beside a word, so hidden from screen readers.
import { html } from "./view.js";

const PATHS = {
  brand: ["M4 6h4c3 0 3 6 6 6h6", "M4 12h16", "M4 18h4c3 0 3-6 6-6"],
  overview: ["M3 13h4l3-8 4 14 3-6h4"],
  fleet: ["M5 5h14v10H5z", "M9 19h6", "M12 15v4"],
  affinity: ["M4 4h7v7H4z", "M13 4h7v7h-7z", "M4 13h7v7H4z", "M13 13h7v7h-7z"],
  costs: ["M13 3 5 14h6l-1 7 8-11h-6z"],
  rollout: ["M12 20V6", "M6 11l6-6 6 6", "M5 20h14"],
  events: ["M5 6h14", "M5 12h14", "M5 18h9"],
  sun: ["M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8z", "M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.5 1.5M17.5 17.5 19 19M19 5l-1.5 1.5M6.5 17.5 5 19"],
  moon: ["M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z"],
  auto: ["M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z", "M12 3v18", "M12 7h7M12 12h9M12 17h7"],
  pause: ["M8 5v14", "M16 5v14"],
  resume: ["M7 5l12 7-12 7z"],
  stop: ["M6 6h12v12H6z"],
  back: ["M9 6 3 12l6 6", "M3 12h13a5 5 0 0 1 5 5v1"],
};

/** An icon by its name. */
export const Icon = ({ name }) => html`
  <svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">
    ${PATHS[name].map((d) => html`<path d=${d} />`)}
  </svg>`;
