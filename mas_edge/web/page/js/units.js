// Affinities in numbers that can be read: how large they are depends on how they are measured, from 1 to a millionth.
import { offDiagonalLimit } from "./grouping.js";

const READABLE = 0.01; // from here on two decimals say something
const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/** What the API tells of affinity and split, in one unit for all of it, and what the unit is called; "" if it is 1. */
export function inUnits(affinity, split) {
  const matrices = [...affinity.rounds.map((round) => round.matrix), ...(affinity.average ? [affinity.average.matrix] : [])];
  const limit = offDiagonalLimit(matrices);
  if (!(limit > 0) || limit >= READABLE) return { affinity, split, unit: "" };
  const power = Math.floor(Math.log10(limit));
  const one = (x) => (Number.isFinite(x) ? x / 10 ** power : x);
  const all = (matrix) => matrix && matrix.map((row) => row.map(one));
  const unit = `10${String(power).replace(/./g, (digit) => SUPERSCRIPT[digit])}`;
  return {
    unit,
    affinity: {
      ...affinity,
      rounds: affinity.rounds.map((round) => ({ ...round, matrix: all(round.matrix) })),
      average: affinity.average && { ...affinity.average, matrix: all(affinity.average.matrix), spread: all(affinity.average.spread) },
    },
    split: split?.decided ? {
      ...split, affinity: all(split.affinity), value: one(split.value), bound: one(split.bound), within: one(split.within), across: one(split.across),
      alternatives: split.alternatives.map((row) => ({ ...row, value: one(row.value) })),
      candidates: split.candidates.map((row) => ({ ...row, value: one(row.value), gain: one(row.gain), noise: one(row.noise), cost: one(row.cost) })),
    } : split,
  };
}
