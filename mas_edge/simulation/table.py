"""A comparison as Markdown for people, CSV for other programs, and JSON with everything."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from statistics import fmean

import msgspec

from mas_edge.simulation.compare import Comparison
from mas_edge.simulation.numerals import CHANGE, GIGA, LOSS, MEGA, NONE, PLAIN, RATIO, SHARE, Form, shown, spread_shown
from mas_edge.simulation.pairs import Row, Summary
from mas_edge.simulation.ranks import Ranking, SplitRank

LARGER_IS_BETTER = ("accuracy",)
SMALLER_IS_BETTER = ("mean_absolute_error", "root_mean_square_error", "angle_degrees")
Cells = tuple[str, ...]


def to_json(comparison: Comparison) -> str:
    """Return everything, indented."""
    return msgspec.json.format(msgspec.json.encode(comparison), indent=2).decode() + "\n"


def to_csv(comparison: Comparison) -> str:
    """Return a row for each method and seed; shares, not percents, seconds, bytes and joules."""
    ranks = {(rank.method, rank.seed): rank for rank in comparison.ranks}
    lines = [_csv_row(row, ranks.get((row.method, row.seed))) for row in comparison.rows]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(lines[0]) if lines else ["method", "seed"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _csv_row(row: Row, rank: SplitRank | None) -> dict[str, object]:
    flat = {name: getattr(row, name) for name in row.__struct_fields__ if name not in ("tasks", "groups")}
    flat["split"] = split_text(row.groups)
    for name, task in row.tasks.items():
        flat.update({f"{name}.{key}": value for key, value in msgspec.structs.asdict(task).items()})
    for kind in ("normalised", "raw"):
        place = getattr(rank, kind, None)
        for key in ("rank", "of", "margin_to_mean", "margin_to_worst"):
            flat[f"split.{kind}.{key}"] = getattr(place, key, None)
    return flat


def split_text(groups: Sequence[Sequence[str]]) -> str:
    """``a, b + c``: the groups of a split in one line."""
    return " + ".join(", ".join(group) for group in groups)


def to_markdown(comparison: Comparison, pictures: Mapping[str, str] | None = None) -> str:
    """Return the tables, with what each number is; ``pictures``: titles by file name, shown at the end."""
    parts = [
        f"# {comparison.job.name}: {len(comparison.methods)} methods, {_counted(len(comparison.seeds), 'seed')}",
        _missing(comparison),
        "## Summary", _summary(comparison), _notes(comparison),
        "## Seed by seed", _seeds(comparison),
        "## Tasks", *_tasks(comparison),
        "## Splits", _splits(comparison), *_rankings(comparison),
        *(f"## {title}\n\n![{title}]({name})" for name, title in (pictures or {}).items()),
        "## How it was made", _origin(comparison),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _missing(comparison: Comparison) -> str:
    if not comparison.missing:
        return ""
    lines = [f"- {name}: {reason}" for name, reason in comparison.missing.items()]
    return f"**Not complete: {_counted(len(lines), 'run')} missing.**\n\n" + "\n".join(lines)


def _summary(comparison: Comparison) -> str:
    head = [
        "method", "normalised total", "raw total", "mean change per task", "device s", "affinity", "G MAC",
        "MB down", "MB up", "energy J", "wall s",
    ]  # fmt: skip
    columns: list[tuple[str, str, Form]] = [
        ("normalised_total", "normalised_change", LOSS), ("raw_total", "raw_change", LOSS), ("mean_change", "", CHANGE),
        ("device_seconds", "device_seconds_ratio", PLAIN), ("affinity_share", "", SHARE),
        ("multiply_accumulates", "multiply_accumulates_ratio", GIGA), ("bytes_down", "", MEGA), ("bytes_up", "", MEGA),
        ("energy_joules", "energy_ratio", PLAIN), ("wall_seconds", "", PLAIN),
    ]  # fmt: skip
    unranked = ("affinity_share",)  # a share is neither good nor bad by itself
    best = {name: _best(comparison.summaries, name) for name, _, _ in columns if name not in unranked}
    rows = []
    for summary in comparison.summaries:
        cells = [_called(summary)]
        for name, against, form in columns:
            text = spread_shown(summary.numbers.get(name), form)
            other = summary.numbers.get(against)
            if other and summary.method != comparison.reference:
                change = against.endswith("change")
                text += f" ({shown(other.mean, CHANGE)})" if change else f" (×{shown(other.mean, RATIO)})"
            cells.append(_bold(text, summary.method in best.get(name, ())))
        rows.append(cells)
    return table(head, rows)


def _called(summary: Summary) -> str:
    """The method; with how many seeds, if some are missing."""
    there = len(summary.seeds)
    return f"{summary.method} ({there} of {there + len(summary.missing)} seeds)" if summary.missing else summary.method


def _best(summaries: Sequence[Summary], name: str, task: str = "", larger: bool = False) -> list[str]:
    """The methods with the best mean, of those that have all seeds: a mean over others is no match."""
    whole = [summary for summary in summaries if not summary.missing]
    numbers = {each.method: (each.tasks[task] if task else each.numbers).get(name) for each in whole}
    means = {method: number.mean for method, number in numbers.items() if number}
    if len(means) < 2:
        return []
    best = max(means.values()) if larger else min(means.values())
    return [method for method, mean in means.items() if mean == best]


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold and text != NONE else text


def _notes(comparison: Comparison) -> str:
    reference = comparison.reference
    sources = "; ".join(dict.fromkeys(row.energy_source for row in comparison.rows))
    spread = "Mean ± standard deviation over the seeds. " if len(comparison.seeds) > 1 else "One seed: no spread. "
    notes = [
        f"{spread}In brackets: against {reference}, each seed against the same seed of {reference}, then the mean. "
        "Bold: the best mean of a column among the methods with all seeds.",
        "*Normalised total*: mean over tasks of the test loss divided by that of the best constant predictor; 1 has "
        "learned nothing. *Raw total*: sum of the test losses in the targets' own units. *Mean change per task*: mean "
        f"over tasks of the change of the test loss against {reference}; below 0 is better.",
        "*Device s*: CPU seconds of training and of measuring affinity, summed over the devices of all rounds, "
        "evaluations left out; *affinity*: its seconds as a share of those of training.",
        "*G MAC*: 10⁹ multiply-accumulates of the same work, counted from the programs' graphs. *MB*: 10⁶ bytes that a "
        "broker would have carried to and from the devices in training. "
        "*Wall s*: of the simulation, with its evaluations.",
        f"*Energy*: {sources}.",
    ]
    if comparison.device != "cpu":
        notes.append(
            f"Computed with --device {comparison.device}: device seconds are wall seconds of that processor and "
            "tell nothing of a device in the field. Compare the multiply-accumulates."
        )
    return "\n".join(f"- {note}" for note in notes)


def _seeds(comparison: Comparison) -> str:
    """The three changes of every run: whether a difference has the same sign in all seeds."""
    by_key = {(row.method, row.seed): row for row in comparison.rows}
    rows = []
    for method in comparison.methods:
        cells = [method]
        for seed in comparison.seeds:
            row = by_key.get((method, seed))
            cells.append(NONE if row is None else f"{shown(row.normalised_total, LOSS)} / {shown(row.raw_total, LOSS)}")
            if method != comparison.reference and row and row.mean_change is not None:
                changes = (row.normalised_change, row.raw_change, row.mean_change)
                cells[-1] += f" ({' / '.join(shown(change, CHANGE) for change in changes)})"
        rows.append(cells)
    legend = "Normalised / raw total; in brackets the change of both and the mean change per task, against "
    head = ["method", *(f"seed {seed}" for seed in comparison.seeds)]
    return f"{legend}{comparison.reference}.\n\n{table(head, rows)}"


def _tasks(comparison: Comparison) -> list[str]:
    jobs = {task.name: task for task in comparison.job.tasks}
    metrics = [f"{name}: {task.metric_name.replace('_', ' ')}" for name, task in jobs.items()]
    return [
        f"Test loss as a share of the best constant predictor's (change against {comparison.reference}):",
        _task_table(comparison, "normalised", with_change=True),
        "Test loss in the targets' own units (the sum is the raw total):", _task_table(comparison, "raw"),
        f"Metric ({'; '.join(metrics)}):", _task_table(comparison, "metric"),
    ]  # fmt: skip


def _task_table(comparison: Comparison, name: str, with_change: bool = False) -> str:
    metrics = {task.name: task.metric_name for task in comparison.job.tasks}
    tasks = [task for task in metrics if any(task in summary.tasks for summary in comparison.summaries)]
    best = {}
    for task in tasks:
        known = name != "metric" or metrics[task] in LARGER_IS_BETTER + SMALLER_IS_BETTER
        larger = name == "metric" and metrics[task] in LARGER_IS_BETTER
        best[task] = _best(comparison.summaries, name, task, larger) if known else []
    rows = []
    for summary in comparison.summaries:
        cells = [_called(summary)]
        for task in tasks:
            text = spread_shown(summary.tasks[task].get(name), LOSS)
            change = summary.tasks[task].get("change")
            if with_change and change and summary.method != comparison.reference:
                text += f" ({shown(change.mean, CHANGE)})"
            cells.append(_bold(text, summary.method in best[task]))
        rows.append(cells)
    return table(["method", *tasks], rows)


def _splits(comparison: Comparison) -> str:
    """A line a run; seeds with the same groups share one, unless their splits are ranked."""
    ranks = {(rank.method, rank.seed): rank for rank in comparison.ranks}
    lines: dict[tuple[str, str, Cells], list[int]] = {}
    for row in comparison.rows:
        cells = _rank_cells(ranks.get((row.method, row.seed))) if ranks else ()
        lines.setdefault((row.method, split_text(row.groups), cells), []).append(row.seed)
    rows = [[method, ", ".join(map(str, seeds)), split, *cells] for (method, split, cells), seeds in lines.items()]
    head = ["method", "seed", "groups"]
    if ranks:
        head += ["rank, normalised", "rank, raw", "normalised total against mean / worst split"]
    return table(head, rows, left=3)


def _rank_cells(rank: SplitRank | None) -> Cells:
    if rank is None:
        return (NONE, NONE, NONE)
    own = rank.normalised
    return (
        f"{own.rank} of {own.of}", f"{rank.raw.rank} of {rank.raw.of}",
        f"{shown(-own.margin_to_mean, CHANGE)} / {shown(-own.margin_to_worst, CHANGE)}",
    )  # fmt: skip


def _rankings(comparison: Comparison) -> list[str]:
    if not comparison.rankings:
        return []
    note = (
        "All splits of that size, each group trained on from the same merged weights and seed, all groups in one run: "
        "its devices are drawn anew, so a split's total differs a little from that of the method's own run. "
        "*Spearman*: rank correlation between the affinity's value of a split and its total; "
        "−1: the affinity orders all splits rightly."
    )
    head = ["groups", "seed", "total", "splits", "best", "mean", "worst", "Spearman", "best split", "worst split"]
    rows = [_ranking(ranking, kind) for ranking in comparison.rankings for kind in ("normalised", "raw")]
    return [note, table(head, rows)]


def _ranking(ranking: Ranking, kind: str) -> list[str]:
    ordered = sorted(ranking.splits, key=lambda split: getattr(split, kind))
    totals = [getattr(split, kind) for split in ordered]
    correlation = getattr(ranking, f"{kind}_spearman")
    return [
        str(ranking.groups), str(ranking.seed), kind, str(len(totals)),
        shown(totals[0], LOSS), shown(fmean(totals), LOSS), shown(totals[-1], LOSS),
        shown(correlation, RATIO._replace(signed=True)),
        split_text(ordered[0].groups), split_text(ordered[-1].groups),
    ]  # fmt: skip


def _origin(comparison: Comparison) -> str:
    return "\n".join([
        f"- command: `{comparison.command}`",
        f"- seeds: {', '.join(map(str, comparison.seeds))}; reference: {comparison.reference}",
        *(f"- machine: {machine}" for machine in comparison.machines),
        f"- data: sha256 {comparison.data[:16]}…; computed on: {comparison.device}",
        f"- date: {comparison.date}; all runs together took {shown(comparison.wall_seconds, PLAIN)} s of wall time",
    ])  # fmt: skip


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table; its first ``left`` columns are aligned to the left, the others to the right."""
    lines = [head, [":--"] * left + ["--:"] * (len(head) - left), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
