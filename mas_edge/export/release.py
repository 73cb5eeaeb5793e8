"""One group exported to one target: everything made and verified first, then written as a whole folder.

DIR/GROUP/TARGET-PRECISION/
    model.onnx            the inference model (.pte, .tflite; for microboards also C sources)
    golden.safetensors    inputs, and the outputs the model must give for them
    weights.safetensors   where training goes on from
    train.program         the training program with all methods, as devices of this kit take it
    train/METHOD.onnx     its methods as files of their own (one train.pte or train.tflite for those engines)
    verification.json     every output of every method against eager PyTorch
    card.toml, card.md    the model card
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mas_edge.export.cache import ExportCache, versions_of
from mas_edge.export.card import Board, ModelCard, to_toml_text
from mas_edge.export.card_page import to_markdown
from mas_edge.export.describe import Files, Trained, card_of
from mas_edge.export.folder import write_whole
from mas_edge.export.gate import Step, released, silent
from mas_edge.export.inference import golden_of
from mas_edge.export.model_check import check_exact, check_rounded, runner_of
from mas_edge.export.quality import Run, Samples
from mas_edge.export.report import Report, to_json
from mas_edge.export.targets import FP32, INT8, Target, exporter_of
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import Comparison
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import pack

if TYPE_CHECKING:
    from mas_edge.export.micro import MicroModel

BOARD_BATCH = 512  # samples that tflite-micro gets at once, as each time it is started anew


@dataclass(frozen=True)
class Options:
    """How to export."""

    precision: str = FP32
    samples: Samples | None = None  # real ones, for int8
    training: bool = True  # with the training program
    flash_bytes: int = 0  # of a microboard; 0 = no limit
    ram_bytes: int = 0


@dataclass(frozen=True)
class _Model:
    """The inference model: its files, what runs it here, and what a microboard needs for it."""

    files: Files
    run: Run
    board: Board | None = None
    batch: int = 0  # samples a call; 0 = the job's


@dataclass(frozen=True)
class Export:
    """A folder that was written, its card, its verification, and the seconds it took."""

    directory: Path
    card: ModelCard
    report: Report
    seconds: float


def place_of(out: Path, group: str, target: Target, precision: str) -> Path:
    """The folder of one export."""
    return out / group / f"{target.name}-{precision}"


def check_options(target: Target, options: Options) -> None:
    """Raise JobError if ``target`` cannot be exported to with ``options``; the message says what to give."""
    if options.precision not in target.precisions:
        message = (
            f"{target.name} is exported in {' or '.join(target.precisions)}, not in {options.precision}: "
            f"--precision {target.precisions[0]}"
        )
        raise JobError(message)
    if options.precision == INT8 and options.samples is None:
        message = "int8 needs real samples to set its ranges by: --data DEVICE_FOLDER"
        raise JobError(message)


def export(
    trained: Trained, target: Target, options: Options, out: Path, cache: ExportCache | None = None,
    step: Step = silent, *, force: bool = False,
) -> Export:  # fmt: skip
    """Export ``trained`` to ``target`` and write the folder ``place_of``.

    Raises:
        JobError: the network cannot be exported so, or the options do not fit the target.
        ServerError: an export does not do what the network does, a package is missing, or the disk refuses.
        DataError: the samples cannot be used.
    """
    check_options(target, options)
    start = time.perf_counter()
    files, report, board = _make(trained, target, options, cache, step)
    place = place_of(out, trained.group, target, options.precision)
    files["verification.json"] = (to_json(report), "the verification")
    card = card_of(trained, target, report, files, board)
    contents = {name: data for name, (data, _) in files.items()}
    contents |= {"card.toml": to_toml_text(card).encode(), "card.md": to_markdown(card).encode()}
    with step(f"write {place}"):
        write_whole(place, contents, force=force)
    return Export(place, card, report, time.perf_counter() - start)


def _make(
    trained: Trained, target: Target, options: Options, cache: ExportCache | None, step: Step
) -> tuple[Files, Report, Board | None]:
    job, tasks, vector = trained.job, trained.tasks, trained.vector
    with step("trace the network"):
        traced = trace_program(job, trained.group, tasks)
    with step(f"inference model, {options.precision}"):
        model = _inference(trained, target, options)
    files = model.files
    with step("verify the inference model against eager"):
        golden = golden_of(job, tasks, vector, seed=job.seed)
        if options.precision == INT8 and options.samples is not None:
            checked = check_rounded(model.run, golden, trained, traced, options.samples, model.batch)
        else:
            checked = check_exact(model.run, golden, trained)
        checked.require(f"the {options.precision} model of {trained.group!r}")
    files["golden.safetensors"] = (checked.golden, "golden samples: x and out.TASK")
    files["weights.safetensors"] = (pack(traced.layout, vector), "the weights")
    program: list[Comparison] = []
    if target.emitter and options.training:
        verified = released(traced, target.engine, job, cache, step)
        files |= _training(program_format.load(verified.program), verified.program, target)
        program = verified.comparisons
    report = Report(
        group=trained.group, target=target.name, precision=options.precision, engine=target.engine,
        versions=versions_of(target.engine), model=checked.found, program=program,
        quantization=checked.losses,
    )  # fmt: skip
    return files, report, model.board


def _inference(trained: Trained, target: Target, options: Options) -> _Model:
    job, tasks, vector = trained.job, trained.tasks, trained.vector
    calibration = options.samples.calibration() if options.samples and options.precision == INT8 else None
    exporter = exporter_of(target)
    if target.name == "micro":
        return _micro(exporter.export_micro(job, tasks, vector, calibration, options.flash_bytes, options.ram_bytes))
    data: bytes = exporter.export_inference(job, tasks, vector, options.precision, calibration)
    return _Model({f"model.{target.suffix}": (data, f"the model, {options.precision}")}, runner_of(data, trained))


def _micro(made: MicroModel) -> _Model:
    """A microboard's files; tflite-micro itself runs the model here."""
    # They need the packages of the LiteRT build environment.
    from mas_edge.export.micro.board import answers_of
    from mas_edge.export.micro.c_source import HEADER, SOURCE

    needs = made.report
    files: Files = {
        "model.tflite": (made.model, "the model, int8 in and out"),
        SOURCE: (made.source.encode(), "the same as an array in C"),
        HEADER: (made.header.encode(), "its sizes, scales and zero points"),
    }
    board = Board(
        flash=needs.flash_bytes, arena=needs.arena_bytes, granularity=needs.granularity, operators=needs.operators
    )
    ends = made.inputs[0], made.outputs, needs.arena_bytes
    return _Model(files, lambda x: answers_of(made.model, *ends, x), board, BOARD_BATCH)


def _training(program: Program, dumped: bytes, target: Target) -> Files:
    methods = ", ".join(program.methods)
    files: Files = {"train.program": (dumped, f"training program: {methods}")}
    if program.file:
        files[f"train.{target.suffix}"] = (program.file, f"the same as one file: {methods}")
    for name, method in program.methods.items():
        if method.graph:
            files[f"train/{name}.onnx"] = (method.graph, f"its method {name}")
    return files
