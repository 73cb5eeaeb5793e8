"""A fleet whose devices run different model files: each gets the group's model in its own format, and answers alike."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from device_runtime.inference import open_model
from mas_edge.orchestrator.result import result_of
from mas_edge.protocol.messages import Birth
from tests.brokers import Running
from tests.e2e.fleet import INPUT_SHAPE, Fleet, job_text
from tests.e2e.puppet import Puppet


class Phone(Puppet):
    """A device that trains with nothing and runs LiteRT models only."""

    def _birth(self) -> Birth:
        return replace(super()._birth(), engine="", engines=["litert"])


@pytest.mark.skipif(find_spec("executorch") is None, reason="needs executorch")
@pytest.mark.skipif(find_spec("litert_torch") is not None, reason="shows what happens where it cannot be exported")
def test_each_device_gets_the_model_in_its_format_and_who_cannot_be_served_is_told_why(
    running_broker: Running, tmp_path: Path
) -> None:
    text = job_text(min_devices=2, rounds=1, merge_rounds=1).replace(
        "[data]", 'engines = ["torch", "executorch"]\n[data]'
    )
    with Fleet(running_broker.url, tmp_path, text) as fleet:
        phone = Phone(fleet.url, fleet.job.fleet, f"phone-{fleet.job.fleet}")
        fleet.device_process("laptop", engine="torch")
        fleet.device_process("board", engine="executorch")
        assert fleet.orchestrate().join() is True
        phone.leave()
        snapshot = fleet.snapshot()

        deployment = result_of(snapshot)["deployment"]
        assert (deployment["devices"], deployment["healthy"]) == (2, 2), deployment
        engines = {
            name: report.engine for r in snapshot.rounds if r.kind == "deploy" for name, report in r.reports.items()
        }
        assert engines == {"laptop": "onnxruntime", "board": "executorch"}

        x = np.random.default_rng(0).standard_normal((5, *INPUT_SHAPE), np.float32)
        for index, tasks in enumerate(result_of(snapshot)["split"]["groups"]):
            files = {}
            for name, suffix in (("laptop", "onnx"), ("board", "pte")):
                [files[name]] = (fleet.device_state(name) / "deployed" / f"group-{index}").glob("active.*")
                assert files[name].name == f"active.{suffix}"
                assert files[name].read_bytes() == (fleet.state / "models" / f"group-{index}.{suffix}").read_bytes()
            answers = {name: open_model(path, tasks).run(x) for name, path in files.items()}
            for task in tasks:
                np.testing.assert_allclose(answers["board"][task], answers["laptop"][task], rtol=1e-3, atol=1e-4)

        known = {device.name: device for device in snapshot.devices}
        assert "it needs the model as .tflite, which cannot be made" in known[phone.name].no_model
        assert "litert_torch" in known[phone.name].no_model
        assert any("cannot be made, its devices are left out: group-0 model tflite" in e.text for e in snapshot.events)
        assert {device.no_model for name, device in known.items() if name != phone.name} == {""}
