"""Services as init scripts where there is no systemd: run by OpenRC where that is the service manager, by
themselves elsewhere. What starts with the machine is said by the tool that the distribution has for it."""

import glob
import time
from collections.abc import Mapping, Sequence

from libmh.api.services import Action, JobResult, LogLine, Outcome, Unit, UnitDetail, Whom
from libmh.context import Root
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere
from libmh.linux import programs
from libmh.linux.init import description, journal, lsb, openrc, unitdetail
from libmh.linux.init.unitnames import full, is_name
from libmh.linux.runner import TIMED_OUT, Ending

NOT_INSTALLED = 5
TOOL_SECONDS = 60.0
STATUS_SECONDS = 5.0
LINES = 10
UNIMPLEMENTED = 3
# the words of LSB, where they are other than systemd's
VERBS: Mapping[Action, str] = {Action.RELOAD_OR_RESTART: "force-reload"}
STATES: Mapping[int, str] = {0: "active", 1: "failed", 2: "failed", 3: "inactive"}

# program -> what it is told, one command after the other, the last code counts
ENABLE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "update-rc.d": (("{}", "defaults"), ("{}", "enable")),
    "chkconfig": (("--add", "{}"), ("{}", "on")),
    "insserv": (("{}",),),
}
DISABLE: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "update-rc.d": (("{}", "disable"),),
    "chkconfig": (("{}", "off"),),
    "insserv": (("--remove", "{}"),),
}


class UnderScripts:
    """The init scripts of a root: `libmh.linux.init.manager.Manager`."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._openrc = openrc.runs(root)

    def names(self) -> list[str]:
        return lsb.names(self._root)

    def own_name(self, name: str) -> str:
        # a link to a script is another service than the script: scripts look at the name that they have
        return full(name) if is_name(name) else name

    def status(self, name: str, seconds: float) -> int:
        if not self._openrc:
            return lsb.status(self._root, name, seconds)
        script = self._known(name)
        return openrc.status(self._root, script, seconds) if script else lsb.UNKNOWN

    def units(self, pattern: str, state: str) -> list[Unit]:
        units = lsb.units(self._root, pattern, "" if self._openrc else state)
        return openrc.units(self._root, units, state) if self._openrc else units

    def unit(self, name: str) -> UnitDetail:
        script = self._script(name)
        (unit,) = self.units(glob.escape(f"{script}.service"), "")
        text = self._root.read(f"{lsb.SCRIPTS}/{script}", lsb.HEADER)
        return unitdetail.of_script(unit, description.header(text))

    def describe(self, name: str) -> str:
        script = self._script(name)
        text = self._root.read(f"{lsb.SCRIPTS}/{script}", lsb.HEADER)
        return description.xml(description.of_script(script, text))

    def enable(self, name: str) -> int:
        script = self._known(name)
        if script is None:
            return NOT_INSTALLED
        return openrc.enable(self._root, script) if self._openrc else enable(self._root, script)

    def disable(self, name: str) -> int:
        script = self._known(name)
        if script is None:
            return NOT_INSTALLED
        return openrc.disable(self._root, script) if self._openrc else disable(self._root, script)

    def start_or_stop(self, name: str, verb: Action, seconds: float) -> int:
        script = self._known(name)
        return NOT_INSTALLED if script is None else self._run(script, str(verb), seconds).rc

    def act(self, name: str, verb: Action, seconds: float) -> Outcome:
        script = self._script(name)
        ending = self._run(script, VERBS.get(verb, str(verb)), seconds)
        return outcome(script, verb, ending, *self._state(script))

    def _state(self, script: str) -> tuple[str, str]:
        if self._openrc:
            word, active = openrc.state(self._root, script)
            return active, word
        return STATES.get(self.status(script, STATUS_SECONDS), "unknown"), "unknown"

    def mask(self, name: str) -> Outcome:
        raise only_systemd("mask", name)

    def unmask(self, name: str) -> Outcome:
        raise only_systemd("unmask", name)

    def kill(self, name: str, signal: str, whom: Whom) -> Outcome:
        del signal, whom
        raise only_systemd("kill", name)

    def reset_failed(self, name: str) -> Outcome:
        raise only_systemd("reset", name)

    def logs(self, name: str, lines: int, since: int) -> list[LogLine]:
        return journal.lines(self._root, f"{self._script(name)}.service", lines, since)

    def _run(self, script: str, action: str, seconds: float) -> Ending:
        if self._openrc:
            return openrc.run(self._root, script, action, seconds)
        return programs.run((str(self._root.path(f"{lsb.SCRIPTS}/{script}")), action), seconds)

    def _known(self, name: str) -> str | None:
        if not name:
            raise InvalidArguments("name: expected a service's name, got ''", argument="name")
        script = name.removesuffix(".service")
        return script if script in lsb.names(self._root) else None

    def _script(self, name: str) -> str:
        script = self._known(name)
        if script is None:
            raise NotFound(f"there is no init script '{name[:100]}' here", name=name)
        return script


def outcome(script: str, verb: str, ending: Ending, active: str, sub: str) -> Outcome:
    """What a run of a script means; its last words are the log."""
    done = ending.rc == 0
    result = JobResult.DONE if done else JobResult.TIMEOUT if ending.rc == TIMED_OUT else JobResult.FAILED
    said = (ending.stdout + ending.stderr).decode("utf-8", "replace").replace("\0", "\ufffd").splitlines()
    now = time.time_ns()
    return Outcome(
        unit=f"{script}.service",
        verb=str(verb),
        result=result,
        seconds=ending.seconds,
        load_state="loaded",
        active_state=active,
        sub_state=sub,
        reason=None if done else _reason(script, verb, ending.rc),
        exit_status=None if done else ending.rc,
        log=None if done else [LogLine(now, line[: journal.MAX_MESSAGE]) for line in said[-LINES:]],
    )


def _reason(script: str, verb: str, code: int) -> str:
    if code == TIMED_OUT:
        return f"the time to {verb} '{script}' has passed: its script was killed"
    if code == UNIMPLEMENTED:
        return f"the script of '{script}' does not know '{verb}'"
    return f"could not {verb} '{script}': its script ended with {code}"


def enable(root: Root, script: str) -> int:
    """Have a script started with the machine: the code of the distribution's tool."""
    return _tell(root, ENABLE, script)


def disable(root: Root, script: str) -> int:
    """Have it no longer started."""
    return _tell(root, DISABLE, script)


def _tell(root: Root, tools: Mapping[str, Sequence[tuple[str, ...]]], script: str) -> int:
    for tool, commands in tools.items():
        program = programs.find(root, tool)
        if program is not None:
            endings = [
                programs.run_below(root, program, [word.format(script) for word in words], TOOL_SECONDS)
                for words in commands
            ]
            return endings[-1].rc
    raise NotImplementedHere(
        f"none of {', '.join(tools)} is here to say what starts with the machine", source=lsb.SCRIPTS
    )


def only_systemd(verb: str, name: str) -> NotImplementedHere:
    """The problem that systemd's own verbs meet elsewhere."""
    return NotImplementedHere(f"only systemd can {verb} '{name[:100]}', and it does not run here")
