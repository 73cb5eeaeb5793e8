// Runs before anything is drawn, so that a page that was made dark does not flash white.
(function () {
  try {
    const chosen = localStorage.getItem("mas-edge-theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // Storage is forbidden in this browser: the page follows the system.
  }
})();
