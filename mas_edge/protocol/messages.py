"""Every control message, typed; small JSON on the wire.

Everything the protocol depends on is in the body, so that an MQTT 3.1.1 broker carries it as well as an MQTT 5 one.
Unknown fields are ignored: an older device understands a newer orchestrator's message as far as it knows it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.limits import (
    MAX_AXES,
    MAX_ENGINES,
    MAX_TASKS,
    BatchSize,
    Count,
    Samples,
    Word,
    one_line,
)
from mas_edge.protocol.topics import check_name

# A plan with the manifests of a 1 GiB artifact stays below this; anything larger is not one of our messages.
MAX_MESSAGE_BYTES = 512 * 1024

PlanKind = Literal["train", "evaluate", "deploy"]
Quality = Literal["measured", "estimated", "none"]
Verdict = Literal[
    "accepted", "duplicate", "stale_round", "bad_digest", "too_large", "not_selected", "invalid", "round_closed"
]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The description of an artifact: immutable bytes named by their sha256.

    ``chunk_digests`` is the sha256 of each chunk, 32 bytes each, one after the other. Empty in the offer of an update
    whose sender leaves it at the digest of the whole: what arrives damaged is then sent again from the beginning.
    """

    artifact: str
    size: int
    chunk_size: int
    chunk_digests: bytes


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What every message carries: who sent it, in which life, as which one of that life."""

    sender: str
    boot_id: Word
    seq: Count


class SampleCount(msgspec.Struct, frozen=True, kw_only=True):
    """Labelled samples of one task on one device."""

    train: Samples
    test: Samples


class Birth(Message, frozen=True, kw_only=True, tag="birth"):
    """Retained: who this device is, what it can run, and for which tasks it holds labels."""

    runtime: Word
    python: Word
    machine: Word
    cores: Count
    memory_bytes: Count
    engine: Word
    engines: Annotated[list[Word], Meta(max_length=MAX_ENGINES)]
    input_shape: Annotated[list[Count], Meta(max_length=MAX_AXES)]
    tasks: Annotated[dict[Word, SampleCount], Meta(max_length=MAX_TASKS)]
    # What a program may take beside the process that has its engine loaded and nothing else; 0 = no limit
    step_memory_bytes: Count = 0
    max_packet: Count = 0  # bytes of the largest packet that its broker carries; 0 = no limit is known
    checks_in: bool = False  # it sends its birth again when it is told to: its silence means that it is away
    ineligible: str = ""  # why its owner's rules let it train and evaluate nothing now; empty: they do not forbid it
    # By group, the sha256 of the deployed model in use; None: a runtime that does not say
    models: Annotated[dict[Word, Word], Meta(max_length=MAX_TASKS)] | None = None


class Status(Message, frozen=True, kw_only=True, tag="status"):
    """Retained: online or not. The broker publishes ``online=False`` as the last will."""

    online: bool
    reason: str = ""


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """GradNorm: how a device moves the task weights after every step (see ``device_runtime.balance``)."""

    alpha: float  # how strongly a task that learns slowly is pulled up
    rate: float  # by how much a weight is moved in a step, relatively
    initial_losses: dict[str, float] = {}  # L(0); where a task has none, the device's first loss of this plan


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """How a selected device trains in one round."""

    learning_rate: float
    momentum: float
    weight_decay: float
    local_epochs: int
    seed: int
    task_weights: dict[str, float]
    affinity_period: int = 0  # measure the affinity at every n-th step; 0 = not at all
    proximal_mu: float = 0.0  # FedProx
    balance: Balance | None = None  # GradNorm, from task_weights on; needs a program whose train_step gives norms


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """The weights a plan starts from.

    A device that holds the artifact uses it. If ``derive_from`` names an artifact that it holds, it takes the tensors
    of the program's layout out of that one and checks that the digest is ``manifest.artifact``: nothing is sent.
    Otherwise it pulls the artifact.
    """

    manifest: Manifest
    derive_from: str = ""


class AllInOne(msgspec.Struct, frozen=True, kw_only=True):
    """The model of all tasks, which a device takes in place of a group's where the split is a loss to it."""

    model: Manifest  # of the plan's format
    golden: Manifest
    tasks: list[str]
    # By which the group's error on the device's own test samples may exceed this one's, relatively
    max_regression: float


class HealthCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What a deployed model must show before it counts: golden inputs and outputs, within a tolerance, and bounds."""

    golden: Manifest
    tolerance: float
    max_latency_s: float
    max_slowdown: float = 0.0  # its latency, to that of the model in use on the device; 0 = not looked at
    max_memory_bytes: Count = 0  # what loading and running it may add to the process; 0 = no limit
    all_in_one: AllInOne | None = None  # what to hold a group's model against


class Plan(Message, frozen=True, kw_only=True, tag="plan"):
    """What a selected device is told to do in one round."""

    job: str
    round_id: str
    kind: PlanKind
    group: str
    tasks: list[str]
    deadline_s: float  # seconds from receipt; the device's clock may be wrong, so no absolute time
    program: Manifest
    weights: Weights | None = None
    training: Training | None = None
    health: HealthCheck | None = None  # kind == "deploy": ``program`` is then the inference model
    format: str = "onnx"  # of the inference model: "onnx", "pte", "tflite" or "int8"; see ``mas_edge.protocol.models``
    undo: bool = False  # kind == "deploy": leave this model for the last good one before it; nothing is fetched


class SignedPlan(Message, frozen=True, kw_only=True, tag="signed_plan"):
    """A plan as an enrolled device takes it: see ``mas_edge.protocol.signed`` for what is signed, and the order.

    ``metadata`` is not covered by the signature: what it names is verified by itself.
    """

    receiver: str  # the device it is for
    life: Count  # which run of an orchestrator: a later one has a greater number
    plan: msgspec.Raw  # the JSON of the plan, byte for byte as it was signed
    key: str  # the name of the key, as in the signing metadata
    signature: bytes  # Ed25519, 64 bytes
    metadata: Manifest | None = None  # the newest signing metadata


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """The device has the plan and works on it."""

    job: str
    round_id: str


class Refusal(Message, frozen=True, kw_only=True, tag="refusal"):
    """The device cannot, or can no longer, carry out the plan; ``reason`` is for people."""

    job: str
    round_id: str
    reason: str


class Want(Message, frozen=True, kw_only=True, tag="want"):
    """The chunks of an artifact that the sender is missing, as half-open ranges."""

    artifact: str
    ranges: list[tuple[int, int]]
    broadcast: bool = False  # the sender listens on the broadcast topic and can wait for it


class Energy(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan's work took on a device, above what the device takes when idle."""

    quality: Quality  # "estimated" as soon as a part of it is; "none": nothing measures, ``problem`` may say why
    joules: dict[str, float] = {}  # by activity: train, affinity, evaluate, other
    source: str = ""  # the sensors, and what an estimate is made of
    error: float = 0.0  # of an estimate, relative: 0.35 is 35 % up or down; a sensor's own error is not known here
    idle_watts: float | None = None  # what was taken off; None where nothing was known to take off, or it was estimated
    problem: str = ""  # what was wrong with a sensor


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """How a device is when its work has ended; None: it cannot tell."""

    battery_percent: float | None = None
    plugged: bool | None = None
    temperature_c: float | None = None  # of the processor


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a device found out while it carried out a plan. Means are over valid samples; seconds are wall time."""

    samples: dict[str, int]
    losses: dict[str, float]
    metrics: dict[str, float] = {}
    # row = source i, column = recipient j, in the order of the plan's tasks; null where no batch held labels of both
    affinity: list[list[float | None]] | None = None
    affinity_measurements: int = 0
    task_weights: dict[str, float] = {}  # what GradNorm has made of the plan's
    steps: int = 0
    seconds: dict[str, float] = {}  # by activity: train, affinity, evaluate, download, load
    cpu_seconds: float = 0.0
    affinity_cpu_seconds: float = 0.0  # the part of cpu_seconds that measuring the affinity took
    received_bytes: int = 0
    engine: Word = ""
    batch_size: BatchSize = 0  # of the program that ran
    healthy: bool | None = None
    health_reason: str = ""
    latency_s: float = 0.0
    model: Word = ""  # the sha256 of the deployed model in use afterwards; empty: none, or nothing was deployed
    memory_bytes: Count = 0  # what loading and running the model that was tried has added to the process
    regression: float | None = None  # of the group's model against the all-in-one model; None: they were not compared
    energy: Energy | None = None
    board: Board | None = None  # None: it has no sensor of battery or heat


class Offer(Message, frozen=True, kw_only=True, tag="offer"):
    """A finished plan: its report and, after training, the manifest of the new weights."""

    job: str
    round_id: str
    report: Report
    manifest: Manifest | None = None


class Commit(Message, frozen=True, kw_only=True, tag="commit"):
    """The device has sent every chunk that was wanted."""

    job: str
    round_id: str
    artifact: str


class Receipt(Message, frozen=True, kw_only=True, tag="receipt"):
    """The orchestrator's last word on an offer. Only now may the device forget its update."""

    job: str
    round_id: str
    verdict: Verdict
    reason: str = ""
    next_checkin_s: float = 0.0  # seconds until the device shall send its birth again; 0 = as it was told before


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """The round is over; whoever still works on it can stop."""

    job: str
    round_id: str
    reason: str
    next_checkin_s: float = 0.0


