"""How a long action goes, on a terminal: a line that is drawn anew while the answer is waited for."""

import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread

import click

from libmh.api.services import Services
from libmh.cli.render import harmless
from libmh.cli.session import Session
from libmh.errors import Problem
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Services)
LOCAL = "local:"
FRAMES = "|/-\\"
PATIENCE = 0.3  # what is done by then needs no line
STEP = 0.1
EVENT_SECONDS = 3600.0


def shown(session: Session, unit: str, verb: str, ask: Callable[[], Plain]) -> Plain:
    """What `ask` answers; on a terminal the time is shown meanwhile, and the unit's state where the
    transport tells of events."""
    if not sys.stderr.isatty() or session.json or session.wide:
        return ask()
    state: list[str] = []
    if session.url != LOCAL:
        session.connection()  # made before there are two threads
        Thread(target=_listen, args=(session, unit, state), daemon=True).start()
    answer: Future[Plain] = Future()
    Thread(target=_answer, args=(ask, answer), daemon=True).start()
    began = time.monotonic()
    drawn = False
    try:
        while not _done(answer, PATIENCE if not drawn else STEP):
            drawn = True
            _draw(f"{verb} {unit}", state, time.monotonic() - began)
    finally:
        if drawn:
            click.echo("\r\033[K", err=True, nl=False)
    return answer.result()


def _answer(ask: Callable[[], Plain], answer: "Future[Plain]") -> None:
    try:
        answer.set_result(ask())
    except Problem as problem:
        answer.set_exception(problem)


def _done(answer: "Future[Plain]", seconds: float) -> bool:
    try:
        answer.exception(seconds)
    except TimeoutError:
        return False
    return True


def _draw(what: str, state: list[str], seconds: float) -> None:
    frame = FRAMES[int(seconds / STEP) % len(FRAMES)]
    said = f" ({state[-1]})" if state else ""
    click.echo(harmless(f"{frame} {what}: {seconds:.1f} s{said}").join(("\r", "\033[K")), err=True, nl=False)


def _listen(session: Session, unit: str, state: list[str]) -> None:
    names = (unit, f"{unit}.service")
    try:
        for event in session.connection().events(INTERFACE.name, "", EVENT_SECONDS):
            if event.fields.get("unit") in names:
                word = event.fields.get("new_state") or event.fields.get("state")
                state[:] = [str(word)]
    except Problem:  # the time is shown all the same
        return
