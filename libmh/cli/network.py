"""`mhctl network`: changes that are looked at, made, and confirmed once the host was reached again."""

import fnmatch
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import click

from libmh.api.network import ChangeState, Network
from libmh.call import Verb
from libmh.cli.completing import FromHost, words
from libmh.cli.members import agree, method_command, show_properties
from libmh.cli.proving import Attempt, Change, ask, ended, heard, prove
from libmh.cli.render import as_json, harmless, moment
from libmh.cli.session import Session, pass_session, reported
from libmh.errors import Conflict, InvalidArguments, NotImplementedHere
from libmh.spec import Plain, interface_of

INTERFACE = interface_of(Network)
LOCAL = "local:"
COLOURS: Mapping[str, str] = {
    ChangeState.CONFIRMED: "green",
    ChangeState.PENDING: "yellow",
    ChangeState.ROLLED_BACK: "red",
    ChangeState.FAILED: "red",
}
CONFIRM_SECONDS = 60
BROKER_SECONDS = 180  # an agent and a broker that lost each other take a minute to notice
MAX_CONFIRM_SECONDS = 3600
ANSWER_SECONDS = 130.0
MAX_DRAWN = 78
READING = (
    *("link", "addresses", "routes", "status", "keeper", "start", "stop"),
    *("get_ip_address", "get_mac_address"),
)
"""Members whose derived commands need no more than the completion of a link's name."""


def _pending(answer: Iterable[Mapping[str, Any]]) -> Iterable[tuple[str, str]]:
    return (
        (str(each["id"]), f"{each['link']}: {each['what']}")
        for each in answer
        if each["state"] == ChangeState.PENDING
    )


LinkName = partial(FromHost, "link", INTERFACE, "list", words)
"""A link, completed from those of the host."""
ChangeId = partial(FromHost, "id", INTERFACE, "changes", _pending)
"""A change, completed from those that wait to be confirmed."""


@click.command("list")
@click.argument("pattern", default="*")
@pass_session
def list_command(session: Session, pattern: str) -> None:
    """The links with their states and addresses; those whose names match a shell pattern."""

    def work() -> None:
        links = session.ask(INTERFACE, "links", Verb.CALL)
        shown: list[Plain] = [
            each
            for each in (links if isinstance(links, list) else ())
            if isinstance(each, dict) and fnmatch.fnmatchcase(str(each["name"]), pattern)
        ]
        session.print(INTERFACE.members["links"].results[0].type, shown)

    reported(session, work)


@click.command("show")
@click.argument("iface", type=LinkName(), metavar="[LINK]", default="")
@pass_session
def show_command(session: Session, iface: str) -> None:
    """One link in full; without a name, the properties of the interface."""
    if not iface:
        show_properties(session, INTERFACE, ())
        return

    def work() -> None:
        found = session.ask(INTERFACE, "link", Verb.CALL, {"iface": iface})
        session.print(INTERFACE.members["link"].results[0].type, found)

    reported(session, work)


# --- what a change would do ---


Given = Mapping[str, Any]


def _preview(session: Session, member: str, given: Given, *, self_confirmed: bool) -> None:
    """Tell what a change does, where it does it, and how it is taken back. On stderr: the answer is the
    outcome."""
    link = session.ask(INTERFACE, "link", Verb.CALL, {"iface": given["iface"]})
    now = link if isinstance(link, dict) else {}
    rows = [("now", _now(now)), ("then", THEN[member](given)), ("made by", _keeper(session, given["iface"]))]
    rows.append(("kept", _kept(given["confirm"], self_confirmed=self_confirmed)))
    click.echo(harmless(f"{member.replace('_', ' ')} of {given['iface']} at {session.url}"), err=True)
    for name, text in rows:
        click.echo(f"  {name:8}  {harmless(text)}", err=True)


def _now(link: Mapping[str, Any]) -> str:
    addresses = [f"{each['address']}/{each['prefix_length']}" for each in link.get("addresses") or ()]
    state = f"{'up' if link.get('up') else 'down'} ({link.get('operational_state')}), mtu {link.get('mtu')}"
    return f"{state}, {', '.join(addresses) or 'no addresses'}"


def _keeper(session: Session, iface: str) -> str:
    try:
        return str(session.ask(INTERFACE, "keeper", Verb.CALL, {"iface": iface}))
    except NotImplementedHere:  # who changes it will say so, too
        return "nobody known"


