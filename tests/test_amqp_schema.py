"""What can be asked over AMQP, as it was reviewed.

    .venv/bin/python tests/test_amqp_schema.py

writes the files again: look at the difference, there must be additions only.
"""

import json
from pathlib import Path

import pytest

from libmh.providers import shipped_interfaces
from libmh.spec import Interface, Kind
from mh_amqp.main import main
from mh_amqp.schema import schema

GOLDEN = Path(__file__).parent / "golden/amqp"


def golden(declared: Interface) -> Path:
    return GOLDEN / f"{declared.name}.json"


@pytest.mark.parametrize("declared", shipped_interfaces(), ids=lambda declared: declared.short)
def test_the_surface_is_the_reviewed_one(declared: Interface) -> None:
    assert golden(declared).read_text("utf-8") == schema([declared]), (
        f"write it again with: python {Path(__file__).name}, then review the difference"
    )


def test_every_member_is_shown() -> None:
    shown = json.loads(schema(shipped_interfaces()))
    for declared in shipped_interfaces():
        surface = shown[declared.name]
        assert set(surface["attributes"]) == {member.name for member in declared.of(Kind.PROPERTY)}
        assert set(surface["operations"]) == {member.name for member in declared.of(Kind.METHOD)}
        assert len(surface["events"]) == len(declared.of(Kind.EVENT))


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-schema", "Host"]) == 0
    host = next(each for each in shipped_interfaces() if each.short == "Host")
    assert capsys.readouterr().out == golden(host).read_text("utf-8")


if __name__ == "__main__":
    for each in shipped_interfaces():
        golden(each).write_text(schema([each]), "utf-8")
