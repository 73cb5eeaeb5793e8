"""The job: one MAS run, written as one TOML file or built in Python.

Reading a file checks every key, type and range, and says in one line which key is wrong, what it holds, and what is
allowed. Nothing here knows torch; functions are named as ``package:function`` and looked up by ``mas_edge.learning``.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from mas_edge.mas.overlap import MAX_OVERLAP_TASKS
from mas_edge.mas.split import MAX_TASKS
from mas_edge.protocol.errors import JobError, MessageError
from mas_edge.protocol.toml import parse_toml
from mas_edge.protocol.topics import check_name

ENGINES = ("torch", "onnxruntime", "executorch", "litert", "micro")
DEFAULT_ENGINES = ("torch", "onnxruntime")
Kind = Literal["class", "dense_class", "value", "direction"]
DEFAULT_LOSS: dict[str, str] = {
    "class": "cross_entropy", "dense_class": "cross_entropy", "value": "l1", "direction": "cosine",
}  # fmt: skip
DEFAULT_METRIC: dict[str, str] = {
    "class": "accuracy", "dense_class": "accuracy", "value": "mean_absolute_error", "direction": "angle_degrees",
}  # fmt: skip
FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
MAX_EVERY_TASKS = 12  # 4094 networks in two groups: days of a large server, and yet a list that fits into a state
MAX_SEED = 2**53  # a JSON reader of another language holds it exactly, and every generator takes it
MAX_JOB_BYTES = 256 * 1024  # ten times a job of 64 tasks with every key
MAX_SHOWN = 200  # characters of a value in a message
RESERVED_TASKS = ("encoder", "x", "split", "merged")  # names that stand for something else in layouts and data folders


class Task(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One federated learning task: its target, loss, metric and head.

    kind: ``class`` (one index a sample), ``dense_class`` (one index a place, ``shape`` = places), ``value`` (``shape``
    numbers a sample), ``direction`` (a vector, compared by angle along the first axis of ``shape``).
    """

    name: str
    kind: Kind
    shape: list[int] = []
    classes: int = 0
    ignore_index: int = -100
    element_mask: bool = False  # the data folder holds a mask of the target's shape for this task
    # What a loss of 1 is in the target's own unit: the divisor of targets that the data folder holds scaled. The loss
    # of a class task, whose targets cannot be scaled, is divided by it. Tables give the loss times this as well.
    unit: float = 1.0
    loss: str = ""
    metric: str = ""
    head: str = ""
    head_args: dict[str, Any] = {}

    @property
    def loss_name(self) -> str:
        """The loss: a name of ``mas_edge.learning.losses`` or ``package:function``."""
        return self.loss or DEFAULT_LOSS[self.kind]

    @property
    def metric_name(self) -> str:
        """The metric: a name of ``mas_edge.learning.metrics`` or ``package:function``."""
        return self.metric or DEFAULT_METRIC[self.kind]

    @property
    def target_dtype(self) -> str:
        """``int64`` for class indices, else ``float32``."""
        return "int64" if self.kind in ("class", "dense_class") else "float32"


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model family, or an encoder of one's own as ``package:function``."""

    family: str = "series"
    encoder: str = ""
    encoder_args: dict[str, Any] = {}


class Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the device folders hold: the shape of one input sample, channels first."""

    input_shape: list[int]
    # A device folder on the orchestrator's machine: its train samples set the ranges of microboards' int8 models. They
    # are never sent.
    calibration: str = ""


class Federation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rounds: R in all, the first R0 of them merged, then exactly N groups."""

    rounds: int
    merge_rounds: int | Literal["auto"]  # R0; auto: as soon as the split is stable, at the latest after R/2
    groups: int | Literal["auto"] = 2  # N, exactly; auto: as many as pay
    at_most: bool = False  # fewer than N groups may win, as in the released code
    devices_per_round: int = 4  # the goal: a training round closes as soon as it has so many reports
    # Devices that are told, to those whose reports are needed: some vanish, some are slow. 1.3 as in the system of
    # Bonawitz et al. 2019. With 1 the weights do not depend on who is faster.
    over_selection: float = 1.3
    local_epochs: int = 1
    batch_size: int = 16
    min_devices: int = 1  # devices that must be there before the job begins
    min_reports: int = 1  # updates without which a round is abandoned
    deadline_s: float = 120.0  # how long a round waits at most
    # A round waits so many times as long as its devices have lately taken; 0: always deadline_s
    deadline_factor: float = 3.0
    parallel_groups: bool = True
    # Reports that come when their round has closed: refused, or folded into the round that is open then with the weight
    # (1 + rounds late)**-staleness_power, up to max_staleness rounds.
    late_updates: Literal["refuse", "fold"] = "refuse"
    staleness_power: float = 0.5  # as in FedBuff (Nguyen et al. 2022)
    max_staleness: int = 3
    # buffered: ``concurrency`` devices train at any time, and every devices_per_round reports make new weights
    mode: Literal["synchronous", "buffered"] = "synchronous"
    concurrency: int = 0  # 0: devices_per_round * over_selection
    # What a broken or malicious update can do (mas_edge.federation.robust). Of every number: the mean by samples, the
    # median, or the mean without the lowest and the highest ``trim`` of the devices.
    robust: Literal["mean", "median", "trimmed"] = "mean"
    trim: float = 0.2  # withstands one liar of five; at least one device at either end
    clip_norm: float | Literal["auto"] = 0.0  # of what an update changes; auto: the median of the round's; 0: off
    max_norm: float = 0.0  # an update that changes more is refused; 0: off
    max_samples: int = 0  # that a device counts for at most, as it says itself how many it has; 0: off

    @property
    def folds_late(self) -> bool:
        """Whether reports count when their round has closed; in buffered mode that is the point."""
        return self.late_updates == "fold" or self.mode == "buffered"

    @property
    def slots(self) -> int:
        """Devices that train a network at the same time in buffered mode."""
        return self.concurrency or math.ceil(round(self.devices_per_round * self.over_selection, 6))

    @property
    def most_merge_rounds(self) -> int:
        """The largest number of merged rounds."""
        return max(1, self.rounds // 2) if self.merge_rounds == "auto" else self.merge_rounds


class Method(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the rounds are spent on: MAS, or a method that it is compared with (``mas_edge.federation.methods``)."""

    name: Literal["mas", "all-in-one", "one-by-one", "standalone", "hoa", "tag"] = "mas"
    split: Literal["affinity", "random", "worst", "every"] = "affinity"  # how MAS chooses; all but the first: controls
    start: Literal["merged", "scratch"] = "merged"  # what the groups of MAS start from; scratch: a control
    balance: Literal["none", "gradnorm"] = "none"  # of the tasks of one network (GradNorm, Chen et al. 2018)
    gradnorm_alpha: float = 1.5
    gradnorm_rate: float = 1e-4  # by how much a task weight is moved in a step, relatively, as in the released code
    # Rounds after the split until the groups are averaged into one network for a round that measures affinity anew, and
    # so on; where the affinities have changed by more than their noise, the tasks are grouped anew. 0: never (MAS).
    regroup_rounds: int = 0


class Optimizer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SGD on the devices. The schedule runs over all R rounds, through the split."""

    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["polynomial", "constant"] = "polynomial"
    power: float = 0.9
    after_split: Literal["continuous", "restart"] = "continuous"  # the released code starts each split's schedule anew
    scale_encoder_gradient: bool = True  # by 1/sqrt(n), as the released code does
    clip_norm: float = 0.0  # of the whole gradient; 0 = off
    proximal_mu: float = 0.0  # FedProx; 0 = off


class Affinity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the devices measure affinity, and how the orchestrator averages what they report."""

    kind: Literal["lookahead", "first_order", "features"] = "lookahead"
    period: int = 5  # rho: a device measures at every period-th step
    quorum: int = 1  # devices that must have measured a pair in a round; the round does not count for it otherwise
    weighting: Literal["uniform", "samples"] = "uniform"
    average: Literal["mean", "median", "trimmed"] = "mean"  # over devices; the last two withstand an outlying device


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the network of one group may cost at most; 0 = no limit."""

    parameters: int = 0
    multiply_accumulates: int = 0  # of a train step, per sample
    memory_bytes: int = 0  # of a train step, beside the process
    step_seconds: float = 0.0  # of a train step on the slowest device that serves the job
    # The share of deadline_s that the slowest device may train a group for in a round; and a group has to fit at the
    # job's batch into the memory of the smallest (``mas_edge.orchestrator.weakest``)
    weakest_device: float = 0.0


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only people know about data and model; it goes into the model card and changes nothing else."""

    description: str = ""  # of the data: where it comes from, what it covers
    licence: str = ""  # of the data
    contact: str = ""
    intended_use: str = ""
    limits: str = ""
    units: dict[str, str] = {}  # of a task's values


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One MAS run: tasks, network, data binding, schedule. Call ``check`` on one that was built by hand."""

    name: str
    data: Data
    tasks: list[Task]
    federation: Federation
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    affinity: Affinity = Affinity()
    method: Method = Method()
    limits: Limits = Limits()
    card: Card = Card()
    fleet: str = "fleet"
    seed: int = 0
    # A program is exported for each; a device runs one of them.
    engines: list[str] = msgspec.field(default_factory=lambda: list(DEFAULT_ENGINES))

    def task(self, name: str) -> Task:
        """The task called ``name``."""
        return next(task for task in self.tasks if task.name == name)


def load_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        JobError: the file cannot be read, is not TOML, or a key is unknown, missing, of a wrong type or out of range.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JOB_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = f"job file {path}: cannot be read: {error}; expected a TOML file"
        raise JobError(message) from None
    if len(data) > MAX_JOB_BYTES:
        message = f"job file {path}: is larger than {MAX_JOB_BYTES} bytes; expected a job of a few kilobytes"
        raise JobError(message)
    return parse_job(text, str(path))


def parse_job(text: str, where: str = "job file") -> Job:
    """Read and check the text of a job file; ``where`` begins the error messages. Raises JobError."""
    try:
        tree = parse_toml(text)
    except ValueError as error:
        message = f"{where}: is not valid TOML: {error}"
        raise JobError(message) from None
    try:
        job = msgspec.convert(tree, Job)
    except msgspec.ValidationError as error:
        message = f"{where}: {_in_plain_words(str(error), tree)}"
        raise JobError(message) from None
    return check(job, where)


def check(job: Job, where: str = "job") -> Job:
    """Return ``job`` if its values fit together. Raises JobError that names the key, the value and what is allowed."""
    for key, value, allowed, fine in [*_job_rules(job), *(rule for task in job.tasks for rule in _task_rules(task))]:
        if not fine:
            message = f"{where}: {key} is {repr(value)[:MAX_SHOWN]}; allowed: {allowed}"
            raise JobError(message)
    return job


_Rule = tuple[str, object, str, bool]


def _job_rules(job: Job) -> list[_Rule]:
    f, o, names = job.federation, job.optimizer, [task.name for task in job.tasks]
    n = len(names)
    return [
        ("name", job.name, "1 to 64 letters, digits, '.', '_', '-'", _is_name(job.name)),
        ("fleet", job.fleet, "1 to 64 letters, digits, '.', '_', '-'", _is_name(job.fleet)),
        ("seed", job.seed, f"0 or more, up to {MAX_SEED}", 0 <= job.seed <= MAX_SEED),
        ("engines", job.engines, f"one or more of {', '.join(ENGINES)}, each once", _are_engines(job.engines)),
        ("data.input_shape", job.data.input_shape, "1 to 4 sizes of at least 1", _is_shape(job.data.input_shape, 1)),
        ("network.encoder", job.network.encoder, "package:function", _is_function(job.network.encoder)),
        ("tasks", names, "at least one task", n >= 1),
        ("tasks", names, "every task has a name of its own", len(set(names)) == n),
        ("tasks", n, f"at most {MAX_TASKS}: more than the search for the best split was held to", n <= MAX_TASKS),
        ("federation.rounds", f.rounds, "at least 1", f.rounds >= 1),
        (
            "federation.merge_rounds", f.merge_rounds, f"'auto', or 1 to rounds ({f.rounds})",
            f.merge_rounds == "auto" or 1 <= f.merge_rounds <= f.rounds,
        ),
        (
            "federation.groups", f.groups, f"'auto', or 1 to the number of tasks ({n})",
            f.groups == "auto" or 1 <= f.groups <= n,
        ),
        *_round_rules(f),
        ("optimizer.learning_rate", o.learning_rate, "more than 0, up to 10", 0 < o.learning_rate <= 10),
        ("optimizer.momentum", o.momentum, "0 up to but not including 1", 0 <= o.momentum < 1),
        ("optimizer.weight_decay", o.weight_decay, "0 to 1", 0 <= o.weight_decay <= 1),
        ("optimizer.power", o.power, "0 to 10", 0 <= o.power <= 10),
        ("optimizer.clip_norm", o.clip_norm, "0 (off) or more", 0 <= o.clip_norm < float("inf")),
        ("optimizer.proximal_mu", o.proximal_mu, "0 (off) to 100", 0 <= o.proximal_mu <= 100),
        ("card.units", list(job.card.units), f"tasks: {', '.join(names)}", set(job.card.units) <= set(names)),
        ("affinity.period", job.affinity.period, "at least 1", job.affinity.period >= 1),
        ("affinity.quorum", job.affinity.quorum, f"1 to devices_per_round ({f.devices_per_round})",
         1 <= job.affinity.quorum <= f.devices_per_round),
        *_method_rules(job),
        *((f"limits.{key}", value, "0 (no limit) or more", 0 <= value < float("inf"))
          for key, value in msgspec.structs.asdict(job.limits).items()),
    ]  # fmt: skip


def _round_rules(f: Federation) -> list[_Rule]:
    return [
        ("federation.devices_per_round", f.devices_per_round, "at least 1", f.devices_per_round >= 1),
        ("federation.over_selection", f.over_selection, "1 to 10", 1 <= f.over_selection <= 10),
        ("federation.local_epochs", f.local_epochs, "1 to 1000", 1 <= f.local_epochs <= 1000),
        ("federation.batch_size", f.batch_size, "1 to 4096", 1 <= f.batch_size <= 4096),
        ("federation.min_devices", f.min_devices, "at least 1", f.min_devices >= 1),
        (
            "federation.min_reports", f.min_reports, f"1 to devices_per_round ({f.devices_per_round})",
            1 <= f.min_reports <= f.devices_per_round,
        ),
        ("federation.deadline_s", f.deadline_s, "more than 0, up to 86400 (seconds)", 0 < f.deadline_s <= 86400),
        (
            "federation.deadline_factor", f.deadline_factor, "0 (always deadline_s), or 1 to 100",
            f.deadline_factor == 0 or 1 <= f.deadline_factor <= 100,
        ),
        ("federation.staleness_power", f.staleness_power, "0 to 10", 0 <= f.staleness_power <= 10),
        ("federation.max_staleness", f.max_staleness, "1 to 1000", 1 <= f.max_staleness <= 1000),
        (
            "federation.concurrency", f.concurrency, "0 (devices_per_round * over_selection), or 1 to 100000; buffered",
            f.concurrency == 0 or (f.mode == "buffered" and 1 <= f.concurrency <= 100_000),
        ),
        (
            "federation.max_staleness", f.max_staleness, "concurrency / devices_per_round or more: usual lateness",
            f.mode != "buffered" or f.max_staleness * f.devices_per_round >= f.slots,
        ),
        *_robust_rules(f),
    ]  # fmt: skip


def _robust_rules(f: Federation) -> list[_Rule]:
    norms = f.clip_norm == "auto" or 0 <= f.clip_norm < float("inf")
    return [
        ("federation.trim", f.trim, "more than 0, less than 0.5: as much is left out at either end", 0 < f.trim < 0.5),
        ("federation.clip_norm", f.clip_norm, "'auto', 0 (off) or more", norms),
        ("federation.max_norm", f.max_norm, "0 (off) or more", 0 <= f.max_norm < float("inf")),
        ("federation.max_samples", f.max_samples, "0 (off) or more", f.max_samples >= 0),
        (
            "federation.min_reports", f.min_reports, f"3 or more with robust {f.robust}: of two none is the middle",
            f.robust == "mean" or f.min_reports >= 3,
        ),
        (
            "federation.clip_norm", f.clip_norm, "a number while min_reports is below 3: of two none is the middle",
            f.clip_norm != "auto" or f.min_reports >= 3,
        ),
    ]  # fmt: skip


def _method_rules(job: Job) -> list[_Rule]:
    method, groups, n = job.method, job.federation.groups, len(job.tasks)
    chosen = method.name == "mas" and method.split == "affinity"
    mas = method.name == "mas"
    return [
        ("method.split", method.split, "affinity: only MAS has others", mas or method.split == "affinity"),
        ("method.start", method.start, "merged: only MAS has another", mas or method.start == "merged"),
        ("method.gradnorm_alpha", method.gradnorm_alpha, "0 to 10", 0 <= method.gradnorm_alpha <= 10),
        ("method.gradnorm_rate", method.gradnorm_rate, "more than 0, up to 0.5", 0 < method.gradnorm_rate <= 0.5),
        ("method.regroup_rounds", method.regroup_rounds, "0 (never) or more", method.regroup_rounds >= 0),
        (
            "method.regroup_rounds", method.regroup_rounds, "0 unless the split is chosen by affinity",
            chosen or method.regroup_rounds == 0,
        ),
        ("federation.groups", groups, "a number: only MAS by affinity finds it out", chosen or groups != "auto"),
        (
            "tasks", n, f"at most {MAX_OVERLAP_TASKS} by {method.name}: overlapping groups are searched exactly",
            method.name not in ("tag", "hoa") or n <= MAX_OVERLAP_TASKS,
        ),
        (
            "tasks", n, f"at most {MAX_EVERY_TASKS} with method.split every: it trains nearly 2^n networks",
            method.split != "every" or n <= MAX_EVERY_TASKS,
        ),
    ]  # fmt: skip


def _task_rules(task: Task) -> list[_Rule]:
    key = f"tasks[{task.name}]"
    indices = task.target_dtype == "int64"
    fits = {"class": not task.shape, "dense_class": bool(task.shape), "value": True, "direction": bool(task.shape)}
    return [
        (f"{key}.name", task.name, "letters, digits, '_', '-'; not " + ", ".join(RESERVED_TASKS), _is_task(task.name)),
        (f"{key}.shape", task.shape, "up to 4 sizes of at least 1", _is_shape(task.shape, 0)),
        (f"{key}.shape", task.shape, _SHAPES[task.kind], fits[task.kind]),
        (f"{key}.classes", task.classes, "2 or more for classes, absent otherwise", (task.classes >= 2) == indices),
        (f"{key}.unit", task.unit, "more than 0", 0 < task.unit < float("inf")),
        (f"{key}.loss", task.loss, "a known loss or package:function", ":" not in task.loss or _is_function(task.loss)),
        (
            f"{key}.metric", task.metric, "a known metric or package:function",
            ":" not in task.metric or _is_function(task.metric),
        ),
        (f"{key}.head", task.head, "package:function", _is_function(task.head)),
    ]  # fmt: skip


_SHAPES = {
    "class": "no shape: one class index a sample",
    "dense_class": "the places of a sample, such as [64, 64]",
    "value": "the numbers of a sample, such as [3]; [] for one number",
    "direction": "the vector's size first, such as [3] or [3, 64, 64]",
}


def _is_name(name: str) -> bool:
    try:
        check_name(name, "name")
    except MessageError:
        return False
    return True


def _is_task(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", name)) and name not in RESERVED_TASKS


def _are_engines(engines: list[str]) -> bool:
    return bool(engines) and len(set(engines)) == len(engines) and set(engines) <= set(ENGINES)


def _is_function(name: str) -> bool:
    return name == "" or FUNCTION.fullmatch(name) is not None


def _is_shape(shape: list[int], least: int) -> bool:
    return least <= len(shape) <= 4 and all(size >= 1 for size in shape)


def _in_plain_words(text: str, tree: object) -> str:
    """Turn msgspec's "Expected `int`, got `str` - at `$.federation.rounds`" into key, value and what is allowed."""
    problem, _, place = text.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    value, known = tree, True
    for step in re.findall(r"[^.\[\]]+", place):
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            known = False
    key = place or "the file"
    if "unknown field" in problem or "missing required" in problem:
        name = re.findall(r"`([^`]*)`", problem)[-1]
        kind = "unknown key" if "unknown" in problem else "missing key"
        return f"{kind} {name!r} in {key}; allowed there: {', '.join(_fields_at(place))}"
    shown = f" (it holds {repr(value)[:MAX_SHOWN]})" if known else ""
    return f"{key}: {problem[0].lower()}{problem[1:]}{shown}"


def _fields_at(place: str) -> tuple[str, ...]:
    section = place.split(".")[0].split("[")[0]
    kinds: dict[str, type[msgspec.Struct]] = {
        "data": Data, "tasks": Task, "federation": Federation, "network": Network, "optimizer": Optimizer,
        "affinity": Affinity, "method": Method, "limits": Limits, "card": Card,
    }  # fmt: skip
    return kinds.get(section, Job).__struct_fields__
