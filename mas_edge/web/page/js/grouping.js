// The split's objective and what it says of one task: the same sums as mas_edge.mas.split, so that the picture can tell
// why a task stands where it stands. Pure functions; S[i][j]: what a step on task i does for task j.

/** The score of task j beside the members of a group: the mean help of the others, alone its self-affinity. */
export function score(S, j, members) {
  const others = members.filter((i) => i !== j);
  if (others.length === 0) return selfAffinity(S, j);
  return others.reduce((sum, i) => sum + S[i][j], 0) / others.length;
}

/** The mean of what j gives and gets, over all partners: what a task alone is scored by. */
export function selfAffinity(S, j) {
  const n = S.length;
  if (n < 2) return 0;
  let sum = 0;
  for (let i = 0; i < n; i += 1) if (i !== j) sum += S[i][j] + S[j][i];
  return sum / (2 * (n - 1));
}

/** The value of a split into groups of task positions: the mean score of a task. */
export function valueOf(S, groups) {
  const total = groups.reduce((sum, group) => sum + group.reduce((part, j) => part + score(S, j, group), 0), 0);
  return total / S.length;
}

/** What the split would be worth if task j stood in each other group: [{group, value}], the best first. */
export function moves(S, groups, j) {
  const home = groups.findIndex((group) => group.includes(j));
  const found = [];
  for (let to = 0; to < groups.length; to += 1) {
    if (to === home || groups[home].length === 1) continue;
    const moved = groups.map((group, at) => {
      if (at === home) return group.filter((i) => i !== j);
      return at === to ? [...group, j] : group;
    });
    found.push({ group: to, value: valueOf(S, moved) });
  }
  return found.sort((a, b) => b.value - a.value);
}

/** The partners of j with what each does for it, the strongest help first. */
export function partners(S, j, members) {
  return members.filter((i) => i !== j).map((i) => ({ task: i, help: S[i][j], back: S[j][i] })).sort((a, b) => b.help - a.help);
}

/** The order of tasks in which those of a group stand together, and where each group ends. */
export function ordered(tasks, groups) {
  const order = groups.flatMap((group) => group.map((name) => tasks.indexOf(name))).filter((i) => i >= 0);
  const unique = [...new Set(order)];
  for (let i = 0; i < tasks.length; i += 1) if (!unique.includes(i)) unique.push(i);
  return unique;
}

/** The largest size of an off-diagonal entry: the end of the colour scale. The diagonal is of another kind. */
export function offDiagonalLimit(matrices) {
  let limit = 0;
  for (const matrix of matrices) {
    matrix.forEach((row, i) => row.forEach((x, j) => {
      if (i !== j && Number.isFinite(x)) limit = Math.max(limit, Math.abs(x));
    }));
  }
  return limit;
}
