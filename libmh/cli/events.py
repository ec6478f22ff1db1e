"""`mhctl events`: what happens, as it comes, and what has happened."""

import queue
import threading
import time
from collections.abc import Iterator
from math import inf

import click

from libmh.api.agent import Agent
from libmh.api.aggregates import Aggregates
from libmh.call import Verb
from libmh.cli.naming import MemberName, find_member
from libmh.cli.render import as_json, cell, harmless, moment, word
from libmh.cli.session import Session, pass_session, reported
from libmh.cli.values import Seconds, moment_of
from libmh.errors import InvalidArguments, Problem
from libmh.events import Event
from libmh.outcomes import Plan
from libmh.providers import find_interface
from libmh.selection import Where
from libmh.spec import Kind, interface_of

AGENT, AGGREGATES = interface_of(Agent), interface_of(Aggregates)
MAX_WAITING = 10_000
REFRESH_SECONDS = 15.0


@click.command("events")
@click.argument("what", default="", metavar="[INTERFACE[.EVENT]]", type=MemberName(Kind.EVENT))
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@click.option("--for", "seconds", type=Seconds(0.1), help="Fail when none comes for so many seconds.")
@click.option(
    "--since", default="", metavar="WHEN", help="What has happened since 10m, 2h, 1d or an ISO time."
)
@click.option("--follow", is_flag=True, help="With --since: go on with what comes.")
@pass_session
def events_command(
    session: Session, what: str, count: int | None, seconds: float | None, since: str, *, follow: bool
) -> None:
    """Show events as they come: all, those of an interface, or one. JSON is one object a line.

    The agent on AMQP keeps those of the last day, but for heartbeats and changes of properties. With --where
    they are those of the hosts of which that is so, by what they last reported.
    """

    def work() -> None:
        interface, member = _asked(what)
        if session.url == "local:":
            raise InvalidArguments(
                "'local:' raises no events; name an agent with --on, such as --on system:"
            )
        chosen = _chosen(session)
        if since and chosen is not None:
            raise InvalidArguments("--since asks one host what it has kept: it cannot go with --where")
        if not since:
            found = session.connection().events(interface, member, seconds or session.timeout)
        elif follow:
            found = _from_then_on(session, interface, member, moment_of(since), seconds)
        else:
            found = _past(session, interface, member, moment_of(since))
        wanted = found if chosen is None else (event for event in found if event.host in chosen)
        for number, event in enumerate(wanted, 1):
            _print_event(session, event)
            if number == count:
                return

    reported(session, work)


class Chosen:
    """The hosts of which something is so, as the conductor knows them. It is asked again now and then: hosts
    change, and come."""

    def __init__(self, session: Session, where: Where) -> None:
        self._session = session
        self._where = where
        self._uuids: frozenset[str] = frozenset()
        self._asked = -inf

    def __contains__(self, uuid: str) -> bool:
        if time.monotonic() - self._asked > REFRESH_SECONDS:
            told = self._session.ask(AGGREGATES, "select", Verb.CALL, {"where": list(self._where.texts())})
            hosts = told.get("hosts") if isinstance(told, dict) else None
            rows = hosts if isinstance(hosts, list) else []
            self._uuids = frozenset(str(each["uuid"]) for each in rows if isinstance(each, dict))
            self._asked = time.monotonic()
        return uuid in self._uuids


def _chosen(session: Session) -> Chosen | None:
    """The hosts that the options mean; None: whoever is heard. From here on the broker itself is asked."""
    wide = session.wide
    if wide is None:
        return None
    if wide.queue_for is not None or wide.plan != Plan(wide.plan.where):
        raise InvalidArguments("events are only heard: they take --where, and nothing that paces requests")
    session.widen(None)
    return Chosen(session, wide.plan.where) if wide.plan.where.requirements else None


def _past(session: Session, interface: str, member: str, since: int) -> Iterator[Event]:
    told = session.ask(AGENT, "past_events", Verb.CALL, {"since": since, "limit": 0})
    for each in told if isinstance(told, list) else ():
        named, _, event = str(each["name"]).rpartition(".")
        if interface in ("", named) and member in ("", event):
            yield Event(named, event, each["fields"], int(each["time"]), 0)


def _from_then_on(
    session: Session, interface: str, member: str, since: int, seconds: float | None
) -> Iterator[Event]:
    """What has happened, and then what comes: what came while we asked is told once."""
    came: queue.Queue[Event | Problem] = queue.Queue(MAX_WAITING)
    stream = session.connection().events(interface, member, seconds or session.timeout)

    def listen() -> None:
        try:
            for event in stream:
                came.put(event)
        except Problem as problem:
            came.put(problem)

    threading.Thread(target=listen, daemon=True).start()
    seen: set[tuple[str, int]] = set()
    for _ in range(2):  # the first asking takes as long as to subscribe
        for event in _past(session, interface, member, since):
            if (event.name, event.time) not in seen:
                seen.add((event.name, event.time))
                yield event
    while True:
        next_one = came.get()
        if isinstance(next_one, Problem):
            raise next_one
        if (next_one.name, next_one.time) not in seen:
            yield next_one


def _asked(what: str) -> tuple[str, str]:
    if not what:
        return "", ""
    interface = find_interface(what)
    if interface is not None:
        return interface.name, ""
    declared, member = find_member(what, Kind.EVENT)
    return declared.name, member.name


def _print_event(session: Session, event: Event) -> None:
    if session.json:
        plain = {
            "interface": event.interface,
            "event": event.member,
            "host": event.host,
            "time": event.time,
            "sequence": event.sequence,
            "fields": dict(event.fields),
        }
        print(as_json(plain, lines=True), flush=True)
        return
    interface = find_interface(event.interface)
    declared = interface.members.get(event.member) if interface else None
    types = {argument.name: argument.type for argument in declared.arguments} if declared else {}
    fields = " ".join(
        f"{name}={cell(types[name], value) if name in types else word(value)}"
        for name, value in event.fields.items()
    )
    what = event.name if event.member else f"{event.interface} changed"
    print(harmless(f"{moment(event.time)}  {what}  {fields}"), flush=True)
