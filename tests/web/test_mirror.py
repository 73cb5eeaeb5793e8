"""A run that is read bit by bit as it is written is the run that is read at once."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import Store
from mas_edge.web.answers import progress_of, run_view
from mas_edge.web.mirror import Known, Mirror
from tests.orchestrator.small_run import JOB, group_state

# What happens between two looks: None: the next round is opened; a number: that one of the open rounds closes.
STEPS = st.lists(st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=5), min_size=1, max_size=6)


def seen(known: Known) -> object:
    """What a reader learns of the rounds."""
    ledger = known.ledger
    return (
        ledger.rounds, ledger.records, ledger.work, ledger.last_trained, known.open_rounds, progress_of(known),
        run_view(known).last_losses,
    )  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(STEPS)
def test_rounds_that_are_read_while_they_open_and_close_are_those_that_are_read_at_once(
    looks: list[list[int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as name, closing(Store(Path(name))) as store:
        state = store.begin(JOB, JobState(run_id="j-1", phase="merge", merged=group_state()))
        there: list[int] = []
        opened = 0
        with closing(Mirror(Path(name))) as mirror:
            for steps in looks:
                for step in steps:
                    if step is None:
                        spec = RoundSpec(f"merged-{opened:04}", "train", "merged", opened, ("pi-1", "pi-2"), 9.0, 1)
                        store.open_round(spec, "merge")
                        there.append(opened)
                        opened += 1
                    elif step < len(there):
                        store.close_round(_record(there.pop(step)), state)
                known = mirror.look()
            with closing(Mirror(Path(name))) as fresh:
                assert seen(known) == seen(fresh.look())
            assert (len(known.open_rounds), len(known.ledger.rounds)) == (len(there), opened - len(there))


def _record(index: int) -> RoundRecord:
    outcome = "abandoned" if index % 3 == 2 else "complete"
    return RoundRecord(
        round_id=f"merged-{index:04}", kind="train", group="merged", phase="merge", index=index, tasks=["a", "b"],
        outcome=outcome, selected=["pi-1", "pi-2"], wall_seconds=1.0, losses={"a": 1.0 / (1 + index)},
    )  # fmt: skip
