"""The command `mh-conductor`: what it refuses, and that a stop is orderly."""

import signal
from importlib.resources import files
from pathlib import Path

import pytest

import fleet
from mh_conductor.main import main
from processes import agent, mhctl
from waiting import wait_for

NOWHERE = "amqp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "mh-conductor: --broker is missing: expected amqp://host:port"),
        (("--broker", "http://x"), "'http://x' is not the URL of a broker"),
        (("--broker", NOWHERE, "--store", "mysql://h/d"), "expected sqlite:///PATH"),
        (("--broker", NOWHERE, "--store", "sqlite:////proc/no/c.db"), "cannot make the directory"),
        (("--broker", NOWHERE, "--rules", "/nowhere.toml"), "cannot read the rules in '/nowhere.toml'"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    options: tuple[str, ...], says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*options, "--state", str(tmp_path)]) == 1
    said = capfd.readouterr()
    assert says in said.err
    assert said.out == ""


def test_every_fault_of_the_rules_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('[[rule]]\nname = "a"\nbad = 1\n')
    assert main(["--broker", NOWHERE, "--state", str(tmp_path), "--rules", str(rules)]) == 1
    said = capfd.readouterr().err
    assert f"{rules}:3: unknown key 'bad'" in said
    assert f"{rules}:1: 'aggregate' is missing" in said


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert all(
        option in shown
        for option in ("--broker", "--store", "--rules", "--state", "--config", "--log-level")
    )


def test_it_is_told_to_stop_and_stops_in_time(tmp_path: Path) -> None:
    config = tmp_path / "conductor.toml"
    with agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(tmp_path / "broker")) as broker:
        config.write_text(f'broker = ["{broker.url}"]\nstore = "sqlite:///{tmp_path / "fleet.db"}"\n')
        options = ("--config", str(config), "--state", str(tmp_path))
        with agent("mh-conductor", *options) as conductor:
            assert conductor.ready.startswith("ready: mh-conductor ")
            shown = mhctl("--on", broker.url, "--json", "aggregate", "list")
            assert (shown.returncode, shown.stdout.strip()) == (0, "[]")
            conductor.process.send_signal(signal.SIGTERM)
            assert conductor.process.wait(60) == 0
        assert (tmp_path / "fleet.db").exists()


def test_it_waits_for_its_broker(tmp_path: Path) -> None:
    state = ("--state", str(tmp_path))
    with agent("mh-broker", "--listen", "127.0.0.1:0", *state) as gone:
        url = gone.url
    with agent("mh-conductor", "--broker", url, *state) as conductor:
        assert conductor.ready == f"ready: mh-conductor waiting for {url}"
        with agent("mh-broker", "--listen", url.removeprefix("amqp://"), *state):
            wait_for(lambda: mhctl("--on", url, "aggregate", "list").returncode == 0, 120)
        assert conductor.process.poll() is None


def test_what_the_program_reads_is_shipped() -> None:
    package = files("mh_conductor")
    assert (package / "rules" / "default.toml").is_file()
    assert (package / "migrations" / "env.py").is_file()
    assert fleet.rules().rules
