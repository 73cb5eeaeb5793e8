"""The topics of a fleet and the names that may stand in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.topics import NAME, Topics, check_name

TOPICS = Topics("home")
names = st.from_regex(NAME, fullmatch=True)


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        (TOPICS.birth("pi-1"), "fl/v1/home/dev/pi-1/birth"),
        (TOPICS.status("pi-1"), "fl/v1/home/dev/pi-1/status"),
        (TOPICS.command("pi-1"), "fl/v1/home/dev/pi-1/cmd"),
        (TOPICS.response("pi-1"), "fl/v1/home/dev/pi-1/rsp"),
        (TOPICS.chunk("pi-1"), "fl/v1/home/dev/pi-1/chunk"),
        (TOPICS.upload("pi-1"), "fl/v1/home/dev/pi-1/up"),
        (TOPICS.command_all, "fl/v1/home/all/cmd"),
        (TOPICS.broadcast("ab" * 32), "fl/v1/home/all/chunk/" + "ab" * 16),
        (TOPICS.orchestrator, "fl/v1/home/agg/state"),
        (TOPICS.every("rsp"), "fl/v1/home/dev/+/rsp"),
    ],
)
def test_the_topics_are_those_of_the_contract(topic: str, expected: str) -> None:
    assert topic == expected


@given(names, names)
def test_the_sender_of_a_device_topic_is_read_back(fleet: str, device: str) -> None:
    topics = Topics(fleet)
    assert topics.sender(topics.response(device)) == (device, "rsp")
    assert topics.sender(topics.upload(device)) == (device, "up")


NAME_FAULTS = {
    "empty": "",
    "65 characters": "a" * 65,
    "a level of its own": "a/b",
    "one-level wildcard": "+",
    "all-level wildcard": "#",
    "broker's own topics": "$SYS",
    "leading dot": ".hidden",
    "parent folder": "..",
    "space": "a b",
    "line break at the end": "a\n",
    "nul": "a\0",
    "letter outside ASCII": "gerät",
    "digit outside ASCII": "\u0663",
}


@pytest.mark.parametrize("fault", NAME_FAULTS)
def test_a_name_that_could_leave_its_topic_or_folder_is_refused(fault: str) -> None:
    name = NAME_FAULTS[fault]
    for use in (lambda: check_name(name, "device"), lambda: TOPICS.birth(name), lambda: Topics(name)):
        with pytest.raises(MessageError, match="not a valid name"):
            use()


TOPIC_FAULTS = {
    "empty": "",
    "another fleet": "fl/v1/other/dev/pi-1/rsp",
    "another version": "fl/v2/home/dev/pi-1/rsp",
    "no leaf": "fl/v1/home/dev/pi-1",
    "a level too many": "fl/v1/home/dev/pi-1/rsp/more",
    "not a device's": "fl/v1/home/all/cmd",
    "no device": "fl/v1/home/dev//rsp",
    "a wildcard for the device": "fl/v1/home/dev/+/rsp",
}


@pytest.mark.parametrize("fault", TOPIC_FAULTS)
def test_a_topic_that_is_not_a_device_topic_of_the_fleet_has_no_sender(fault: str) -> None:
    with pytest.raises(MessageError):
        TOPICS.sender(TOPIC_FAULTS[fault])


@given(st.text(max_size=30))
def test_any_topic_has_a_valid_sender_or_is_refused(rest: str) -> None:
    try:
        device, _ = TOPICS.sender("fl/v1/home/dev/" + rest)
    except MessageError:
        return
    assert NAME.fullmatch(device)