def _kept(seconds: int, *, self_confirmed: bool) -> str:
    if not seconds:
        return "at once, whether the host can be reached or not"
    how = "the host is reached over a new connection" if self_confirmed else "it is confirmed"
    return f"if {how} within {seconds} s; else it is rolled back"


def _route(given: Given) -> str:
    gateway = f" by {given['gateway']}" if given["gateway"] else ""
    metric = f", metric {given['metric']}" if given.get("metric") else ""
    return f"to {given['destination']}{gateway}{metric}"


THEN: Mapping[str, Callable[[Given], str]] = {
    "set_addresses": lambda given: (
        (", ".join(given["addresses"]) or "no addresses")
        + (f", gateway {given['gateway']}" if given["gateway"] else "")
    ),
    "set_mtu": lambda given: f"mtu {given['mtu']}",
    "add_route": lambda given: f"a route {_route(given)}",
    "remove_route": lambda given: f"no route {_route(given)}",
    "restart": lambda _: "down, and up again",
    "up": lambda _: "up",
    "down": lambda _: "down",
}


# --- making it ---


def change_command(member: str, *parameters: click.Parameter) -> click.Command:
    """A command that makes a change and confirms it; ends with 0 when it is kept, or waits as asked."""
    declared = INTERFACE.members[member]

    @pass_session
    def callback(session: Session, /, *, yes: bool, no_confirm: bool, **given: Any) -> None:
        if given["confirm"] is None:
            given["confirm"] = BROKER_SECONDS if _through_broker(session.url) else CONFIRM_SECONDS
        reported(session, lambda: _change(session, member, _asked(given), yes=yes, no_confirm=no_confirm))

    link = click.Argument(["iface"], type=LinkName(), metavar="LINK")
    return click.Command(
        member.replace("_", "-"),
        callback=callback,
        params=[link, *parameters, *_safety()],
        help=f"{declared.doc}\n\n{SAFETY}",
        short_help=declared.summary,
    )


def _through_broker(url: str) -> bool:
    """Whether the URL names a host besides the peer, as `amqp://broker/HOST-UUID` does."""
    scheme, _, rest = url.partition("://")
    return scheme in ("amqp", "amqps") and bool(rest.partition("/")[2])


SAFETY = (
    "The change is confirmed once the host was reached over a new connection; where that does not go well"
    " in time, the host takes it back by itself."
)


def _safety() -> list[click.Parameter]:
    return [
        click.Option(
            ["--confirm"],
            type=click.IntRange(0, MAX_CONFIRM_SECONDS),
            default=None,
            show_default=f"{CONFIRM_SECONDS}, through a broker {BROKER_SECONDS}",
            metavar="SECONDS",
            help="Time in which it must be confirmed; 0 keeps it at once.",
        ),
        click.Option(["--no-confirm"], is_flag=True, help="Leave it to be confirmed by 'network confirm'."),
        click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."),
    ]


def _asked(given: Given) -> dict[str, Any]:
    asked = dict(given)
    if "addresses" in asked:  # each word may hold several
        asked["addresses"] = [part for word in asked["addresses"] for part in word.split(",") if part]
    if isinstance(asked.get("gateway"), tuple):
        asked["gateway"] = ",".join(asked["gateway"])
    return asked


def _change(session: Session, member: str, given: dict[str, Any], *, yes: bool, no_confirm: bool) -> None:
    proves = bool(given["confirm"]) and not no_confirm
    _preview(session, member, given, self_confirmed=proves)
    if not yes:
        agree(f"'{member}' of '{given['iface']}' may cut {session.url} off")
    attempt = ask(session, member, given)
    try:
        if proves:
            prove(attempt, partial(_draw, session, attempt))
        else:
            _wait(session, attempt)
    except KeyboardInterrupt:
        _say_left(session, attempt, given)
        raise click.exceptions.Exit(1) from None
    except Conflict as problem:
        raise _with_way_out(session, problem) from problem
    finally:
        _draw(session, attempt, None)
    _tell(session, attempt, good=_good(attempt, proves=proves))


