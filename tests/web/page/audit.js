// What can be checked of a view by rule, in the browser that draws it (WCAG 2.2 AA): the contrast of every text that can
// be seen with what lies under it, and a name for whatever is operated. Returns {seen, poor, nameless}.
() => {
  const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
  const parse = (colour) => {
    const [a, b, c, alpha = 1] = numbers(colour);
    return colour.startsWith("color(") ? [255 * a, 255 * b, 255 * c, alpha] : [a, b, c, alpha];
  };
  const linear = (x) => (x / 255 <= 0.04045 ? x / 255 / 12.92 : ((x / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

  function under(node) {
    const layers = [];
    for (let at = node; at; at = at.parentElement) {
      const ground = parse(getComputedStyle(at).backgroundColor);
      if (ground[3] > 0) layers.push(ground);
      if (ground[3] === 1) break;
    }
    return layers.reverse().reduce((a, b) => [0, 1, 2].map((i) => a[i] + (b[i] - a[i]) * b[3]).concat(1));
  }

  function texts() {
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      const text = walker.currentNode.textContent.trim();
      const node = walker.currentNode.parentElement;
      if (!text || node.closest(".unseen, .skip, :disabled, option, title, noscript")) continue;
      if (node.checkVisibility() && node.getBoundingClientRect().width > 0) found.push([text, node]);
    }
    return found;
  }

  function contrast(node) {
    const style = getComputedStyle(node);
    const [a, b] = [light(parse(node.closest("svg") ? style.fill : style.color)), light(under(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }

  function least(node) {
    const { fontSize, fontWeight } = getComputedStyle(node);
    const size = parseFloat(fontSize);
    return size >= 24 || (size >= 18.66 && fontWeight >= 700) ? 3 : 4.5;
  }

  const seen = texts();
  const poor = seen.filter(([, node]) => contrast(node) < least(node))
    .map(([text, node]) => `${text.slice(0, 40)}: ${contrast(node).toFixed(2)}`);

  const operated = "button, a[href], input, select, [role=img], [role=region], table.heat td[tabindex]";
  const name = (e) => e.getAttribute("aria-label") || e.labels?.length || e.textContent || e.title;
  const nameless = [...document.querySelectorAll(operated)].filter((e) => !String(name(e) ?? "").trim())
    .map((e) => e.outerHTML.slice(0, 80));
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  nameless.push(...ids.filter((id, i) => ids.indexOf(id) !== i).map((id) => `id ${id} twice`));
  for (const attribute of ["aria-labelledby", "aria-describedby"]) {
    for (const e of document.querySelectorAll(`[${attribute}]`)) {
      const missing = e.getAttribute(attribute).split(/\s+/).filter((id) => !document.getElementById(id));
      nameless.push(...missing.map((id) => `no ${id}`));
    }
  }
  const heads = [...document.querySelectorAll("h1, h2, h3")].map((e) => Number(e.tagName[1]));
  if (heads.filter((n) => n === 1).length !== 1) nameless.push(`headings ${heads}`);
  heads.forEach((n, i) => {
    if (i && n > heads[i - 1] + 1) nameless.push(`heading ${n} after ${heads[i - 1]}`);
  });
  return { seen: seen.length, poor, nameless };
}
