// Runs before anything is drawn: the chosen colours, so that a page that was made dark does not flash white; and what the
// view will ask for first is asked for now, while the rest of the page is on its way. api.js takes these answers.
(function () {
  const stored = (name) => {
    try {
      return sessionStorage.getItem(name) ?? localStorage.getItem(name);
    } catch {
      return null; // storage is forbidden in this browser: the page follows the system, and asks for a token
    }
  };
  const theme = stored("mas-edge-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;

  const FIRST = {
    "": ["run", "rounds?limit=1000", "devices"], fleet: ["devices", "run"], affinity: ["affinity", "split", "run"],
    costs: ["energy", "traffic", "run"], rollout: ["rollouts", "run"], events: ["events?limit=1000", "run"], rounds: ["rounds?limit=1000", "run"],
  };
  const [view] = location.hash.replace(/^#\/?/, "").split("/");
  const token = stored("mas-edge-token");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const asked = (FIRST[view] ?? FIRST[""]).map((path) => {
    const answer = fetch(`/api/${path}`, { headers, cache: "no-cache", signal: AbortSignal.timeout(15000) });
    answer.catch(() => {}); // whoever takes it sees why it failed
    return [`/api/${path}`, answer];
  });
  globalThis.begun = new Map(asked);
})();
