"""Signed plans and the metadata they rest on: which bytes are signed, which word is newer, and how metadata travels.

A plan names every artifact by its sha256, so that its signature covers all bytes of a round. Signed are these bytes,
five lines of UTF-8 and then the JSON of the plan as it is in the message:

    mas-edge plan 1 LF  fleet LF  receiver LF  life LF  seq LF  plan

(life, seq) grows from plan to plan; a device takes none that is not above the last one it took by the same key, so
that nobody can say an old plan again. Which key may sign is said by TUF metadata (theupdateframework.io): the role
``models``, to which the offline role ``targets`` delegates ``models/*/*/*``. Programs, inference models and their
golden samples are targets of that role, each under the name ``models/{job}/{group}/{kind}``.

The metadata's files travel as one artifact: a JSON object of them by file name. Nothing here does cryptography.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from mas_edge.protocol.errors import MessageError, TrustError
from mas_edge.protocol.messages import Plan, SignedPlan, decode_from_orchestrator
from mas_edge.protocol.models import ENGINE_OF, FORMATS
from mas_edge.protocol.topics import check_name

MODELS = "models"  # the delegated role of the orchestrator's key
ALL_IN_ONE = "merged"  # the group of all tasks, whose model stands in for a group's
MODELS_PATTERN = "models/*/*/*"  # in TUF a star stands for one step of a path
ISSUED = "x-mas-edge-issued"  # in root and timestamp: when it was signed, seconds since 1970
# Eight runs of a job with four groups are 40 KB, a rotated root 3 KB: more is no metadata of ours.
MAX_METADATA_BYTES = 1024 * 1024
MAX_METADATA_FILES = 300  # a root for each rotation, and four more
METADATA_FILE = re.compile(r"(\d{1,10}\.)?(root|timestamp|snapshot|targets|models)\.json")


def signed_bytes(fleet: str, receiver: str, life: int, seq: int, plan: bytes) -> bytes:
    """What the signature of a plan is made over.

    Raises:
        MessageError: a name that could stand for another one (a line break in it).
    """
    head = (
        "mas-edge plan 1", check_name(fleet, "fleet"), check_name(receiver, "device"), f"{life:d}", f"{seq:d}", ""
    )  # fmt: skip
    return "\n".join(head).encode() + plan


def plan_in(signed: SignedPlan) -> Plan:
    """The plan in a message whose signature was checked, or need not be.

    Raises:
        MessageError: it is not a plan.
    """
    plan = decode_from_orchestrator(bytes(signed.plan))
    if not isinstance(plan, Plan):
        message = f"a signed plan holds a {type(plan).__name__}"
        raise MessageError(message)
    return plan


def targets_of(plan: Plan) -> dict[str, tuple[str, int]]:
    """What of a plan must be in the signed list, as (sha256, bytes) by target name; weights change with every round.

    Raises:
        MessageError: a name in the plan cannot stand in a target's name.
    """
    place = f"models/{check_name(plan.job, 'job')}/{check_name(plan.group, 'group')}"
    if plan.kind == "deploy":
        if plan.format not in FORMATS:
            message = f"plan deploys a model of format {plan.format[:40]!r}; expected one of {', '.join(FORMATS)}"
            raise MessageError(message)
        golden = "golden" if plan.format in ENGINE_OF else f"golden.{plan.format}"  # of those that round: their own
        manifests = {f"{place}/model.{plan.format}": plan.program}
        if plan.health:
            manifests[f"{place}/{golden}"] = plan.health.golden
        if plan.health and plan.health.all_in_one:
            whole = f"models/{plan.job}/{ALL_IN_ONE}"
            manifests[f"{whole}/model.{plan.format}"] = plan.health.all_in_one.model
            manifests[f"{whole}/{golden}"] = plan.health.all_in_one.golden
    else:
        # Named by content: a plan does not say for which engine and batch size its program is.
        manifests = {f"{place}/program.{plan.program.artifact[:16]}": plan.program}
    return {name: (manifest.artifact, manifest.size) for name, manifest in manifests.items()}


def pack_metadata(files: Mapping[str, bytes]) -> bytes:
    """The artifact of these metadata files (JSON, by file name such as ``2.root.json``); they stay byte for byte."""
    return msgspec.json.encode({name: msgspec.Raw(files[name]) for name in sorted(files)})


def unpack_metadata(data: bytes) -> dict[str, bytes]:
    """The files in an artifact of metadata; whether they are to be trusted is for TUF to say.

    Raises:
        TrustError: too large, or not what ``pack_metadata`` makes.
    """
    if len(data) > MAX_METADATA_BYTES:
        message = f"signing metadata of {len(data)} bytes; at most {MAX_METADATA_BYTES} are taken"
        raise TrustError(message)
    try:
        files = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        message = f"signing metadata does not decode: {error}"
        raise TrustError(message) from None
    if len(files) > MAX_METADATA_FILES or not all(METADATA_FILE.fullmatch(name) for name in files):
        message = f"signing metadata holds {len(files)} files such as {min(files)[:40]!r}; expected TUF metadata"
        raise TrustError(message)
    return {name: bytes(raw) for name, raw in files.items()}
