"""The scheme `ansible`: a playbook for this host alone. What it would do is told by its check mode."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.context import Root
from libmh.errors import BackendFailed, InvalidArguments
from libmh.linux import ownunit
from libmh.linux.config import ansible_callback, contents
from libmh.linux.runner import Ending
from libmh.schemes import Edit, Execution, Forecast

PACKAGE = "ansible-core"
MAX_TEXT = 16 << 20
MAX_LOG = 16 << 20
MAX_SHOWN = 2000
OK, TASK_FAILED, UNREACHABLE = 0, 2, 4
HERE = ("localhost", "127.0.0.1", "::1", "all")
PLAY = re.compile(r"-( +|$)")
KEY = re.compile(
    r"""[\s{,-]*["']?(hosts|connection|delegate_to|ansible_connection)["']?\s*:\s*([^#\s][^#]*)"""
)
OF_A_PLAY = ("hosts", "connection")  # deeper they are a module's, or part of some text
LOCAL = "local"
INVENTORY = ("--inventory", "localhost,", "--connection", LOCAL, "--limit", "localhost")


@dataclass(frozen=True, slots=True)
class Told:
    """What the callback told of a task."""

    event: str
    task: str
    message: str
    hidden: bool
    diffs: tuple[tuple[str, str], ...]


class Ansible:
    """The `ansible-playbook` of a machine. `state`: below it playbooks are put while they run."""

    def __init__(self, root: Root, state: Path | None = None) -> None:
        self._root, self._state = root, state

    def forecast(self, text: str, seconds: float) -> Forecast:
        """What it would change, by its check mode; a task that fails in that is told by the output alone,
        because it may need what was not done. Raises `backend-failed` for what is no playbook."""
        ending, told = self._run(text, seconds, "--check", "--diff")
        if ending.rc not in (OK, TASK_FAILED):
            complaint = ownunit.printed(ending).strip()[:MAX_SHOWN] or f"it ended with {ending.rc}"
            raise BackendFailed(f"ansible-playbook: {complaint}", code=str(ending.rc))
        return Forecast(tuple(_edits(self._root, told)), _text(ending, told), exact=False)

    def run(self, text: str, seconds: float) -> Execution:
        """Do it. A run that changed something has not failed."""
        ending, told = self._run(text, seconds, "--diff")
        changed = any(each.event == "changed" for each in told)
        return Execution(ending.rc, failed=ending.rc != OK, output=_text(ending, told), changed=changed)

    def _run(self, text: str, seconds: float, *options: str) -> tuple[Ending, list[Told]]:
        program = ownunit.find(self._root, "ansible-playbook", PACKAGE)
        _check(text)
        with ownunit.private(self._state) as directory:
            (directory / "plugins").mkdir()
            source = Path(ansible_callback.__file__).read_text("utf-8")
            ownunit.put(directory, "plugins/matahari.py", source)
            playbook = ownunit.put(directory, "playbook.yml", text)
            arguments = (program, *INVENTORY, *options, playbook)
            ending = ownunit.run(self._root, arguments, seconds, _environment(directory))
            told = list(_told(directory / "log"))
        if any(each.event == "nobody" for each in told):
            raise InvalidArguments("a play of the playbook is not for localhost", argument="text")
        return ending, told


def _environment(directory: Path) -> Mapping[str, str]:
    """Nothing of the machine's own settings of ansible, and nothing left behind."""
    return {
        "ANSIBLE_CONFIG": ownunit.put(directory, "ansible.cfg", ""),
        "ANSIBLE_HOME": str(directory),
        "ANSIBLE_LOCAL_TEMP": str(directory / "local"),
        "ANSIBLE_REMOTE_TEMP": str(directory / "remote"),
        "ANSIBLE_CALLBACK_PLUGINS": str(directory / "plugins"),
        "ANSIBLE_STDOUT_CALLBACK": "matahari",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "TMPDIR": str(directory),
        ansible_callback.FILE: str(directory / "log"),
    }


def _check(text: str) -> None:
    """Refuse what is plainly for other hosts; ansible knows no other in its inventory."""
    if len(text) > MAX_TEXT or "\0" in text:
        raise InvalidArguments("expected a playbook of at most 16 MiB, without NUL", argument="text")
    indent = 0
    for number, line in enumerate(text.split("\n"), 1):
        if play := PLAY.match(line):
            indent = len(play[0])
        found = KEY.match(line)
        if not found or (found[1] in OF_A_PLAY and len(line) - len(line.lstrip(" -{")) > max(indent, 3)):
            continue
        value = found[2].partition(",")[0].strip().strip("\"'}[]").strip()
        if value not in (HERE if found[1] in ("hosts", "delegate_to") else (LOCAL,)):
            raise InvalidArguments(
                f"line {number}: '{found[1]}: {value[:100]}' leads to other hosts: expected "
                f"{'localhost' if found[1] in ('hosts', 'delegate_to') else LOCAL}",
                argument="text",
                line=str(number),
            )


def _told(log: Path) -> Iterator[Told]:
    try:
        with log.open("rb") as file:
            lines = file.read(MAX_LOG).splitlines()
    except OSError:  # it did not come so far
        return
    for line in lines:
        try:
            found: Any = json.loads(line)
        except (ValueError, RecursionError):  # it was cut
            continue
        if isinstance(found, dict):
            event, task, message = (str(found.get(name, "")) for name in ("event", "task", "message"))
            diffs = tuple((str(each["path"]), str(each["text"])) for each in found.get("diffs", ()))
            yield Told(event, task, message, bool(found.get("hidden")), diffs)


def _edits(root: Root, told: list[Told]) -> Iterator[Edit]:
    """A change of each file that a diff is of."""
    diffs: dict[str, str] = {}
    for path, text in (diff for each in told for diff in each.diffs):
        if path.startswith("/") and text.strip():
            real = contents.resolve(root, path)
            diffs[real] = diffs.get(real, "") + _headed(real, text)
    for path, text in diffs.items():
        yield Edit(path, contents.glimpse(root, path), None, text)


def _headed(path: str, text: str) -> str:
    """A diff whose heads name the file, and not where ansible keeps what it becomes."""
    return re.sub(r"\A\s*--- .*\n\+\+\+ .*\n", f"--- {path}\n+++ {path}\n", text.strip("\n") + "\n")


def _text(ending: Ending, told: list[Told]) -> str:
    """What is said of a run: a line for each task, then what ansible printed itself."""
    lines = []
    for each in told:
        said = "(hidden)" if each.hidden else each.message
        others = "".join(f"\n{text.rstrip()}" for path, text in each.diffs if not path and text.strip())
        lines.append(f"{each.event}: {each.task}{': ' + said if said else ''}{others}\n")
    return "".join(lines) + ownunit.printed(ending)
