"""The places of a deployed model: what a power cut, a damaged disk and a bad model may do to them, and what not."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runtime.slots import MAX_REFUSED, MAX_STARTS, Slots, models_in_use
from mas_edge.protocol.errors import DeviceError


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


class Place:
    """A group's places, and models that come to it."""

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "deployed" / "group-0"
        self._source = directory / "artifact"

    @property
    def slots(self) -> Slots:
        """As a new process finds them, before it puts them in order."""
        return Slots(self.folder)

    def recovered(self) -> Slots:
        slots = self.slots
        slots.recover()
        return slots

    def on_trial(self, data: bytes, suffix: str = "onnx") -> Slots:
        self._source.write_bytes(data)
        slots = self.slots
        slots.put_on_trial(self._source, suffix, digest(data))
        return slots

    def commit(self, data: bytes, suffix: str = "onnx") -> Slots:
        slots = self.on_trial(data, suffix)
        assert slots.begin()
        slots.commit()
        return slots

    def in_use(self) -> bytes:
        """What another program on the device opens."""
        [path] = self.folder.glob("active.*")
        return path.read_bytes()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name != "slots.json")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_nothing_is_in_use_before_a_model_has_passed(place: Place) -> None:
    slots = place.slots
    assert (slots.active, slots.digest, slots.good) == (None, "", "")
    slots.recover()
    assert not place.folder.exists()
    assert place.on_trial(b"one").active is None
    assert place.names() == ["trial.onnx"]


def test_a_model_that_passes_is_in_use_and_the_one_before_is_kept(place: Place) -> None:
    place.commit(b"one")
    assert place.names() == ["active.onnx"]
    slots = place.commit(b"two")
    assert (place.in_use(), slots.digest, slots.good) == (b"two", digest(b"two"), digest(b"one"))
    assert (place.folder / "good.onnx").read_bytes() == b"one"
    slots = place.commit(b"three")
    assert place.names() == ["active.onnx", "good.onnx"]
    assert (place.folder / "good.onnx").read_bytes() == b"two"


def test_a_model_of_another_format_leaves_no_second_one_in_use(place: Place) -> None:
    for suffix in ("onnx", "pte", "tflite", "onnx"):
        slots = place.commit(suffix.encode() + b" model", suffix)
        assert slots.active == place.folder / f"active.{suffix}"
        assert place.in_use() == suffix.encode() + b" model"


def test_a_rollback_leads_to_the_last_good_model_once(place: Place) -> None:
    place.commit(b"one", "pte")
    slots = place.commit(b"two")
    assert slots.roll_back()
    assert (place.in_use(), place.names()) == (b"one", ["active.pte"])
    assert not slots.roll_back()
    assert place.in_use() == b"one"


def test_the_last_good_model_can_be_deployed_again(place: Place) -> None:
    place.commit(b"one")
    place.commit(b"two")
    slots = place.commit(b"one")
    assert (place.in_use(), slots.good) == (b"one", digest(b"two"))
    assert (place.folder / "good.onnx").read_bytes() == b"two"


def test_a_refused_model_leaves_the_model_in_use_and_is_remembered_with_its_reason(place: Place) -> None:
    place.commit(b"good")
    place.on_trial(b"bad").refuse(digest(b"bad"), "it is wrong by 3")
    assert (place.in_use(), place.names()) == (b"good", ["active.onnx"])
    assert place.recovered().refusal(digest(b"bad")) == "it is wrong by 3"
    assert place.recovered().refusal(digest(b"good")) == ""


def test_the_list_of_refused_models_is_bounded_and_loses_the_oldest(place: Place) -> None:
    slots = place.commit(b"good")
    for number in range(MAX_REFUSED + 3):
        slots.refuse(f"{number:064d}", "bad")
    kept = [number for number in range(MAX_REFUSED + 3) if slots.refusal(f"{number:064d}")]
    assert kept == list(range(3, MAX_REFUSED + 3))


def test_a_trial_without_a_verdict_may_be_repeated(place: Place) -> None:
    slots = place.on_trial(b"one")
    slots.withdraw_trial()
    assert (place.names(), slots.refusal(digest(b"one"))) == ([], "")
    assert place.commit(b"one").digest == digest(b"one")


def test_a_model_that_no_process_survives_is_refused_at_its_third_start_and_not_used(place: Place) -> None:
    place.commit(b"good")
    for _ in range(MAX_STARTS):
        place.recovered()
        assert place.on_trial(b"deadly").begin()  # and the process dies of it
    assert place.recovered().digest == digest(b"good")
    assert not place.on_trial(b"deadly").begin()
    assert "each time the device did not survive" in place.recovered().refusal(digest(b"deadly"))
    assert place.in_use() == b"good"


def test_the_starts_of_one_model_do_not_count_for_another(place: Place) -> None:
    for data in (b"one", b"two", b"one"):
        for _ in range(MAX_STARTS):
            assert place.on_trial(data).begin()


