"""A failure as one sentence and a hint, and as the exit code of `mhctl`.

====  =============================================
code  meaning
====  =============================================
0     done
1     failed
2     usage: a command or an argument is wrong
3     not authorised
4     unreachable
5     the time passed
====  =============================================
"""

from collections.abc import Mapping

from libmh.cli.render import harmless
from libmh.errors import NotFound, Problem

FAILED = 1
EXIT_CODES: Mapping[str, int] = {
    "invalid-arguments": 2,
    "not-authorized": 3,
    "unavailable": 4,
    "timeout": 5,
}
HINTS: Mapping[str, str] = {
    "invalid-arguments": "see the command's --help for what it takes",
    "not-authorized": "ask as root, or let an administrator allow it: by a polkit rule locally, "
    "remotely in the [authority] table of the file that --config names there: anonymous = 'operator'",
    "not-found": "`mhctl api` lists what can be asked, and --on names who is asked",
    "not-implemented": "this host cannot do it; `mhctl host facts` says why for each fact",
    "timeout": "give it longer with --timeout, or see `mhctl agent show` for calls that are stuck",
    "unavailable": "is the agent or broker running, and is --on right?",
    "conflict": "read it again and repeat the change",
    "internal": "report it with the agent's log of this id",
}
FLEET = ("Aggregates", "Conductor", "Reports", "Sinks")
AT_BROKER = "the fleet is asked at its broker: say --on amqp://HOST:5672, or set MATAHARI_URL to that"
NO_CONDUCTOR = "is a conductor (mh-conductor) running at that broker? Or give it longer with --timeout"


def exit_code(problem: Problem) -> int:
    """The exit code for a problem."""
    return EXIT_CODES.get(problem.word, FAILED)


def explain(problem: Problem) -> str:
    """One sentence, and a hint on a line of its own where there is one."""
    sentence = f"mhctl: {problem.message} ({problem.word})"
    hint = problem.details.get("hint") or _hint(problem)
    return harmless(f"{sentence}\n  hint: {hint}" if hint else sentence)


def _hint(problem: Problem) -> str | None:
    # whose details name an interface is not served there
    lacking = str(problem.details.get("interface", "")).rpartition(".")[2]
    if problem.word == NotFound.word and lacking in FLEET:
        return AT_BROKER
    return HINTS.get(problem.word)


def as_plain(problem: Problem) -> dict[str, object]:
    """For --json."""
    return {"error": problem.word, "number": problem.number, "message": problem.message, **problem.details}