def _draw(session: Session, attempt: Attempt, left: float | None) -> None:
    """On a terminal: what is waited for; nothing of it is left in the end."""
    if session.json or not sys.stderr.isatty():
        return
    why = f" ({attempt.trouble.message})" if attempt.trouble else ""
    said = f"reaching {session.url} anew, {max(0.0, left):.0f} s left{why}" if left is not None else ""
    click.echo(f"\r{harmless(said)[:MAX_DRAWN]}\033[K", err=True, nl=False)


def _with_way_out(session: Session, problem: Conflict) -> Conflict:
    """A link has one pending change at most: how the other one is ended."""
    other = problem.details.get("id")
    if other is None:
        return problem
    hint = f"'{_how(session, other)}' keeps the other change, roll-back in the place of confirm ends it"
    return Conflict(problem.message, **{"hint": hint, **problem.details})


def _wait(session: Session, attempt: Attempt) -> None:
    """For the answer alone: nobody confirms."""
    if not heard(attempt, session.timeout or ANSWER_SECONDS):
        return
    if attempt.change is None and attempt.trouble is not None:
        raise attempt.trouble


def _good(attempt: Attempt, *, proves: bool) -> bool:
    fine = {ChangeState.CONFIRMED} if proves else {ChangeState.CONFIRMED, ChangeState.PENDING}
    return attempt.change is not None and attempt.change.get("state") in fine


def _tell(session: Session, attempt: Attempt, *, good: bool) -> None:
    change = attempt.change
    if change is None:
        _say(f"{attempt.link}: {_unknown(attempt)}", good=False)
        if attempt.trouble is not None and session.json:
            raise attempt.trouble
    else:
        _print_change(session, change, f"{_sentence(session, change)}{_because(attempt)}", good=good)
    if not good:
        raise click.exceptions.Exit(1)


def _unknown(attempt: Attempt) -> str:
    why = f" ({attempt.trouble.message})" if attempt.trouble else ""
    return f"the host did not say what came of the change{why}; what was made is rolled back by the host"


def _because(attempt: Attempt) -> str:
    if ended(attempt) or attempt.trouble is None:
        return ""
    return f": the host was not reached over a new connection: {attempt.trouble.message}"


def _sentence(session: Session, change: Change) -> str:
    head = f"{change['link']}: {change['what']}"
    reason = f": {change['reason']}" if change.get("reason") else ""
    match change["state"]:
        case ChangeState.CONFIRMED:
            kept = "" if change.get("persistent") else ", until the host restarts"
            return f"{head}: confirmed, and kept{kept}"
        case ChangeState.PENDING:
            return f"{head}: rolled back{_when(change)} unless '{_how(session, change['id'])}' comes before"
        case ChangeState.ROLLED_BACK:
            return f"{head}: rolled back{reason}"
        case _:
            return f"{head}: failed, and what was before is back{reason}"


def _when(change: Change) -> str:
    return f" at {moment(change['confirm_by'])}" if change.get("confirm_by") else ""


def _how(session: Session, change: str) -> str:
    return shlex.join(["mhctl", "--on", session.url, "network", "confirm", change])


def _print_change(session: Session, change: Change, sentence: str, *, good: bool) -> None:
    if session.json:
        print(as_json(dict(change)))
        return
    click.secho(harmless(sentence), fg=COLOURS.get(str(change["state"])) if good else "red")
    session.print(INTERFACE.members["changes"].results[0].type, [dict(change)])


def _say(sentence: str, *, good: bool) -> None:
    click.secho(harmless(sentence), fg=None if good else "red", err=True)


def _say_left(session: Session, attempt: Attempt, given: Given) -> None:
    change = attempt.change["id"] if attempt.change else "ID"
    _say(
        f"\n{attempt.link}: left as it is: the host rolls it back {given['confirm']} s after it was made,"
        f" unless '{_how(session, str(change))}' comes before",
        good=False,
    )
    if session.json and attempt.change is not None:
        print(as_json(dict(attempt.change)))


# --- changes that were made ---


@click.command("changes")
@click.option("--pending", is_flag=True, help="Only those that wait to be confirmed.")
@pass_session
def changes_command(session: Session, *, pending: bool) -> None:
    """Changes that wait to be confirmed, and the last that ended; the newest first."""

    def work() -> None:
        found = session.ask(INTERFACE, "changes", Verb.CALL)
        shown: list[Plain] = [
            each
            for each in (found if isinstance(found, list) else ())
            if isinstance(each, dict) and not (pending and each["state"] != ChangeState.PENDING)
        ]
        session.print(INTERFACE.members["changes"].results[0].type, shown)

    reported(session, work)


