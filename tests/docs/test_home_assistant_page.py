"""The guide to Home Assistant: its table names what is published, its files are there."""

from __future__ import annotations

import json

from device_runtime.home_assistant import HomeAssistant
from tests.docs.pages import ROOT, in_ticks, prose, rows

GUIDE = ROOT / "docs" / "guides" / "home-assistant.md"


def test_the_guide_names_the_sensors_their_states_and_the_topics() -> None:
    home = HomeAssistant("PREFIX", "FLEET", "NAME", model="", runtime="")
    components = json.loads(home.config())["components"].values()
    shown = rows(prose(GUIDE))
    assert [row[0] for row in shown] == [component["name"] for component in components]
    (training,) = (component for component in components if component["name"] == "Training")
    assert set(in_ticks(shown[0][1])) == set(training["options"])
    assert f"`{home.config_topic}`" in prose(GUIDE)


def test_every_file_that_the_guide_names_is_there() -> None:
    for text in in_ticks(prose(GUIDE)):
        if text.startswith("broker/"):
            assert (ROOT / text).exists(), text
