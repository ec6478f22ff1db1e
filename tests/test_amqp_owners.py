"""Which hosts a login is, and that nobody takes one from another."""

import logging
import os
from pathlib import Path

import pytest

from mh_amqp import owners
from mh_amqp.owners import Owners, declared

ONE, OTHER = "1" * 32, "2" * 32


def test_who_comes_first_keeps_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "LOOK_SECONDS", 0.0)
    found = Owners(tmp_path / "kept")
    assert found.may_be("a", ONE)
    assert not found.is_one("a", ONE)
    found.claim("a", ONE)
    assert found.is_one("a", ONE.upper())
    assert not found.may_be("b", ONE)
    again = Owners(tmp_path / "kept")
    assert not again.may_be("b", ONE)
    assert again.is_one("a", ONE)
    (tmp_path / "kept").unlink()  # an administrator lets go
    assert again.may_be("b", ONE)
    again.claim("b", ONE)
    assert (tmp_path / "kept").read_text() == f"{ONE} b\n"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600


def test_what_is_declared_or_in_the_name_counts_more() -> None:
    found = Owners()
    found.claim("thief", ONE)
    found.declare(declared({"CN=web-?": [ONE, "33333333-3333-3333-3333-333333333333"]}))
    assert found.is_one("CN=web-1", ONE)
    assert found.is_one("CN=web-1", "3" * 32)
    assert not found.may_be("CN=web-1", OTHER)
    assert not found.may_be("thief", ONE)
    named = "UID=22222222-2222-2222-2222-222222222222,CN=x"
    assert found.is_one(named, OTHER)
    assert not found.may_be(named, ONE)


@pytest.mark.parametrize("uuid", ["", "x y", f"x\n{ONE} thief", "x" * 201])
def test_no_name_can_forge_a_line(uuid: str) -> None:
    assert not Owners().may_be("thief", uuid)


@pytest.mark.parametrize("uuid", [ONE, "*", f"x\n{OTHER} thief"])
def test_who_may_all_takes_no_host_from_another(tmp_path: Path, uuid: str) -> None:
    """An operator who looks at what is asked of a host is not that host from then on."""
    found = Owners(tmp_path / "kept")
    found.claim("CN=agent", ONE)
    found.claim("CN=chief", uuid)
    assert found.is_one("CN=agent", ONE)
    assert (tmp_path / "kept").read_text() == f"{ONE} CN=agent\n"


@pytest.mark.parametrize("identity", ["CN=one\\ ", "CN=a\x85b", "CN=a\u2028b"])
def test_any_name_is_read_as_it_was_written(tmp_path: Path, identity: str) -> None:
    Owners(tmp_path / "kept").claim(identity, ONE)
    assert Owners(tmp_path / "kept").is_one(identity, ONE)


def test_a_line_that_a_full_disk_has_cut_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda place, line: write(place, line[:36]))
        Owners(tmp_path / "kept").claim("CN=one", ONE)
    Owners(tmp_path / "kept").claim("CN=other", OTHER)
    assert (tmp_path / "kept").read_text() == f"{OTHER} CN=other\n"


def test_it_is_told_when_no_more_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(owners, "MAX_EACH", 2)
    found = Owners()
    for number in range(5):
        found.claim("CN=one", f"{number:032x}")
    assert [found.is_one("CN=one", f"{number:032x}") for number in range(3)] == [True, True, False]
    assert caplog.text.count("no more is kept") == 1


def test_a_place_that_cannot_be_written_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    found = Owners(tmp_path / "file" / "kept")
    found.claim("a", ONE)
    found.claim("a", OTHER)
    assert found.is_one("a", ONE)
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1