def decide_command(member: str, *, asks: bool) -> click.Command:
    """`confirm` and `roll-back`."""
    declared = INTERFACE.members[member]

    @pass_session
    def callback(session: Session, /, change: str, *, yes: bool = True) -> None:
        def work() -> None:
            if not yes:
                agree(f"rolling '{change}' back may cut {session.url} off")
            answer = session.ask(INTERFACE, member, Verb.CALL, {"id": change})
            if isinstance(answer, dict):
                _print_change(session, answer, _sentence(session, answer), good=True)

        reported(session, work)

    parameters: list[click.Parameter] = [click.Argument(["change"], type=ChangeId(), metavar="ID")]
    if asks:
        parameters.append(click.Option(["--yes", "-y"], is_flag=True, help="Do not ask."))
    return click.Command(member.replace("_", "-"), callback=callback, params=parameters, help=declared.doc)


# --- as it happens ---


@click.command("watch")
@click.argument("pattern", default="*", metavar="[LINK]")
@click.option("--count", type=click.IntRange(min=1), help="End after so many.")
@pass_session
def watch_command(session: Session, pattern: str, count: int | None) -> None:
    """Show links as they change, and changes as they are made, confirmed and rolled back."""

    def work() -> None:
        if session.url == LOCAL:
            raise InvalidArguments(f"'{LOCAL}' raises no events; name an agent, such as --on system:")
        left = count
        for event in session.connection().events(INTERFACE.name, "", session.timeout):
            fields = dict(event.fields)
            change = fields.get("change")
            of_link = str(change.get("link") if isinstance(change, dict) else fields.get("iface", ""))
            if not fnmatch.fnmatchcase(of_link, pattern):
                continue
            _print_event(session, event.member, event.time, fields)
            left = None if left is None else left - 1
            if left == 0:
                return

    reported(session, work)


def _print_event(session: Session, member: str, time: int, fields: Mapping[str, Any]) -> None:
    if session.json:
        print(as_json({"event": member, "time": time, "fields": dict(fields)}, lines=True), flush=True)
        return
    change = fields.get("change")
    if isinstance(change, dict):
        reason = f": {change['reason']}" if change.get("reason") else ""
        text = f"{change['link']}  {change['what']}  {change['state']}{reason} (by {change['by']})"
        click.secho(harmless(f"{moment(time)}  {text}"), fg=COLOURS.get(str(change["state"])))
    else:
        click.echo(harmless(f"{moment(time)}  {fields.get('iface')}  {_link_said(fields)}"))
    sys.stdout.flush()


def _link_said(fields: Mapping[str, Any]) -> str:
    if fields.get("change") == "removed":
        return "removed"
    carrier = "carrier" if fields.get("carrier") else "no carrier"
    state = f"{'up' if fields.get('up') else 'down'} ({fields.get('operational_state')}), {carrier}"
    addresses = " ".join(fields.get("addresses") or ()) or "no addresses"
    return f"{fields.get('change')}  {state}, mtu {fields.get('mtu')}, {addresses}"


_DESTINATION = click.Argument(["destination"])
_GATEWAY = click.Argument(["gateway"], default="")
COMMANDS: tuple[click.Command, ...] = (
    list_command,
    show_command,
    *(method_command(INTERFACE, INTERFACE.members[name], {"iface": LinkName()}) for name in READING),
    change_command(
        "set_addresses",
        click.Argument(["addresses"], nargs=-1, required=True, metavar="ADDRESS..."),
        click.Option(
            ["--gateway"], multiple=True, metavar="ADDRESS", help="Of the default routes: one a family."
        ),
    ),
    change_command("set_mtu", click.Argument(["mtu"], type=click.IntRange(1))),
    change_command(
        "add_route",
        _DESTINATION,
        _GATEWAY,
        click.Option(["--metric"], type=click.IntRange(0), default=0, help="The lowest wins."),
    ),
    change_command("remove_route", _DESTINATION, _GATEWAY),
    change_command("restart"),
    change_command("up"),
    change_command("down"),
    changes_command,
    decide_command("confirm", asks=False),
    decide_command("roll_back", asks=True),
    watch_command,
)
