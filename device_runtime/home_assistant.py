"""What Home Assistant is told of this device: by MQTT discovery, in its own words. No I/O and no clock.

    {prefix}/device/{fleet}/{device}/config   retained  the device and its sensors, in one message
                                    /state    retained  their values

The payload is that of Home Assistant's device-based discovery (since its release 2024.12), its topic has the fleet as
the node and the device as the object. Whether the device is there is read from its own status topic, which the last
will sets: there is no second word about it that could differ.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Plan, Report
from mas_edge.protocol.topics import Topics

DEFAULT_PREFIX = "homeassistant"  # Home Assistant's own
# What a node and an object may be called: Home Assistant looks for nothing else on its topics.
_ID = re.compile(r"[A-Za-z0-9_-]+")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
IDLE, HELD_BACK = "idle", "not allowed"
ACTIVITIES = {"train": "training", "evaluate": "evaluating", "deploy": "deploying"}  # by kind of plan
JOULES_IN_WH = 3600.0  # Wh: every Home Assistant knows it for energy, joules only the latest
MAX_REASON = 200  # letters: it stands on a card


def topics_of(prefix: str, fleet: str, device: str) -> tuple[str, str]:
    """The topics of the configuration and of the state.

    Raises:
        DeviceError: Home Assistant would not look there.
    """
    if not _PREFIX.fullmatch(prefix):
        message = (
            f"--home-assistant {prefix!r} is no prefix of topics: expected letters, digits, '_', '-' and '/' between "
            f"them, as in Home Assistant's settings of MQTT, such as {DEFAULT_PREFIX}"
        )
        raise DeviceError(message)
    for what, name in (("fleet", fleet), ("device", device)):
        if not _ID.fullmatch(name):
            message = (
                f"--home-assistant: Home Assistant finds no {what} called {name!r}; it allows letters, digits, '_' and "
                "'-' only: choose another name, or leave --home-assistant out"
            )
            raise DeviceError(message)
    root = f"{prefix}/device/{fleet}/{device}"
    return f"{root}/config", f"{root}/state"


class HomeAssistant:
    """One device's sensors and their values. ``model``: the board; ``runtime``: the version of this software.

    Raises:
        DeviceError: Home Assistant would not find topics with these names.
    """

    def __init__(self, prefix: str, fleet: str, device: str, *, model: str, runtime: str) -> None:
        self.config_topic, self.state_topic = topics_of(prefix, fleet, device)
        self._fleet, self._device, self._model, self._runtime = fleet, device, model, runtime
        self._held_back = ""
        self._activity = IDLE
        self._values: dict[str, Any] = {
            "job": None, "round": None, "loss": None, "losses": {}, "energy": None, "energy_source": None,
            "energy_quality": None, "problem": "OFF", "reason": "",
        }  # fmt: skip

    def began(self, plan: Plan) -> None:
        """The work of a plan begins."""
        self._activity = ACTIVITIES[plan.kind]
        self._values.update(job=plan.job, round=plan.round_id)

    def ended(self, report: Report) -> None:
        """It is done."""
        self._activity = IDLE
        healthy = report.healthy is not False
        self._values.update(problem="OFF" if healthy else "ON", reason="" if healthy else _short(report.health_reason))
        if report.losses:
            losses = {task: round(loss, 6) for task, loss in report.losses.items()}
            self._values.update(losses=losses, loss=round(sum(losses.values()) / len(losses), 6))
        if report.energy is not None and report.energy.quality != "none":
            spent = sum(report.energy.joules.values()) / JOULES_IN_WH
            self._values.update(
                energy=round((self._values["energy"] or 0.0) + spent, 6),
                energy_source=_short(report.energy.source), energy_quality=report.energy.quality,
            )  # fmt: skip

    def failed(self, reason: str) -> None:
        """It could not be done; an empty reason: the orchestrator wants it no more."""
        self._activity = IDLE
        if reason:
            self._values.update(problem="ON", reason=_short(reason))

    def held_back(self, reason: str) -> None:
        """Why the owner's rules forbid training now; empty if they do not."""
        self._held_back = _short(reason)

    def state(self) -> bytes:
        """The message with the values."""
        state = HELD_BACK if self._held_back and self._activity == IDLE else self._activity
        return msgspec.json.encode({"state": state, "rules": self._held_back, **self._values})

    def config(self) -> bytes:
        """The message that makes Home Assistant show them."""
        identity = f"mas-edge_{self._fleet}_{self._device}"
        return msgspec.json.encode(
            {
                "device": {
                    "identifiers": [identity], "name": self._device, "manufacturer": "mas-edge", "model": self._model,
                    "sw_version": self._runtime,
                },
                "origin": {"name": "mas-edge", "sw_version": self._runtime},
                "availability": [
                    {
                        "topic": Topics(self._fleet).status(self._device),
                        "value_template": "{{ 'online' if value_json.online else 'offline' }}",
                    }
                ],
                "state_topic": self.state_topic,
                "qos": 1,
                "components": {
                    name: {"unique_id": f"{identity}_{name}", **component}
                    for name, component in self._components().items()
                },
            }
        )  # fmt: skip

    def _components(self) -> dict[str, dict[str, Any]]:
        numbers = {"platform": "sensor", "state_class": "measurement"}
        return {
            "training": {
                "platform": "sensor", "name": "Training", "icon": "mdi:school", "device_class": "enum",
                "options": [IDLE, *ACTIVITIES.values(), HELD_BACK], **_value("state"), **self._more("rules"),
            },
            "round": {
                "platform": "sensor", "name": "Round", "icon": "mdi:counter", **_value("round"), **self._more("job"),
            },
            "loss": {
                **numbers, "name": "Last loss", "icon": "mdi:chart-line", "suggested_display_precision": 4,
                **_value("loss"), **self._more("losses"),
            },
            # Since this process began; Home Assistant counts on when it begins anew.
            "energy": {
                **numbers, "name": "Energy", "device_class": "energy", "state_class": "total_increasing",
                "unit_of_measurement": "Wh", "suggested_display_precision": 3, **_value("energy"),
                **self._more("energy_source", "energy_quality"),
            },
            "problem": {
                "platform": "binary_sensor", "name": "Problem", "device_class": "problem",
                "entity_category": "diagnostic", **_value("problem"), **self._more("reason"),
            },
        }  # fmt: skip

    def _more(self, *names: str) -> dict[str, str]:
        """What is shown when somebody looks closer."""
        fields = ", ".join(f"'{name}': value_json.{name}" for name in names)
        template = f"{{{{ {{{fields}}} | tojson }}}}"
        return {"json_attributes_topic": self.state_topic, "json_attributes_template": template}


def _value(name: str) -> dict[str, str]:
    return {"value_template": f"{{{{ value_json.{name} }}}}"}


def _short(text: str) -> str:
    return text[:MAX_REASON].encode("utf-8", "replace").decode()
