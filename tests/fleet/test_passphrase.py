"""The authority's key behind a passphrase: who has the folder alone can neither let devices in nor shut them out."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mas_edge.cli import main
from mas_edge.cli.passphrase import PASSPHRASE, PASSPHRASE_FILE
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.protocol.errors import ServerError
from tests.fleet.members import ask, enrol

INIT = ["fleet", "init", "--host", "127.0.0.1", "--passphrase"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert main([*INIT, str(tmp_path / "fleet")]) == 0
    return tmp_path / "fleet"


def locked(folder: Path, phrase: bytes = b"") -> Fleet:
    return Fleet(folder, time.time, lambda _: phrase)


def test_the_key_is_encrypted_on_disk_and_opens_with_its_passphrase(folder: Path) -> None:
    assert (folder / "ca.key").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    fleet = locked(folder, b"correct horse")
    _, certificate = enrol(Enrolment(fleet), "pi-1")
    certificate.verify_directly_issued_by(fleet.certificate)


@pytest.mark.parametrize("phrase", [b"", b"wrong"])
def test_without_the_passphrase_nobody_gets_in_or_out(folder: Path, phrase: bytes) -> None:
    enrol(Enrolment(locked(folder, b"correct horse")), "pi-1")
    rules = Enrolment(locked(folder, phrase))
    words = "its passphrase is another one, or was not given"
    invitation = rules.invite("pi-2")  # a token is worth nothing until a server that has the passphrase takes it
    from device_runtime import keys

    with pytest.raises(ServerError, match=words):
        ask(rules, invitation, keys.new_key())
    with pytest.raises(ServerError, match=words):
        rules.revoke("pi-1")
    assert {member.name: member.state for member in rules.members()} == {"pi-1": "enrolled", "pi-2": "invited"}


def test_a_service_takes_the_passphrase_from_a_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    enrol(Enrolment(locked(folder, b"correct horse")), "pi-1")
    monkeypatch.delenv(PASSPHRASE)
    monkeypatch.setenv(PASSPHRASE_FILE, str(tmp_path / "phrase"))
    assert main(["fleet", "revoke", str(folder), "pi-1"]) == ServerError.exit_code
    (tmp_path / "phrase").write_text("correct horse\n", encoding="utf-8")
    assert main(["fleet", "revoke", str(folder), "pi-1"]) == 0
    said = capsys.readouterr()
    assert "cannot be read" in said.err
    assert "correct horse" not in said.out + said.err


def test_a_folder_of_before_opens_as_ever_says_so_and_can_be_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "fleet"
    assert main(["fleet", "init", str(folder), "--host", "127.0.0.1"]) == 0
    assert main(["fleet", "list", str(folder)]) == 0
    assert "warning: ca.key is not encrypted" in capsys.readouterr().err
    monkeypatch.setenv(PASSPHRASE, "later")
    assert main(["fleet", "passphrase", str(folder)]) == 0
    assert main(["fleet", "list", str(folder)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert locked(folder, b"later").authority.certificate == locked(folder).certificate


def test_the_terminal_is_asked_twice_for_a_new_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter(["one", "two", "one", "one"])
    monkeypatch.setattr("getpass.getpass", lambda _: next(typed))
    assert main([*INIT, str(tmp_path / "fleet")]) == ServerError.exit_code
    assert not (tmp_path / "fleet" / "ca.key").exists()
    assert main([*INIT, str(tmp_path / "fleet")]) == 0
    assert locked(tmp_path / "fleet", b"one").authority is not None