@pytest.mark.parametrize("role", ["active", "good", "trial"])
@pytest.mark.parametrize("damage", [b"", b"bits have rotted", None])
def test_a_damaged_model_has_no_place_any_more(place: Place, role: str, damage: bytes | None) -> None:
    for data in (b"one", b"two"):
        place.commit(data)
    place.on_trial(b"three")
    path = place.folder / f"{role}.onnx"
    path.unlink()
    if damage is not None:
        path.write_bytes(damage)
    slots = place.recovered()
    assert slots.digest == digest(b"one" if role == "active" else b"two")
    assert place.in_use() == (b"one" if role == "active" else b"two")
    assert slots.good == ("" if role in ("active", "good") else digest(b"one"))
    assert slots.roll_back() is (role == "trial")


def test_when_both_models_are_damaged_there_is_none_until_one_comes(place: Place) -> None:
    for data in (b"one", b"two"):
        place.commit(data)
    for path in place.folder.glob("*.onnx"):
        path.write_bytes(b"rotten")
    slots = place.recovered()
    assert (slots.active, slots.digest, place.names()) == (None, "", [])
    assert place.commit(b"two").digest == digest(b"two")


def test_a_trial_that_the_disk_damaged_is_not_put_in_use(place: Place) -> None:
    place.commit(b"good")
    slots = place.on_trial(b"new")
    (place.folder / "trial.onnx").write_bytes(b"rotten")
    with pytest.raises(DeviceError, match="damaged on its way into its slot"):
        slots.commit()
    assert (place.in_use(), place.recovered().digest) == (b"good", digest(b"good"))


def test_a_model_in_use_that_is_damaged_does_not_become_the_last_good_one(place: Place) -> None:
    place.commit(b"one")
    place.commit(b"two")
    slots = place.on_trial(b"three")
    (place.folder / "active.onnx").write_bytes(b"rotten")
    slots.commit()
    assert slots.good == digest(b"one")
    assert slots.roll_back()
    assert place.in_use() == b"one"


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 100, b"[]", b'{"active": 7}', None])
def test_without_its_record_the_model_that_is_there_is_taken_for_good(place: Place, damage: bytes | None) -> None:
    place.commit(b"one", "pte")
    record = place.folder / "slots.json"
    record.unlink()
    if damage is not None:
        record.write_bytes(damage)
    slots = place.recovered()
    assert (slots.digest, place.in_use()) == (digest(b"one"), b"one")
    assert json.loads(record.read_bytes())["active"]["digest"] == digest(b"one")


def test_a_disk_without_hard_links_gets_copies(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr("os.link", refuse)
    place.commit(b"one")
    slots = place.commit(b"two")
    assert (place.in_use(), (place.folder / "good.onnx").read_bytes()) == (b"two", b"one")
    assert slots.roll_back()
    assert place.in_use() == b"one"


def test_an_unreadable_model_is_not_taken_for_a_damaged_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = place.commit(b"one")

    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(DeviceError, match="no permission"):
            slots.recover()
    assert place.recovered().digest == digest(b"one")


def test_every_group_says_which_model_is_in_use(place: Place, tmp_path: Path) -> None:
    place.commit(b"one")
    place.folder.rename(place.folder.with_name("group-1"))
    place.on_trial(b"two")
    assert models_in_use(tmp_path / "deployed") == {"group-1": digest(b"one")}
    assert models_in_use(tmp_path / "nowhere") == {}


WAYS = st.lists(
    st.tuples(
        st.sampled_from(["commit", "refuse", "trial", "withdraw", "roll back", "recover"]),
        st.sampled_from([b"one", b"two", b"three"]),
        st.sampled_from(["onnx", "pte"]),
    ),
    max_size=12,
)


@settings(max_examples=20, deadline=None)  # each syncs the disk a hundred times
@given(WAYS)
def test_whatever_comes_in_whatever_order_the_files_are_what_the_record_says(
    tmp_path_factory: pytest.TempPathFactory, ways: list[tuple[str, bytes, str]]
) -> None:
    place = Place(tmp_path_factory.mktemp("way"))
    expected: list[bytes] = []  # the good ones, the newest last
    for way, data, suffix in ways:
        slots = place.recovered()
        if way == "commit" and slots.digest != digest(data):
            place.commit(data, suffix)
            expected = [*expected[-1:], data]
        elif way == "refuse":
            place.on_trial(data, suffix).refuse(digest(data), "bad")
        elif way == "trial":
            place.on_trial(data, suffix)
        elif way == "withdraw":
            place.on_trial(data, suffix).withdraw_trial()
        elif way == "roll back":
            assert slots.roll_back() is (len(expected) > 1)
            expected = expected[:1]
    slots = place.recovered()
    assert slots.digest == (digest(expected[-1]) if expected else "")
    assert slots.good == (digest(expected[0]) if len(expected) > 1 else "")
    if expected:
        assert place.in_use() == expected[-1]
