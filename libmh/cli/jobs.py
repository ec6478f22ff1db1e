"""`--queue-for` and `mhctl jobs`: what is left at the broker for hosts that may be off, and what came of it.

The broker keeps a request until its host takes it or its time has passed. The host keeps what came of it,
and is asked for that; what was left where is noted here, in `~/.local/state/matahari/jobs.json`.
"""

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click

from libmh.api.agent import Agent
from libmh.call import Request, Verb
from libmh.cli.render import as_json, harmless, moment, table
from libmh.cli.session import Session, pass_session, reported
from libmh.cli.wide import Wide
from libmh.client import fleet
from libmh.errors import BackendFailed, InvalidArguments, NotFound, Problem
from libmh.outcomes import Plan, Result, State
from libmh.selection import where
from libmh.settings import replace_file
from libmh.spec import Effect, Member, interface_of

AGENT = interface_of(Agent)
FILE = "jobs.json"
MAX_JOBS = 1000
MAX_FILE = 4 << 20
MAX_NAMED = 20
"""Hosts that are asked by name; of more all are asked."""
ASK_SECONDS = 3.0
NANOSECONDS = 10**9
KEPT_SECONDS = 30 * 24 * 3600
WAITING, EXPIRED, NOT_RUN, REFUSED = "waiting", "expired", "not-run", "refused"
OPEN = (WAITING, NOT_RUN, "running")
"""What may still become something else."""


@dataclass(frozen=True, slots=True)
class Left:
    """A request that was left for one host; times in ns since the epoch.

    `state` is the outcome that the host tells, or `waiting`, `expired`, `refused` by the broker, `not-run`:
    the host is there, and did not run it, for it is not let, or not meant.
    """

    id: str
    url: str
    host: str
    hostname: str
    member: str
    queued: int
    expires: int
    state: str = WAITING
    message: str = ""


def leave(wide: Wide, request: Request, member: Member | None, seconds: float, *, as_text: bool) -> int:
    """Leave a request for the hosts that are meant, note it, print what became of it; the exit code."""
    if request.verb is not Verb.SET and (member is None or member.effect is Effect.READS):
        raise InvalidArguments("--queue-for is for what changes something: nobody would see what is read")
    with fleet(wide.url) as hosts:
        taken = hosts.leave(request, wide.plan.where, seconds, [wide.uuid] if wide.uuid else None)
    now = time.time_ns()
    ends = now + round(seconds * NANOSECONDS)
    named = f"{request.interface}.{request.member}"
    left = [
        Left(request.id, _shown(wide.url), host.uuid, host.hostname, named, now, ends, *_refusal(problem))
        for host, problem in taken
    ]
    _note(left)
    _print(left, as_text=as_text)
    return 0 if all(each.state == WAITING for each in left) else 1


def _refusal(problem: Problem | None) -> tuple[str, str]:
    return (WAITING, "") if problem is None else (REFUSED, str(problem))


def _shown(url: str) -> str:
    """Without a password."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=user.partition(":")[0] + at + place))


def _path() -> Path:
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 - Path.home raises
    return Path(home) / "matahari" / FILE


def noted() -> list[Left]:
    """What was left, the oldest first. Raises `BackendFailed`."""
    try:
        with _path().open("rb") as file:
            told = json.loads(file.read(MAX_FILE))
        return [Left(**each) for each in told]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        raise BackendFailed(f"cannot read '{_path()}': {error}") from error


def _note(changed: Iterable[Left]) -> None:
    known = {(each.id, each.host): each for each in noted()}
    known |= {(each.id, each.host): each for each in changed}
    since = time.time_ns() - KEPT_SECONDS * NANOSECONDS
    kept = [asdict(each) for each in known.values() if each.expires > since][-MAX_JOBS:]
    try:
        _path().parent.mkdir(parents=True, exist_ok=True)
        replace_file(_path(), json.dumps(kept, indent=1), 0o600)
    except OSError as error:
        raise BackendFailed(f"cannot keep '{_path()}': {error.strerror}") from error


@click.command("jobs")
@click.option("--all", "everything", is_flag=True, help="Also those whose end has been told before.")
@pass_session
def jobs_command(session: Session, *, everything: bool) -> None:
    """What was left for hosts with --queue-for, and what came of it.

    Asks those hosts. `mhctl agent jobs` tells all that one host was asked to change.
    """

    def work() -> None:
        before = noted()
        told = [each for each in before if everything or each.state in OPEN]
        looked = list(_looked_up([each for each in told if each.state in OPEN]))
        _note(looked)
        found = {(each.id, each.host): each for each in looked}
        _print([found.get((each.id, each.host), each) for each in told], as_text=not session.json)

    reported(session, work)


def _looked_up(open_: list[Left]) -> Iterable[Left]:
    groups: dict[tuple[str, str], list[Left]] = {}
    for each in open_:
        groups.setdefault((each.url, each.id), []).append(each)
    for (url, number), lefts in groups.items():
        try:
            results = _asked(url, number, lefts)
        except NotFound:  # none of them is there
            results = {}
        except Problem as problem:
            yield from (_judged(each, None, str(problem)) for each in lefts)
            continue
        yield from (_judged(each, results.get(each.host), "") for each in lefts)


def _asked(url: str, number: str, lefts: list[Left]) -> Mapping[str, Result]:
    uuids = [each.host for each in lefts]
    named = where(["uuid=" + " ".join(f"<or> {each}" for each in uuids)] if len(uuids) <= MAX_NAMED else [])
    request = Request(AGENT.name, "job", Verb.CALL, {"id": number}, deadline=ASK_SECONDS)
    with fleet(url) as hosts:
        running = hosts.start(request, Plan(named))
        for _ in running:
            pass
        return running.account.results


def _judged(left: Left, result: Result | None, trouble: str) -> Left:
    late = time.time_ns() > left.expires
    if result is not None and result.state is State.ANSWERED:
        told = result.value()
        job: Mapping[str, Any] = told if isinstance(told, dict) else {}
        return replace(left, state=str(job.get("outcome")), message=str(job.get("message") or ""))
    if result is not None and result.word == NotFound.word:
        said = "the host is there and has not run it: it is not let, or not meant"
        return replace(left, state=EXPIRED if late else NOT_RUN, message=said)
    if result is not None and result.state is State.DENIED:
        return replace(left, message=f"what came of it may not be looked up: {result.message}")
    return replace(left, state=EXPIRED if late else WAITING, message=trouble)


def _print(lefts: list[Left], *, as_text: bool) -> None:
    if not as_text:
        print(as_json([asdict(each) for each in lefts]))
        return
    rows = [
        (
            *(each.id[:12], each.hostname or each.host, each.member.rpartition("org.matahariproject.")[2]),
            *(each.state, moment(each.expires // NANOSECONDS * NANOSECONDS), harmless(each.message) or "-"),
        )
        for each in lefts
    ]
    table(("job", "host", "member", "state", "until", "what"), rows)
