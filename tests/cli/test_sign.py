"""``mas-edge sign`` and ``mas-edge-device run --trust``, as people type them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import device_runtime.cli
import mas_edge.cli
from device_runtime.trust import anchor
from mas_edge.protocol.errors import DeviceError, ServerError


def sign(*words: object) -> int:
    return mas_edge.cli.main(["sign", *map(str, words)])


@pytest.fixture
def signing(tmp_path: Path) -> Path:
    assert sign("init", tmp_path / "signing", "--offline", tmp_path / "keys", "--json") == 0
    return tmp_path / "signing"


def test_the_way_from_init_to_a_new_keyholder(
    signing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    assert sign("rotate", signing, "--offline", keys / "keyholder-1.pem") == 0
    assert "1 more signature needed, of keyholder-2, keyholder-3" in capsys.readouterr().out
    assert sign("status", signing, "--quiet") == 0
    assert capsys.readouterr().out.startswith("waits: 1 more signature")
    assert sign("approve", signing, "--offline", keys / "keyholder-3.pem") == 0
    assert "published: root version 2" in capsys.readouterr().out
    assert sign("replace", signing, "keyholder-2", tmp_path / "anna", "--offline", keys) == 0
    capsys.readouterr()
    assert sign("renew", signing, "--offline", keys / "keyholder-1.pem", "--json") == 0
    waiting = json.loads(capsys.readouterr().out)
    assert (waiting["roles"]["root"]["version"], "1 more signature" in waiting["waits_for"]) == (3, True)
    assert sign("approve", signing, "--offline", tmp_path / "anna.pem") == 0
    capsys.readouterr()
    assert sign("status", signing) == 0
    shown = capsys.readouterr().out
    assert "2 of anna, keyholder-1, keyholder-3" in shown
    assert "root        version 4" in shown
    assert sign("status", signing, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["keyholders"], found["threshold"]) == (["anna", "keyholder-1", "keyholder-3"], 2)
    assert (found["roles"]["root"]["version"], found["waits_for"]) == (4, "")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["status", "nowhere"], "no signing repository"),
        (["init", "{signing}"], "already"),
        (["init", "other", "--threshold", "4"], "cannot sign"),
        (["approve", "{signing}"], "nothing waits"),
        (["renew", "{signing}", "--offline", "nowhere"], "nowhere cannot be read: No such file or directory"),
        (["renew", "{signing}", "--offline", "{signing}"], "no signing key"),
        (["replace", "{signing}", "bob", "new"], "no keyholder 'bob'"),
    ],
)
def test_a_mistake_is_one_line(
    signing: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], error: str
) -> None:
    monkeypatch.chdir(signing.parent)
    assert sign(*(word.format(signing=signing) for word in words)) == 6
    (line,) = capsys.readouterr().err.splitlines()
    assert error in line


def test_a_key_that_is_no_signing_key_is_refused(signing: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stray = signing / "stray.pem"
    stray.write_bytes(b"-----BEGIN PRIVATE KEY-----\n")
    assert sign("renew", signing, "--offline", stray) == 6
    assert "cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["metadata/1.root.json", "", "metadata"])
def test_a_root_is_found_where_people_point(signing: Path, tmp_path: Path, place: str) -> None:
    anchor.install(tmp_path / "state", anchor.read_root(signing / place))
    assert anchor.has_trust(tmp_path / "state")
    anchor.install(tmp_path / "state", anchor.read_root(signing))  # the same again


def test_another_root_does_not_take_the_place_of_the_first(signing: Path, tmp_path: Path) -> None:
    anchor.install(tmp_path / "state", anchor.read_root(signing))
    assert sign("init", tmp_path / "other", "--keyholders", 1, "--threshold", 1) == 0
    with pytest.raises(DeviceError, match="trusts another root already"):
        anchor.install(tmp_path / "state", anchor.read_root(tmp_path / "other"))


@pytest.mark.parametrize("damage", [b"", b"{}", b"x" * 100_000, b'{"signed": {}, "signatures": []}'])
def test_what_is_no_root_is_not_trusted(signing: Path, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "root.json").write_bytes(damage)
    with pytest.raises(DeviceError, match="root"):
        anchor.install(tmp_path / "state", anchor.read_root(tmp_path / "root.json"))
    assert not anchor.has_trust(tmp_path / "state")


def test_a_root_with_a_changed_byte_is_not_trusted(signing: Path, tmp_path: Path) -> None:
    root = anchor.read_root(signing).replace(b'"threshold":2', b'"threshold":1', 1)
    with pytest.raises(DeviceError, match="no root to trust"):
        anchor.install(tmp_path / "state", root)


def test_a_trust_directory_without_a_root_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "trust").mkdir()
    with pytest.raises(DeviceError, match="--trust"):
        anchor.open_verifier(tmp_path, "home", "pi-1")


@pytest.mark.parametrize("damage", [b"", b"{", b'{"signed": {}, "signatures": []}'])
def test_a_root_that_was_damaged_on_disk_is_told_and_can_be_put_back(
    signing: Path, tmp_path: Path, damage: bytes
) -> None:
    anchor.install(tmp_path / "state", anchor.read_root(signing))
    (tmp_path / "state" / "trust" / "root.json").write_bytes(damage)
    with pytest.raises(DeviceError, match=r"damaged; run with --trust"):
        anchor.open_verifier(tmp_path / "state", "home", "pi-1")
    anchor.install(tmp_path / "state", anchor.read_root(signing))
    assert anchor.open_verifier(tmp_path / "state", "home", "pi-1") is not None


def test_the_device_says_at_once_that_there_is_no_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--name", "pi", "--broker", "mqtt://localhost", "--data", str(tmp_path), "--state", str(tmp_path)]
    assert device_runtime.cli.main([*words, "--trust", str(tmp_path / "nothing")]) == 7
    assert "no root to trust" in capsys.readouterr().err


def test_serve_says_at_once_that_there_is_no_repository(signing: Path, tmp_path: Path) -> None:
    from mas_edge.orchestrator.sealing import open_publisher
    from mas_edge.protocol.errors import ServerError

    shutil.rmtree(signing / "online")
    with pytest.raises(ServerError, match="mas-edge sign rotate"):
        open_publisher(signing)
    with pytest.raises(ServerError, match="mas-edge sign init"):
        open_publisher(tmp_path / "nowhere")


def test_a_key_with_a_passphrase_signs_only_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MAS_EDGE_PASSPHRASE", "correct horse")
    signing, keys = tmp_path / "signing", tmp_path / "keys"
    assert sign("init", signing, "--offline", keys, "--passphrase") == 0
    assert all(b"ENCRYPTED" in path.read_bytes() for path in keys.glob("*.pem"))
    assert not any(b"ENCRYPTED" in path.read_bytes() for path in (signing / "online").glob("*.pem"))  # read unattended
    monkeypatch.setenv("MAS_EDGE_PASSPHRASE", "battery staple")
    assert sign("renew", signing, "--offline", keys) == ServerError.exit_code
    assert "its passphrase is another one, or was not given" in capsys.readouterr().err
    monkeypatch.delenv("MAS_EDGE_PASSPHRASE")
    monkeypatch.setattr("getpass.getpass", lambda _prompt: "correct horse")
    assert sign("renew", signing, "--offline", keys) == 0
    assert "published: root version 2" in capsys.readouterr().out
    words = iter(["one", "another"])
    monkeypatch.setattr("getpass.getpass", lambda _prompt: next(words))
    assert sign("replace", signing, "keyholder-1", tmp_path / "anna", "--passphrase") == ServerError.exit_code
    assert "the passphrases differ" in capsys.readouterr().err
    assert not (tmp_path / "anna.pem").exists()


def test_nothing_is_staged_for_a_key_that_cannot_be_read(signing: Path, tmp_path: Path) -> None:
    assert sign("rotate", signing, "--offline", tmp_path / "nowhere") == 6
    assert sign("rotate", signing, "--offline", tmp_path / "keys") == 0


def test_a_replaced_key_that_lies_beside_the_others_is_passed_over_and_one_that_is_named_is_refused(
    signing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    assert sign("replace", signing, "keyholder-2", keys / "anna", "--offline", keys) == 0
    capsys.readouterr()
    assert sign("replace", signing, "keyholder-3", keys / "eve", "--offline", keys / "keyholder-2.pem") == 6
    assert "no keyholder's key in" in capsys.readouterr().err
    assert not (keys / "eve.pem").exists(), "nothing is made or staged before all keys are known to be good"
    assert sign("renew", signing, "--offline", keys) == 0
    said = capsys.readouterr()
    assert "published: root version 3" in said.out
    assert f"passed over, no keyholder's: keyholder-2 in {keys}" in said.err


def test_the_status_is_shown_when_what_waits_cannot_be_published(
    signing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    assert sign("renew", signing, "--offline", keys / "keyholder-1.pem") == 0
    (signing / "online" / "freshness.pem").unlink()
    assert sign("approve", signing, "--offline", keys / "keyholder-2.pem") == 6
    capsys.readouterr()
    assert sign("status", signing) == 0
    shown = capsys.readouterr().out
    assert "root        version 1" in shown
    assert f"delete {signing / 'staged'}, then mas-edge sign rotate {signing}" in shown
    shutil.rmtree(signing / "staged")
    assert sign("rotate", signing, "--offline", keys) == 0


def test_a_copy_without_online_keys_says_what_to_do_and_gets_new_ones(
    signing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(signing / "online")
    capsys.readouterr()
    assert sign("status", signing, "--quiet") == 0
    assert "to do: mas-edge sign rotate" in (said := capsys.readouterr().out)
    assert "models and freshness" in said
    assert sign("rotate", signing, "--offline", tmp_path / "keys") == 0
    modes = {path.name: path.stat().st_mode & 0o777 for path in (signing / "online").iterdir()}
    assert modes == {"models.pem": 0o600, "freshness.pem": 0o600}
    assert (signing / "online").stat().st_mode & 0o777 == 0o700
    capsys.readouterr()
    assert sign("status", signing, "--quiet") == 0
    assert capsys.readouterr().out == ""
