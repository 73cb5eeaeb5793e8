"""What signing costs: milliseconds and bytes of a plan, of new metadata, of a start; and the memory of the TUF client.

python tools/bench_signing.py
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from device_runtime.trust import anchor
from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.publisher import Publisher
from mas_edge.protocol.artifact import describe
from mas_edge.protocol.messages import Plan, Training, Weights, encode
from mas_edge.protocol.signed import targets_of

TIMES = 50  # the median of so many does not feel what else the machine does
TRAINING = Training(learning_rate=0.1, momentum=0.9, weight_decay=0.0, local_epochs=1, seed=0, task_weights={})


def plan(seq: int, group: str = "merged") -> Plan:
    """A plan for a program of 100 kB and weights of 1 MB."""
    return Plan(
        sender="orchestrator", boot_id="0" * 32, seq=seq, job="watch-1a2b3c4d", round_id="merged-0001", kind="train",
        group=group, tasks=["a", "b"], deadline_s=60.0, program=describe(bytes(100_000)), training=TRAINING,
        weights=Weights(manifest=describe(bytes(1_000_000))),
    )  # fmt: skip


def milliseconds(work: Callable[[], object], times: int = TIMES) -> float:
    """The median wall time of ``work``."""
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(time.perf_counter() - begun)
    return 1000 * statistics.median(took)


def memory_of(statement: str) -> float:
    """MB that a process holds after ``statement``, at most."""
    code = f"{statement}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) / 1000


def main() -> None:
    """Measure, and print a table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ceremony.create(directory / "signing", directory / "offline", 3, 2)
        publisher, first = Publisher(directory / "signing"), plan(0)
        publisher.list_targets(targets_of(first))
        anchor.install(directory / "device", anchor.read_root(directory / "signing"))
        verifier = anchor.open_verifier(directory / "device", "home", "pi")
        assert verifier is not None
        metadata = len(publisher.bundle)
        number = iter(range(1, 10**9))

        def listed() -> None:
            publisher.list_targets(targets_of(plan(0, f"group-{next(number)}")))

        plans = [publisher.sign("home", "pi", plan(seq)) for seq in range(1, 2 * TIMES)]
        verifier.learn("", publisher.bundle)
        waiting = iter(plans)
        rows = [
            ("orchestrator: sign a plan", milliseconds(lambda: publisher.sign("home", "pi", first)), ""),
            ("device: open a plan, and write its number down", milliseconds(lambda: verifier.open(next(waiting))), ""),
            ("a plan on the wire", 0.0, f"{len(encode(first))} B bare, {len(encode(plans[0]))} B signed"),
            ("device: verify metadata", milliseconds(lambda: verifier.learn("", publisher.bundle)), f"{metadata} B"),
            ("orchestrator: list another program", milliseconds(listed, 10), ""),
            ("a listed artifact more", 0.0, f"{(len(publisher.bundle) - metadata) / 10:.0f} B of metadata"),
            ("device: start on remembered metadata",
             milliseconds(lambda: anchor.open_verifier(directory / "device", "home", "pi"), 10), ""),
        ]  # fmt: skip
        for what, took, size in rows:
            print(f"{what:<50} {f'{took:.2f} ms' if took else '':>10}  {size}")
        wire = msgspec.structs.replace(plans[0], metadata=describe(publisher.bundle, 16 * 1024))
        print(f"{'naming the metadata beside a plan':<50} {'':>10}  {len(encode(wire)) - len(encode(plans[0]))} B")
    runtime = "import device_runtime.runtime, device_runtime.cli.run"
    without = memory_of(runtime)
    trusting = memory_of(f"{runtime}, device_runtime.trust.verifier")
    print(f"{'device: memory without trust, with it':<50} {'':>10}  {without:.1f} MB, {trusting:.1f} MB")
    print(f"this process held {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB at most")


if __name__ == "__main__":
    main()
