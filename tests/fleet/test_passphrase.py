"""The authority's key behind a passphrase: who has the folder alone can neither let devices in nor shut them out."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mas_edge.cli import main
from mas_edge.cli.passphrase import PASSPHRASE, PASSPHRASE_FILE
from mas_edge.fleet.enrolment import Enrolment
from mas_edge.fleet.folder import Fleet
from mas_edge.protocol.errors import ServerError
from tests.docs.pages import ROOT
from tests.fleet.members import ask, enrol

INIT = ["fleet", "init", "--host", "127.0.0.1", "--passphrase"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PASSPHRASE, "correct horse")
    assert main([*INIT, str(tmp_path / "fleet")]) == 0
    return tmp_path / "fleet"


def written(place: Path, text: str, mode: int = 0o600) -> Path:
    place.write_bytes(text.encode())
    place.chmod(mode)
    return place


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
    written(tmp_path / "phrase", "correct horse\n")
    assert main(["fleet", "revoke", str(folder), "pi-1"]) == 0
    said = capsys.readouterr()
    assert "cannot be read" in said.err
    assert "correct horse" not in said.out + said.err


def test_automation_needs_neither_terminal_nor_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("getpass.getpass", lambda _: pytest.fail("somebody was asked"))
    folder, phrase = str(tmp_path / "fleet"), ["--passphrase-file", str(written(tmp_path / "phrase", "correct horse"))]
    assert main(["fleet", "init", folder, "--host", "127.0.0.1", *phrase]) == 0
    assert main(["fleet", "invite", folder, "pi-1", "--no-qr", *phrase]) == 0
    new = written(tmp_path / "new", "battery staple\r\n")
    assert main(["fleet", "passphrase", folder, *phrase, "--new-passphrase-file", str(new)]) == 0
    assert main(["fleet", "revoke", folder, "pi-1", *phrase]) == ServerError.exit_code
    assert "passphrase is another one" in capsys.readouterr().err
    reading, writing = os.pipe()
    os.write(writing, b"battery staple\n")
    os.close(writing)
    assert main(["fleet", "revoke", folder, "pi-1", "--passphrase-file", f"/dev/fd/{reading}"]) == 0
    os.close(reading)
    assert locked(tmp_path / "fleet", b"battery staple").authority is not None


NO_PASSPHRASES = {
    "readable by the group": ("correct horse", 0o640, "has mode 0640, others may read the passphrase: chmod 600"),
    "readable by all": ("correct horse", 0o604, "has mode 0604"),
    "empty": ("\n", 0o600, "is empty; expected a passphrase"),
    "two lines": ("correct horse\nbattery staple\n", 0o600, "more than one line or 1024 bytes"),
    "too long": ("x" * 1025, 0o600, "more than one line or 1024 bytes"),
}


@pytest.mark.parametrize("case", NO_PASSPHRASES)
def test_a_file_that_is_no_private_passphrase_is_refused_and_not_quoted(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, mode, words = NO_PASSPHRASES[case]
    place = written(tmp_path / "phrase", text, mode)
    init = ["fleet", "init", str(tmp_path / "fleet"), "--host", "127.0.0.1", "--passphrase-file", str(place)]
    assert main(init) == ServerError.exit_code
    said = capsys.readouterr()
    assert words in said.err
    assert "horse" not in said.out + said.err
    assert not (tmp_path / "fleet").exists()


def test_systemd_may_let_a_services_user_read_its_credentials_by_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    (tmp_path / "credentials").mkdir()
    place = written(tmp_path / "credentials" / "fleet", "correct horse", 0o440)
    init = ["fleet", "init", str(tmp_path / "fleet"), "--host", "127.0.0.1", "--passphrase-file", str(place)]
    assert main(init) == 0


def test_an_init_that_was_interrupted_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init = ["fleet", "init", str(tmp_path / "fleet"), "--host", "127.0.0.1"]
    assert main(init) == 0
    (tmp_path / "fleet" / "fleet.json").unlink()
    assert main(init) == ServerError.exit_code
    assert "if no device has ever joined, delete the directory" in capsys.readouterr().err


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


def test_without_a_terminal_nothing_is_read_that_would_be_seen_and_it_says_what_to_do(folder: Path) -> None:
    command = [sys.executable, "-m", "mas_edge", "fleet", "revoke", str(folder), "pi-1"]
    environment = {name: value for name, value in os.environ.items() if name != PASSPHRASE}
    asked = subprocess.run(
        command, env=environment, cwd=ROOT, input="correct horse\n", capture_output=True, text=True, check=False,
        start_new_session=True,
    )  # fmt: skip
    assert asked.returncode == ServerError.exit_code
    assert asked.stderr.startswith("error: a passphrase is needed: type it at a terminal, or give --passphrase-file")
    assert len(asked.stderr.splitlines()) == 1