class Rebirth(Message, frozen=True, kw_only=True, tag="rebirth"):
    """The orchestrator asks for a fresh birth message."""


class OrchestratorState(Message, frozen=True, kw_only=True, tag="orchestrator"):
    """Retained: the orchestrator is there, and what it is doing."""

    online: bool
    job: str = ""
    phase: str = ""
    next_checkin_s: float = 0.0  # for all: each device adds its own jitter


FromDevice = Birth | Status | Ack | Refusal | Want | Offer | Commit
FromOrchestrator = Plan | SignedPlan | Want | Receipt | Cancel | Rebirth | OrchestratorState
AnyMessage = FromDevice | FromOrchestrator

_M = TypeVar("_M")

_encoder = msgspec.json.Encoder()
_from_device: msgspec.json.Decoder[FromDevice] = msgspec.json.Decoder(FromDevice)
_from_orchestrator: msgspec.json.Decoder[FromOrchestrator] = msgspec.json.Decoder(FromOrchestrator)


def encode(message: AnyMessage) -> bytes:
    """Return the JSON of a message.

    Raises:
        MessageError: the message is larger than MAX_MESSAGE_BYTES, or holds text that is not Unicode.
    """
    try:
        data = _encoder.encode(message)
    except UnicodeEncodeError as error:
        text = f"{type(message).__name__} holds text that is not Unicode, such as an undecodable file name: {error}"
        raise MessageError(text) from None
    if len(data) > MAX_MESSAGE_BYTES:
        text = f"{type(message).__name__} of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes"
        raise MessageError(text)
    return data


def decode_from_device(data: bytes, device: str) -> FromDevice:
    """Decode what arrived on one of ``device``'s topics; the body must name the same device."""
    return _checked(_decode(_from_device, data), device)


class RoundName(msgspec.Struct, frozen=True):
    """The least a message must say for its sender to be told what is wrong with it."""

    job: str
    round_id: str


def round_name(data: bytes) -> RoundName | None:
    """The round a message that does not decode speaks of, if that much can be read."""
    try:
        named = msgspec.json.decode(data[:MAX_MESSAGE_BYTES], type=RoundName)
        check_name(named.round_id, "round")
    except (msgspec.MsgspecError, MessageError, RecursionError, UnicodeDecodeError):
        return None
    return named


def decode_from_orchestrator(data: bytes) -> FromOrchestrator:
    """Decode what arrived on a command topic."""
    message = _decode(_from_orchestrator, data)
    if isinstance(message, (Plan, Receipt, Cancel)):
        check_name(message.round_id, "round")
    return message


def _decode(decoder: msgspec.json.Decoder[_M], data: bytes) -> _M:
    if len(data) > MAX_MESSAGE_BYTES:
        text = f"message of {len(data)} bytes is over the limit of {MAX_MESSAGE_BYTES} bytes"
        raise MessageError(text)
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        text = f"message does not decode: {error}; it begins {bytes(data[:60])!r}"
        raise MessageError(text) from None


def _checked(message: FromDevice, device: str) -> FromDevice:
    if message.sender != device:
        text = f"message on the topics of device {device!r} says it comes from {message.sender!r}"
        raise MessageError(text)
    if not isinstance(message, (Birth, Status, Want)):
        check_name(message.round_id, "round")
    return _shown(message)


def _shown(message: FromDevice) -> FromDevice:
    """The same message with its text for people as one line: it goes into logs and onto terminals."""
    match message:
        case Birth():
            return msgspec.structs.replace(message, ineligible=one_line(message.ineligible))
        case Status() | Refusal():
            return msgspec.structs.replace(message, reason=one_line(message.reason))
        case Offer():
            report = msgspec.structs.replace(message.report, health_reason=one_line(message.report.health_reason))
            return msgspec.structs.replace(message, report=report)
    return message
