"""Keyholders, thresholds, rotation and recovery, as the keyholders and then a device see them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from mas_edge.fleet import folder
from mas_edge.fleet.signing import ceremony
from mas_edge.fleet.signing.keys import read_key, read_keys
from mas_edge.fleet.signing.repository import Repository
from mas_edge.protocol.errors import ServerError
from tests.fleet.signing.world import BEGIN, DAY, TRAIN, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def believes(world: World) -> bool:
    """The device takes the newest metadata and a plan."""
    world.tell()
    return world.device.open(world.seal()) is not None


def test_a_device_that_was_handed_the_first_root_takes_plans(world: World) -> None:
    assert believes(world)


def test_keys_are_for_the_owner_alone_and_metadata_for_everybody(world: World) -> None:
    signing = world.repository.folder
    keys = [*world.offline.glob("*"), *(signing / "online").glob("*")]
    assert len(keys) == 5
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (world.offline, signing / "online")} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in (signing / "metadata").glob("*")} == {0o644}


@pytest.mark.parametrize(("keyholders", "threshold"), [(3, 4), (2, 0), (0, 0)])
def test_numbers_that_could_never_sign_are_refused(tmp_path: Path, keyholders: int, threshold: int) -> None:
    with pytest.raises(ServerError, match="cannot sign"):
        ceremony.create(tmp_path / "signing", tmp_path / "keys", keyholders, threshold)
    assert not (tmp_path / "keys").exists()


def test_a_repository_is_never_written_over(world: World) -> None:
    with pytest.raises(ServerError, match="already"):
        ceremony.create(world.repository.folder, world.directory / "other", 3, 2)


def test_a_folder_without_a_repository_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="mas-edge sign init"):
        Repository(tmp_path)


def test_keyholders_sign_one_by_one_and_nothing_holds_before_enough_have(world: World) -> None:
    ceremony.renew(world.repository)
    assert ceremony.approve(world.repository, world.keyholders(2)) == (
        "1 more signature needed, of keyholder-1, keyholder-3"
    )
    assert ceremony.approve(world.repository, world.keyholders(2)) != "", "twice the same one are not two"
    assert world.repository.root.signed.version == 1
    assert ceremony.approve(world.repository, world.keyholders(3)) == ""
    assert world.repository.root.signed.version == world.repository.targets.signed.version == 2
    assert not ceremony.is_staged(world.repository)
    assert believes(world)


def test_a_strangers_key_has_no_say(world: World) -> None:
    world.another()
    ceremony.renew(world.repository)
    with pytest.raises(ServerError, match="no keyholder"):
        ceremony.approve(world.repository, read_keys(world.directory / "evil-keys"))


def test_a_second_ceremony_waits_for_the_first(world: World) -> None:
    ceremony.renew(world.repository)
    with pytest.raises(ServerError, match="something else waits"):
        ceremony.rotate_online(world.repository)


def test_renewed_signatures_last_another_year(world: World) -> None:
    world.now = BEGIN + 320 * DAY
    world.publisher = world.start()
    assert "keyholders' signatures end" in world.publisher.notice
    ceremony.renew(world.repository)
    world.approve()
    world.now = BEGIN + 500 * DAY
    world.publisher = world.start()
    assert world.publisher.notice == ""
    assert believes(world)


def test_lost_online_keys_are_replaced_by_the_keyholders(world: World) -> None:
    assert believes(world)
    for path in (world.repository.folder / "online").glob("*"):
        path.unlink()
    with pytest.raises(ServerError, match="mas-edge sign rotate"):
        world.start()
    world.rotate()
    assert believes(world)


def _spoil(world: World, how: str) -> None:
    """Make the key of the list useless."""
    path = world.repository.folder / "online" / "models.pem"
    if how == "lost":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    else:  # somebody has copied back what was replaced
        old = path.read_bytes()
        world.rotate()
        path.write_bytes(old)


@pytest.mark.parametrize("how", ["lost", "damaged", "restored from before a rotation"])
def test_nothing_is_signed_that_no_device_would_believe_and_new_online_keys_mend_it(world: World, how: str) -> None:
    _spoil(world, how)
    before = {path.name: path.read_bytes() for path in world.repository.file("").iterdir()}
    for stage in (
        lambda: ceremony.renew(world.repository),
        lambda: ceremony.replace_keyholder(world.repository, "keyholder-1", world.directory / "new.pem"),
        world.start,
    ):
        with pytest.raises(ServerError, match=r"models\.pem.*mas-edge sign rotate"):
            stage()
    assert not ceremony.is_staged(world.repository) and not (world.directory / "new.pem").exists()
    assert {path.name: path.read_bytes() for path in world.repository.file("").iterdir()} == before
    world.rotate()
    assert believes(world)


@pytest.mark.parametrize("how", ["lost", "damaged"])
def test_what_was_signed_by_all_is_not_half_published_when_an_online_key_is_lost_meanwhile(
    world: World, how: str
) -> None:
    ceremony.renew(world.repository)
    ceremony.approve(world.repository, world.keyholders(1))
    _spoil(world, how)
    with pytest.raises(ServerError, match=r"staged, then mas-edge sign rotate"):
        ceremony.approve(world.repository, world.keyholders(2))
    assert world.repository.root.signed.version == 1
    shutil.rmtree(world.repository.folder / "staged")
    world.rotate()
    assert believes(world)


def test_no_two_keyholders_have_one_name(world: World) -> None:
    with pytest.raises(ServerError, match="another keyholder is called keyholder-1"):
        ceremony.replace_keyholder(world.repository, "keyholder-2", world.directory / "keyholder-1.pem")
    ceremony.replace_keyholder(world.repository, "keyholder-2", world.directory / "keyholder-2.pem")
    world.approve()
    assert sorted(ceremony.keyholders(world.repository.root.signed).values()) == [
        "keyholder-1", "keyholder-2", "keyholder-3",
    ]  # fmt: skip


def test_a_repository_that_could_not_be_made_is_made_at_the_next_attempt(tmp_path: Path) -> None:
    offline = tmp_path / "keys"
    offline.mkdir()
    (offline / "keyholder-2.pem").write_text("somebody's key")
    with pytest.raises(ServerError, match=r"keyholder-2\.pem exists"):
        ceremony.create(tmp_path / "signing", offline, 3, 2)
    assert [path.name for path in offline.iterdir()] == ["keyholder-2.pem"]
    ceremony.create(tmp_path / "signing", tmp_path / "others", 3, 2)


def test_a_directory_for_keys_that_others_use_is_not_closed_to_them(tmp_path: Path) -> None:
    used, empty = tmp_path / "used", tmp_path / "empty"
    for place in (used, empty):
        place.mkdir()
        place.chmod(0o755)
    (used / "letter.txt").touch()
    for number, offline in enumerate((used, empty)):
        ceremony.create(tmp_path / f"signing-{number}", offline, 1, 1)
        assert (offline / "keyholder-1.pem").stat().st_mode & 0o777 == 0o600
    assert [offline.stat().st_mode & 0o777 for offline in (used, empty)] == [0o755, 0o700]


def test_an_init_that_was_cut_off_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "signing" / "metadata").mkdir(parents=True)
    with pytest.raises(ServerError, match=r"holds no root.*delete the directory"):
        ceremony.create(tmp_path / "signing", tmp_path / "keys", 3, 2)


def test_new_online_keys_begin_with_an_empty_list(world: World) -> None:
    world.publish()
    world.rotate()
    assert world.repository.models.signed.targets == {}
    assert believes(world)


def test_online_keys_may_change_while_an_orchestrator_runs(world: World) -> None:
    assert believes(world)
    ceremony.rotate_online(world.repository)
    world.approve()
    assert believes(world)


@pytest.mark.parametrize("name", ["keyholder-1", "keyholder-3"])
def test_a_keyholder_is_replaced_by_the_others(world: World, name: str) -> None:
    assert believes(world)
    old = read_key(world.offline / f"{name}.pem").public_key.keyid
    ceremony.replace_keyholder(world.repository, name, world.directory / "new.pem")
    (world.offline / f"{name}.pem").unlink()
    assert ceremony.approve(world.repository, read_keys(world.offline)) == ""
    assert old not in world.repository.root.signed.keys
    assert "new" in ceremony.keyholders(world.repository.root.signed).values()
    assert believes(world)
    ceremony.renew(world.repository)
    signers = [read_key(world.directory / "new.pem"), *world.keyholders(2)]
    assert ceremony.approve(world.repository, signers) == ""
    assert believes(world)


def test_a_name_that_is_no_keyholders_names_those_there_are(world: World) -> None:
    with pytest.raises(ServerError, match="keyholder-1, keyholder-2, keyholder-3"):
        ceremony.replace_keyholder(world.repository, "bob", world.directory / "new.pem")


def test_a_device_that_slept_through_many_ceremonies_catches_up(world: World) -> None:
    for number in range(1, 4):
        ceremony.rotate_online(world.repository)
        world.approve()
        ceremony.replace_keyholder(world.repository, f"keyholder-{number}", world.offline / f"later-{number}.pem")
        world.approve()
        (world.offline / f"keyholder-{number}.pem").unlink()
    world.publisher = world.start()
    assert world.repository.root.signed.version == 7
    assert believes(world)


@pytest.mark.parametrize("done", ["nothing", "the targets", "the root", "the keys"])
def test_a_ceremony_that_was_cut_off_is_ended_by_the_next_start(
    world: World, monkeypatch: pytest.MonkeyPatch, done: str
) -> None:
    assert believes(world)
    ceremony.rotate_online(world.repository)
    writes = {"nothing": 0, "the targets": 1, "the root": 2, "the keys": 4}[done]

    class CutOffError(Exception):
        pass

    def fail_after(*_: object) -> None:
        nonlocal writes
        writes -= 1
        if writes < 0:
            raise CutOffError

    original = Repository.write

    def write(self: Repository, name: str, data: bytes) -> None:
        fail_after()
        original(self, name, data)

    def write_private(path: Path, data: bytes) -> None:
        if "online" in path.parts:
            fail_after()
        folder.write_private(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Repository, "write", write)
        patched.setattr(ceremony, "write_private", write_private)
        with pytest.raises(CutOffError):
            ceremony.approve(world.repository, read_keys(world.offline))
    world.publisher = world.start()
    assert not ceremony.is_staged(world.repository)
    assert world.repository.root.signed.version == 2
    assert believes(world)


def test_a_damaged_repository_is_told_from_a_missing_one(world: World) -> None:
    world.repository.file("timestamp.json").write_bytes(b"{")
    with pytest.raises(ServerError, match="damaged"):
        world.start()


def test_a_later_run_of_an_orchestrator_has_a_greater_number_even_with_the_clock_behind(world: World) -> None:
    lives = [world.repository.begin_life()]
    world.now -= 1000 * DAY
    lives.append(world.repository.begin_life())
    (world.repository.folder / "life").unlink()
    world.now += 2000 * DAY
    lives.append(world.repository.begin_life())
    assert lives == sorted(set(lives))


def test_the_list_keeps_the_last_runs(world: World) -> None:
    for run in range(12):
        world.now += 60
        world.publish(replace(TRAIN, job=f"run-{run}"))
        world.publisher = world.start()  # the next run is another process
    listed = {name.split("/")[1] for name in world.repository.models.signed.targets}
    assert listed == {f"run-{run}" for run in range(4, 12)}
    assert believes(world)


def test_old_lists_leave_the_disk(world: World) -> None:
    for run in range(12):
        world.publish(replace(TRAIN, job=f"run-{run}"))
    names = [path.name for path in (world.repository.folder / "metadata").iterdir()]
    assert len(names) == len(set(names)) < 9, names
