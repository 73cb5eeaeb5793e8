// The one place that knows how the page is drawn: Preact, htm and its hooks (vendor/), as ES exports.
// Text given to html`` becomes text nodes, never markup: names and messages of devices need no escaping.
export const { render, Fragment } = globalThis.preact;
export const { useEffect, useLayoutEffect, useMemo, useRef, useState } = globalThis.preactHooks;
export const html = globalThis.htm.bind(globalThis.preact.h);
