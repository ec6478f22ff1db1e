"""What is generated from the declaration is kept as it would be generated; what README shows exists."""

import re
import shlex
import subprocess
import sys

import pytest
from click.testing import CliRunner

from libmh.cli.main import mhctl
from source_tree import ROOT

README = (ROOT / "README.md").read_text("utf-8")
PAGES = sorted((ROOT / "packaging/man").glob("man?/*"))


def test_generated_files_are_up_to_date() -> None:
    script = ROOT / "packaging/man/generate.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"run packaging/man/generate.py\n{done.stdout}{done.stderr}"


def test_manual_pages_are_well_formed() -> None:
    assert PAGES
    for page in PAGES:
        text = page.read_text("utf-8")
        assert text.startswith(".TH ")
        for section in ("NAME", "DESCRIPTION"):
            assert f".SH {section}" in text
        for line in text.splitlines():
            requested = line[:1] in (".", "'")
            assert not requested or re.match(r"\.(TH|SH|SS|TP|P|nf|fi)\b", line), f"{page.name}: {line}"


def _shown_commands() -> list[list[str]]:
    shown = [part.partition("#")[0] for line in README.splitlines() for part in line.split(";")]
    words = [shlex.split(part) for part in shown if part.strip().startswith("mhctl ")]
    return [each[1:] for each in words]


@pytest.mark.parametrize("words", _shown_commands(), ids=" ".join)
def test_every_command_that_readme_shows_is_one(words: list[str]) -> None:
    path = [
        word
        for at, word in enumerate(words)
        if not word.startswith("-") and (at == 0 or words[at - 1] not in ("--on", "--where"))
    ]
    asked = path[:2] if path[0] not in ("get", "set", "call", "events", "api") else path[:1]
    result = CliRunner().invoke(mhctl, [*asked, "--help"])
    assert result.exit_code == 0, result.output


def test_readme_shows_the_declared_url_schemes() -> None:
    from libmh.client import TRANSPORTS

    for scheme in ("local", *TRANSPORTS):
        assert f"`{scheme}:" in README
