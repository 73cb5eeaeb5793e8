// What a search finds is for people who do something first: guides and boards before results and decisions, and the
// modules last. The numbers are those of Sphinx; 30 is more than what any kind of match differs by.
"use strict";
var Scorer = {
  score: ([page, , , , score]) => {
    if (/^docs\/(guides|devices)\//.test(page)) return score + 30;
    return page.includes("/reference/") ? score - 30 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
