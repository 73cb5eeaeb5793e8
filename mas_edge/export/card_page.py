"""The model card as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mas_edge.export.card import Board, Measured, ModelCard, TaskCard
from mas_edge.export.report import Loss

UNSAID = "The job file says nothing about it."
KINDS = {
    "class": "one of {classes} classes",
    "dense_class": "one of {classes} classes at every place",
    "value": "numbers",
    "direction": "a direction",
}
METRIC_UNITS = {"accuracy": "share right", "angle_degrees": "degrees"}


def to_markdown(card: ModelCard) -> str:
    """The page; tables and paragraphs of plain CommonMark with GitHub's tables."""
    return "\n".join(_page(card)) + "\n"


def _page(card: ModelCard) -> Iterator[str]:
    tasks = ", ".join(task.name for task in card.tasks)
    many = "tasks" if len(card.tasks) > 1 else "task"
    yield f"# {_cell(card.name)}"
    yield f"\nThe {many} {tasks} of the job `{card.job}` in one network, exported to {card.target} in {card.precision}."
    yield f"It runs on {card.engine}. Made {card.created} from {_cell(card.training.run)}."
    yield "\n## Tasks\n"
    yield from _table(("task", "kind", "answer", "unit", "metric"), [_task(task) for task in card.tasks])
    shape = _sizes(["batch", *card.input.shape])
    yield f"\nInput `{card.input.name}`: {card.input.dtype} [{shape}], {card.input.batch}."
    yield "\n## Measured\n"
    yield from _measured(card)
    if card.quantization:
        yield "\n## What int8 costs\n"
        yield from _losses(card.quantization)
    yield "\n## Network\n"
    yield from _network(card)
    if card.board is not None:
        yield "\n## On a microboard\n"
        yield from _board(card.board)
    yield "\n## Verification\n"
    yield "Each output was held against eager PyTorch before this was released; relative to the output's largest value."
    yield "`verification.json` has every output.\n"
    rows = [
        (c.what, str(c.outputs), c.worst, f"{c.max_abs:.1e}", f"{c.max_rel:.1e}", f"{c.tolerance:.0e}")
        for c in card.verification
    ]
    yield from _table(("what", "outputs", "worst output", "max abs", "max rel", "allowed"), rows, numbers=(1, 3, 4, 5))
    yield f"\nWith {', '.join(f'{name} {version}' for name, version in card.versions.items())}."
    yield "\n## Files\n"
    files = [(f"`{file.name}`", file.content, f"{file.size}", f"`{file.sha256}`") for file in card.files]
    yield from _table(("file", "content", "bytes", "sha256"), files, numbers=(2,))
    yield from _words(card)


def _task(task: TaskCard) -> tuple[str, ...]:
    kind = KINDS.get(task.kind, task.kind).format(classes=task.classes)
    return task.name, kind, f"[{_sizes(['batch', *task.output])}]", task.unit or "-", task.metric


def _measured(card: ModelCard) -> Iterator[str]:
    stages = list(dict.fromkeys(found.stage for task in card.tasks for found in task.measured))
    if not stages:
        yield "No measurement came with the weights."
        return
    yield "Metric (loss) on the held-out test samples of all devices; last, the lowest and the highest device.\n"
    rows = []
    for task in card.tasks:
        by_stage = {found.stage: found for found in task.measured}
        last = task.measured[-1] if task.measured else None
        unit = METRIC_UNITS.get(task.metric)
        name = f"{task.name}, {task.metric}{f' ({unit})' if unit else ''}"
        rows.append((name, *(_metric(by_stage.get(stage)) for stage in stages), _spread(last)))
    numbers = tuple(range(1, len(stages) + 2))
    yield from _table(("task", *stages, "by device"), rows, numbers)
    samples = {task.name: task.measured[-1].samples for task in card.tasks if task.measured}
    if len(set(samples.values())) == 1:
        yield f"\n{next(iter(samples.values()))} test samples."
    else:
        yield f"\nTest samples: {', '.join(f'{name} {count}' for name, count in samples.items())}."


def _metric(found: Measured | None) -> str:
    return f"{found.metric:.4g} ({found.loss:.4g})" if found else "-"


def _spread(found: Measured | None) -> str:
    return f"{found.lowest:.4g} to {found.highest:.4g} ({found.devices})" if found and found.devices else "-"


def _losses(losses: Sequence[Loss]) -> Iterator[str]:
    yield "Against the same network in float32, on test samples; relative L2 is |difference| / |float32 answer|.\n"
    rows = [
        (
            loss.task, f"{100 * loss.relative_l2:.2f} %", loss.metric or "-",
            "-" if loss.fp32 is None else f"{loss.fp32:.4g}", "-" if loss.int8 is None else f"{loss.int8:.4g}",
            str(loss.labelled or loss.samples),
        )
        for loss in losses
    ]  # fmt: skip
    yield from _table(("task", "relative L2", "metric", "float32", "int8", "samples"), rows, numbers=(1, 3, 4, 5))


def _network(card: ModelCard) -> Iterator[str]:
    network, training = card.network, card.training
    arguments = ", ".join(f"{name} = {value}" for name, value in network.arguments.items())
    yield f"{_cell(network.architecture)}{f' ({_cell(arguments)})' if arguments else ''}: {network.weights} weights"
    parts = ", ".join(f"{part} {count}" for part, count in network.parts.items())
    yield f"({parts}), {network.trained} of them trained."
    if training.rounds:
        yield f"Trained in {training.rounds} rounds on {training.devices} devices."


def _board(board: Board) -> Iterator[str]:
    operators = ", ".join(f"{name} {count}" for name, count in board.operators.items())
    yield f"The model takes {board.flash} bytes of flash and an arena of {board.arena} bytes of RAM, found by bisection"
    yield f"with tflite-micro to {board.granularity} bytes; kernels, stack and the firmware itself come on top."
    yield "Its header holds scale and zero point of every input and output."
    yield f"The firmware registers these operators (with the number of calls): {operators}."


def _words(card: ModelCard) -> Iterator[str]:
    yield "\n## Data\n"
    yield card.data.description or UNSAID
    yield f"\nLicence of the data: {card.data.licence or 'not stated in the job file'}."
    if card.data.contact:
        yield f"\nContact: {card.data.contact}"
    yield "\n## Intended use and limits\n"
    yield card.intended_use or UNSAID
    if card.limits:
        yield f"\n{card.limits}"
    if any(task.measured for task in card.tasks):
        yield "\nNothing was measured on devices or people outside this run."


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> Iterator[str]:
    yield f"| {' | '.join(heading)} |"
    yield f"|{'|'.join('---:' if place in numbers else '---' for place in range(len(heading)))}|"
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"


def _cell(text: str) -> str:
    """Text that ends neither a cell nor a line."""
    return " ".join(text.replace("|", "\\|").split())


def _sizes(sizes: Sequence[int | str]) -> str:
    return ", ".join(map(str, sizes))
