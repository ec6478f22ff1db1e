"""A broker, an agent and consoles over TLS as their users start them, each known by what it has shown."""

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certificates import Authority, authority
from mh_amqp.tls import Files
from mh_amqp.users import verifier
from processes import agent, command
from waiting import wait_for

PASSWORD = "correct horse"


def tls_table(files: Files) -> str:
    names = ("certificate", "key", "authorities", "revoked")
    lines = [f'{name} = "{getattr(files, name)}"' for name in names if getattr(files, name)]
    return "[tls]\n" + "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Site:
    """A secured broker with one host, and where consoles have their files."""

    url: str
    uuid: str
    directory: Path
    trusted: Authority

    def ask(
        self, *words: str, files: Files | None = None, user: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """mhctl about the host, with what it shows."""
        shown = files or Files(authorities=self.trusted.path)
        file = self.directory / f"console-{shown.certificate.stem if shown.certificate else 'bare'}.toml"
        file.write_text(tls_table(shown))
        at = self.url.replace("amqps://", f"amqps://{user}@" if user else "amqps://")
        return subprocess.run(
            [command("mhctl"), "--on", f"{at}/{self.uuid}", "--timeout", "8", "--json", *words],
            env=os.environ | {"MATAHARI_CONSOLE": str(file), "MATAHARI_PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            timeout=30,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    here = tmp_path_factory.mktemp("site")
    trusted = authority(here / "ours")
    (here / "users").write_text(verifier("otto", PASSWORD).line("otto") + "\n")
    (here / "broker.toml").write_text(
        f'[login]\nusers = "{here}/users"\n' + tls_table(trusted.give("broker"))
    )
    (here / "agent.toml").write_text(
        '[authority]\n"CN=console" = "operator"\n"otto" = "read-only"\n' + tls_table(trusted.give("agent"))
    )
    with agent(
        "mh-broker", "--listen", "127.0.0.1:0", "--state", str(here / "b"), "--config", f"{here}/broker.toml"
    ) as broker:
        url = "amqps://" + broker.ready.rpartition(" ")[2]
        options = ("--broker", url, "--state", str(here / "a"), "--report-interval", "0")
        with agent("mh-amqp", *options, "--config", f"{here}/agent.toml") as host:
            words = host.ready.split()
            yield Site(url, words[words.index("host") + 1], here, trusted)


def test_a_certificate_may_what_its_role_may(site: Site) -> None:
    console = site.trusted.give("console")
    told = wait_for(lambda: site.ask("host", "show", "hostname", files=console).stdout, seconds=15)
    assert json.loads(told)["hostname"]
    assert site.ask("get", "Agent.log_levels", files=console).returncode == 0
    done = site.ask("set", "Host.update_interval", "7", files=console)
    assert done.returncode == 0, done.stderr


def test_a_user_may_what_his_role_may(site: Site) -> None:
    read = site.ask("call", "Network.list", user="otto")
    assert read.returncode == 0, read.stderr
    written = site.ask("set", "Host.update_interval", "9", user="otto")
    assert written.returncode != 0
    assert "not-authorized" in written.stderr + written.stdout
    assert "otto" in written.stderr + written.stdout


def test_a_certificate_without_a_role_may_nothing(site: Site) -> None:
    refused = site.ask("host", "show", "hostname", files=site.trusted.give("stranger"))
    assert refused.returncode != 0
    assert "CN=stranger" in refused.stderr + refused.stdout


def test_a_certificate_of_another_authority_does_not_come_in(site: Site, tmp_path: Path) -> None:
    shown = authority(tmp_path, "Another").give("console")
    refused = site.ask(
        "host", "show", "hostname", files=Files(shown.certificate, shown.key, site.trusted.path)
    )
    assert refused.returncode != 0
    assert "hostname" not in refused.stdout


def test_nobody_comes_in_as_nobody(site: Site) -> None:
    refused = site.ask("host", "show", "hostname")
    assert refused.returncode != 0
    assert "we have ANONYMOUS" in refused.stderr + refused.stdout


def test_why_somebody_may_something_is_told(site: Site) -> None:
    console = site.trusted.give("console")
    asked = ("policy", "explain", "otto", "Services.restart", "name=ssh.service")
    denied = site.ask(*asked, files=console)
    assert denied.returncode == 3, denied.stderr
    assert json.loads(denied.stdout) == {
        "allowed": False,
        "reason": "'otto' has the role 'read-only'; no rule fits",
        "role": "read-only",
    }
    allowed = site.ask("policy", "explain", "CN=console", "Services.restart", "name=x", files=console)
    assert (allowed.returncode, json.loads(allowed.stdout)["allowed"]) == (0, True)
    assert site.ask("policy", "explain", "x", "Services.dance", files=console).returncode == 1
    assert site.ask("policy", "explain", "x", "Services.list", "name", files=console).returncode == 2
