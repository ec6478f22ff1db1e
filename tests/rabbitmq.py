"""A RabbitMQ of the tests' own: one broker with data, ports and users of its own.

Debian's 3.10, or, with MATAHARI_RABBITMQ4=DIR, the one of a newer Debian that was installed below DIR.
"""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from amqp_serving import HOST
from testbed import needs
from testbed.child import spawn
from waiting import wait_for

PASSWORD = "correct horse"
USERS = ("guest", "otto", "anna")
NEWER = "MATAHARI_RABBITMQ4"
START_SECONDS = 60
EXPIRES_MS = 10_000
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


@dataclass
class RabbitMQ:
    """Where it listens; `root` is where its Debian is."""

    root: Path
    directory: Path
    port: int
    distribution: int
    names: int
    running: "subprocess.Popen[str] | None" = None

    def url(self, user: str = "") -> str:
        said = f"{user}:{PASSWORD.replace(' ', '%20')}@" if user else ""
        return f"amqp://{said}{HOST}:{self.port}"

    def start(self) -> None:
        """Run it until it listens."""
        self.begin()
        wait_for(self.listens, START_SECONDS)

    def begin(self) -> None:
        """Run it; it ends with the thread that this is called in."""
        log = (self.directory / "out").open("a")
        self.running = spawn(
            self._command(), env=self._environment(), stdout=log.fileno(), stderr=log.fileno()
        )
        log.close()

    def kill(self) -> None:
        """End it without a word."""
        assert self.running is not None
        self.running.send_signal(signal.SIGKILL)
        self.running.wait(10)
        self.running = None

    def stop(self) -> None:
        """End it and what it has started."""
        if self.running is not None:
            self.kill()
        subprocess.run(
            [*self._entering(), "/usr/bin/epmd", "-port", str(self.names), "-kill"],
            env=dict(self._environment()),
            capture_output=True,
            timeout=10,
        )
        shutil.rmtree(self.directory, ignore_errors=True)

    def _entering(self) -> list[str]:
        return [] if self.root == Path("/") else ["/usr/sbin/chroot", str(self.root)]

    def listens(self) -> bool:
        """Whether it takes connections; RuntimeError when it has ended."""
        assert self.running is not None
        if self.running.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended: {(self.directory / 'out').read_text()[-2000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def _command(self) -> list[str]:
        server = next((self.root / "usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
        inside = "/" + str(server.relative_to(self.root))
        user = ["--reuid=rabbitmq", "--regid=rabbitmq", "--clear-groups"] if os.geteuid() == 0 else []
        # what setpriv runs is replaced by Erlang itself, so that it ends when it is killed
        return [*self._entering(), "/usr/bin/setpriv", "--pdeathsig=KILL", *user, inside]

    def _environment(self) -> Mapping[str, str]:
        own = self._inside(self.directory)
        return {
            "HOME": own,
            "PATH": needs.SYSTEM_PATH,
            "RABBITMQ_NODENAME": f"mh{self.port}@localhost",
            "RABBITMQ_CONFIG_FILE": f"{own}/rabbitmq",
            "RABBITMQ_MNESIA_BASE": f"{own}/mnesia",
            "RABBITMQ_LOG_BASE": f"{own}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{own}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(self.distribution),
            "RABBITMQ_ALLOW_INPUT": "1",
            # it starts the daemon that tells Erlang's nodes of each other, and does not need it
            "ERL_EPMD_PORT": str(self.names),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -start_epmd false -erl_epmd_port "
            f"{self.distribution} -kernel inet_dist_use_interface {{127,0,0,1}}",
        }

    def _inside(self, path: Path) -> str:
        return str(path) if self.root == Path("/") else "/" + str(path.relative_to(self.root))

    def configure(self, *, plugin: bool) -> None:
        """Its users, and the policy that keeps what subscriptions leave behind from filling."""
        own = self._inside(self.directory)
        (self.directory / "enabled_plugins").write_text(f"[{'rabbitmq_amqp1_0' if plugin else ''}].\n")
        (self.directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {HOST}:{self.port}\nloopback_users = none\nlog.file.level = warning\n"
            f"load_definitions = {own}/definitions.json\n"
        )
        policy = {"pattern": r"^amq\.gen-", "definition": {"expires": EXPIRES_MS}, "apply-to": "queues"}
        guest = {"name": USERS[0], "password_hash": hashed("guest"), "tags": ""}  # who strangers are
        made = {
            "vhosts": [{"name": "/"}],
            "users": [
                guest,
                *({"name": user, "password_hash": hashed(PASSWORD), "tags": ""} for user in USERS[1:]),
            ],
            "permissions": [{"user": user, "vhost": "/", **EVERYTHING} for user in USERS],
            "policies": [{"vhost": "/", "name": "gen", "priority": 0, **policy}],
        }
        (self.directory / "definitions.json").write_text(json.dumps(made))
        if os.geteuid() == 0:
            for each in (self.directory, *self.directory.iterdir()):
                shutil.chown(each, *_owner(self.root))


def hashed(password: str) -> str:
    """As RabbitMQ keeps it: a salt, and SHA-256 over it and the password."""
    salt = b"salt"
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()


def _owner(root: Path) -> tuple[int, int]:
    for line in (root / "etc/passwd").read_text().splitlines():
        name, _, uid, gid, *_ = line.split(":")
        if name == "rabbitmq":
            return int(uid), int(gid)
    raise LookupError("there is no user rabbitmq")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def rabbitmq(root: Path, *, plugin: bool) -> Iterator[RabbitMQ]:
    """One that listens; its data is gone afterwards."""
    directory = Path(tempfile.mkdtemp(prefix="mh-rabbitmq-", dir=root / "var/tmp"))
    broker = RabbitMQ(root, directory, free_port(), free_port(), free_port())
    try:
        broker.configure(plugin=plugin)
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def rabbitmq_3() -> Iterator[RabbitMQ]:
    needs.file("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")
    with rabbitmq(Path("/"), plugin=True) as broker:
        yield broker


@pytest.fixture(scope="session")
def rabbitmq_4() -> Iterator[RabbitMQ]:
    root = os.environ.get(NEWER)
    if not root:
        needs.missing(f"RabbitMQ 4 below the directory that {NEWER} names: see test_amqp_rabbitmq.py")
    with rabbitmq(Path(root), plugin=False) as broker:
        yield broker
