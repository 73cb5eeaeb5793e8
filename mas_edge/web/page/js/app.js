// The frame around the views: navigation, the live connection, the theme, the token, and which view is shown.
import { get, hasToken, setToken } from "./api.js";
import * as f from "./format.js";
import { Icon } from "./icons.js";
import { follow, reconnect } from "./live.js";
import { useTicking } from "./parts.js";
import { readFirst, set, touch, useNeeds, useStore } from "./store.js";
import { html, render, useEffect, useRef, useState } from "./view.js";
import { Affinity } from "./views/affinity.js";
import { Costs } from "./views/costs.js";
import { Events } from "./views/events.js";
import { Device, Fleet } from "./views/fleet.js";
import { Overview } from "./views/overview.js";
import { RolloutView } from "./views/rollout.js";
import { Round } from "./views/round.js";

const WAYS = [
  ["", "Overview", "overview", Overview], ["fleet", "Fleet", "fleet", Fleet], ["affinity", "Affinity", "affinity", Affinity],
  ["costs", "Costs", "costs", Costs], ["rollout", "Rollout", "rollout", RolloutView], ["events", "Events", "events", Events],
];

function App() {
  const { denied } = useStore("denied");
  const [way, setWay] = useState(wayOf(location.hash));
  const main = useRef(null);
  useEffect(() => {
    const turn = () => {
      setWay(wayOf(location.hash));
      scrollTo(0, 0);
      // The heading takes the focus, so that a screen reader says where one has come to.
      requestAnimationFrame(() => main.current?.querySelector("h1")?.focus({ preventScroll: true }));
    };
    addEventListener("hashchange", turn);
    return () => removeEventListener("hashchange", turn);
  }, []);
  const { name, argument } = way;
  const [, title, , View] = WAYS.find(([key]) => key === name) ?? WAYS[0];
  return html`
    <a class="skip" href=${location.hash || "#/"} onClick=${(event) => { event.preventDefault(); main.current.querySelector("h1")?.focus(); }}>Skip to the content</a>
    <div class="frame">
      <${Top} title=${title} />
      <nav class="ways" aria-label="Views"><ul>${WAYS.map(([key, label, icon]) => html`
        <li key=${key}><a href=${`#/${key}`} aria-current=${key === name || (key === "" && name === "rounds") ? "page" : undefined}><${Icon} name=${icon} />${label}</a></li>`)}</ul></nav>
      <main ref=${main}>${denied ? html`<${AskToken} />`
        : name === "rounds" && argument ? html`<${Round} key=${argument} id=${argument} />`
        : name === "fleet" && argument ? html`<${Device} key=${argument} name=${argument} />`
        : html`<${View} key=${name} />`}</main>
    </div>`;
}

function wayOf(hash) {
  const [name = "", ...rest] = hash.replace(/^#\/?/, "").split("/");
  let argument = rest.join("/");
  try {
    argument = decodeURIComponent(argument);
  } catch {
    // A address with a broken escape: it names nothing that there is.
  }
  return { name, argument };
}

function Top({ title }) {
  useNeeds("run");
  const { data } = useStore("data");
  const job = data.run?.name;
  useEffect(() => { document.title = [title, job, "mas-edge"].filter(Boolean).join(" · "); }, [title, job]);
  return html`
    <header class="top">
      <a class="brand" href="#/" aria-label="mas-edge, overview"><${Icon} name="brand" /><span>mas-edge</span></a>
      <span class="of">${job}</span>
      <${Pulse} />
      <${Theme} />
    </header>`;
}

/** How fresh what is shown is. */
function Pulse() {
  const { live } = useStore("live");
  const since = useTicking(() => f.ago(live.last ? (Date.now() - live.last) / 1000 : Infinity));
  if (live.state === "live") return html`<span class="pulse live" title="What is shown follows the run as it happens">Live</span>`;
  if (live.state === "connecting") return html`<span class="pulse">Connecting …</span>`;
  return html`
    <span class="pulse lost" title="The page tries again by itself"><span role="status">${live.last ? "Offline" : "No connection"}</span>${live.last ? html`<span> · last update ${since}</span>` : ""}</span>`;
}

const NEXT = { auto: "light", light: "dark", dark: "auto" };
const THEMES = { auto: ["auto", "Colours follow the system"], light: ["sun", "Light colours"], dark: ["moon", "Dark colours"] };

function Theme() {
  const [theme, setTheme] = useState(document.documentElement.dataset.theme ?? "auto");
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const turn = () => set({ theme: Math.random() }); // what is drawn on a canvas is drawn anew
    system.addEventListener("change", turn);
    return () => system.removeEventListener("change", turn);
  }, []);
  const turn = () => {
    const next = NEXT[theme];
    if (next === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("mas-edge-theme", next);
    } catch {
      // Storage is forbidden: the choice lasts as long as the page.
    }
    setTheme(next);
    set({ theme: Math.random() });
  };
  const [icon, label] = THEMES[theme];
  return html`<button type="button" class="button plain icon" onClick=${turn} aria-label=${`${label}; change`} title=${label}><${Icon} name=${icon} /></button>`;
}

function AskToken() {
  const field = useRef(null);
  const [keep, setKeep] = useState(false);
  const [told, setTold] = useState(hasToken() ? "The token of this browser is not accepted any more." : "");
  useEffect(() => field.current.focus(), []);
  const submit = async (event) => {
    event.preventDefault();
    setToken(field.current.value, keep);
    try {
      const run = await get("/api/run");
      set({ denied: false, data: { run } });
      touch();
      reconnect();
      requestAnimationFrame(() => document.querySelector("main h1")?.focus({ preventScroll: true })); // the field is gone
    } catch (problem) {
      setToken("");
      setTold(problem.message);
    }
  };
  return html`
    <section class="card" aria-labelledby="token-title" style=${{ maxWidth: "30rem" }}>
      <header><h1 id="token-title" tabindex="-1">A token is needed</h1></header>
      <form class="body" onSubmit=${submit}>
        <p class="muted">Whoever runs the server makes one: <code>mas-edge token RUN new NAME</code>. It is kept in this browser only.</p>
        <label class="field">Token<input ref=${field} type="password" autocomplete="off" spellcheck=${false} required aria-describedby="token-wrong" /></label>
        <label class="check"><input type="checkbox" checked=${keep} onChange=${(event) => setKeep(event.target.checked)} />Remember it when this tab is closed</label>
        <p id="token-wrong" role="alert" class="small level-error">${told}</p>
        <div class="row"><button type="submit" class="button main">Open</button></div>
      </form>
    </section>`;
}

// Drawn once, with what begin.js has asked for, if that is there soon: an empty view first would only take its time.
const SOON_MS = 300; // later, people are to see that something happens
const first = [...globalThis.begun.keys()].map((path) => /^\/api\/(\w+)/.exec(path)[1]);
Promise.race([readFirst(first), new Promise((done) => setTimeout(done, SOON_MS))]).then(() => {
  render(html`<${App} />`, document.getElementById("app"));
  follow();
});
