"""Commands at many hosts: which hosts the options mean, a bar while they answer, a table of them at the end.

The exit code is that of the worst that happened, in this order: 1 some failed or were not asked any more,
3 some do not let this identity, 5 some did not answer in time, 4 some are not there, 0 every one did it.
Interrupted it is 130.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import click

from libmh.call import Request
from libmh.cli.render import as_json, cell, harmless, table, word
from libmh.client import fleet
from libmh.errors import InvalidArguments, Problem
from libmh.outcomes import Account, Judge, Plan, Result, State, share
from libmh.selection import where as requirements
from libmh.spec import Plain, Type

OPTIONS: Mapping[str, bool] = MappingProxyType(
    dict.fromkeys(("--where", "--batch", "--canary", "--stop-on-fail", "--queue-for"), True)
    | {"--all-hosts": False}
)
"""What counts wherever it stands, and whether a value follows."""
CODES: Mapping[State, int] = MappingProxyType(
    {
        State.FAILED: 1,
        State.NOT_ASKED: 1,
        State.UNKNOWN: 1,
        State.DENIED: 3,
        State.TIMED_OUT: 5,
        State.OFFLINE: 4,
    }
)
"""The exit code, the first that applies."""
INTERRUPTED = 130
DURATION = re.compile(r"([0-9]{1,7})([smhd])")
UNITS_OF_TIME: Mapping[str, int] = MappingProxyType({"s": 1, "m": 60, "h": 3600, "d": 86_400})
MOST_SECONDS = 7 * 86_400
MAX_ANSWER = 100


@dataclass(frozen=True, slots=True)
class Wide:
    """Which hosts are asked, and how. `queue_for`: seconds for which the broker keeps it for hosts that are
    off; then it may be one host, `uuid`."""

    url: str
    plan: Plan
    uuid: str = ""
    queue_for: float | None = None

    def __str__(self) -> str:
        if self.uuid:
            return f"{self.url}/{self.uuid}"
        texts = self.plan.where.texts()
        return f"every host at {self.url}" + (f" where {' and '.join(texts)}" if texts else "")


def wide_of(
    url: str,
    where: tuple[str, ...],
    batch: str | None,
    canary: int,
    stop_on_fail: str | None,
    *,
    every: bool,
) -> Wide | None:
    """What the options say; None for one host. Raises `InvalidArguments`, and click's `UsageError`."""
    if where and every:
        raise click.UsageError("--where and --all-hosts exclude each other")
    if not where and not every:
        if batch or canary or stop_on_fail:
            raise click.UsageError("--batch, --canary and --stop-on-fail need --where or --all-hosts")
        return None
    plan = Plan(
        requirements(where),
        None if batch is None else share(batch, "batch"),
        canary,
        None if stop_on_fail is None else share(stop_on_fail, "stop-on-fail"),
    )
    return Wide(url, plan)


def duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `2h` or `7d`. Raises `InvalidArguments`."""
    found = DURATION.fullmatch(text)
    seconds = int(found[1]) * UNITS_OF_TIME[found[2]] if found else 0
    if not 0 < seconds <= MOST_SECONDS:
        raise InvalidArguments(
            f"--queue-for: expected 90s, 30m, 2h or at most 7d, got '{text[:60]}'", argument="queue-for"
        )
    return float(seconds)


def queued(url: str, wide: Wide | None, text: str | None) -> Wide | None:
    """The same for hosts that are off; one host is meant where no others are. Raises `InvalidArguments`,
    and click's `UsageError` where none is named."""
    if text is None:
        return wide
    seconds = duration(text)
    if wide is not None:
        if wide.plan.batch or wide.plan.canary:
            raise click.UsageError("--queue-for waits for nobody: it takes no --batch and no --canary")
        return replace(wide, queue_for=seconds)
    parts = urlsplit(url)
    uuid = unquote(parts.path.strip("/"))
    if not uuid:
        raise click.UsageError("--queue-for needs a host's UUID behind the URL, --where or --all-hosts")
    return Wide(urlunsplit(parts._replace(path="")), Plan(), uuid, seconds)


def hoisted(words: list[str]) -> list[str]:
    """Words of a command line with the options of this module in front, wherever they stood."""
    front: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for each in left:
        name = each.partition("=")[0]
        if name in OPTIONS:
            front.append(each)
            if OPTIONS[name] and name == each:
                front.extend(following for following in [next(left, None)] if following is not None)
        else:
            rest.append(each)
    return front + rest


def ask_many(wide: Wide, request: Request, declared: Type | None, judge: Judge | None, *, json: bool) -> int:
    """Ask, print what became of it at each host, answer the exit code. Raises as `libmh.fleet.fan_out`."""
    with fleet(wide.url) as hosts:
        running = hosts.start(request, replace(wide.plan, judge=judge))
        with _bar(running.account, shown=sys.stderr.isatty() and not json) as drawn:
            try:
                for _result in running:
                    drawn()
            except KeyboardInterrupt:
                running.stop()
    _print(running.account, declared, json=json)
    return exit_code_of(running.account)


def exit_code_of(account: Account) -> int:
    """See this module."""
    counts = account.counts()
    if account.interrupted:
        return INTERRUPTED
    return next((code for state, code in CODES.items() if counts[state]), 0)


@contextlib.contextmanager
def _bar(account: Account, *, shown: bool) -> Iterator[Callable[[], None]]:
    if not shown:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("asking who is there", total=None)

        def draw() -> None:
            said = account.summary()
            progress.update(
                task, total=len(account.expected), completed=len(account.results), description=said
            )

        yield draw


def _print(account: Account, declared: Type | None, *, json: bool) -> None:
    results = sorted(account.results.values(), key=lambda each: (each.hostname, each.uuid))
    if json:
        print(as_json(as_plain(account, results)))
        return
    rows = [
        (each.hostname or each.uuid, str(each.state), f"{each.seconds:.2f} s", _said(each, declared))
        for each in results
    ]
    table(("host", "state", "after", "answer"), rows)
    click.echo(account.summary(), err=True)
    for said in (account.stopped, "interrupted: no further hosts were asked" if account.interrupted else ""):
        if said:
            click.echo(harmless(f"stopped: {said}" if said == account.stopped else said), err=True)


def as_plain(account: Account, results: list[Result]) -> dict[str, Any]:
    """For --json."""
    counts = account.counts()
    return {
        "known_by": str(account.known),
        "expected": len(account.expected),
        **{state.replace("-", "_"): counts[state] for state in State},
        "stopped": account.stopped or None,
        "interrupted": account.interrupted,
        "hosts": [
            {
                "uuid": each.uuid,
                "hostname": each.hostname or None,
                "state": str(each.state),
                "error": each.word or None,
                "message": each.message or None,
                "seconds": round(each.seconds, 3),
                "answer": _value(each),
            }
            for each in results
        ],
    }


def _value(result: Result) -> Plain:
    try:
        return result.value()
    except Problem as problem:  # an answer that cannot be read
        return problem.message


def _said(result: Result, declared: Type | None) -> str:
    if result.state is not State.ANSWERED:
        return harmless(f"{result.message} ({result.word})" if result.word else result.message)
    value = _value(result)
    if value is None:
        return "-"
    shown = word(value) if declared is None else cell(declared, value)
    return shown if len(shown) <= MAX_ANSWER else shown[: MAX_ANSWER - 3] + "..."
