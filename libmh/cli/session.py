"""What the commands of one `mhctl` run share: the URL, how to print, the connection once it is needed."""

import errno
import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from libmh.call import Request, Verb
from libmh.cli.explain import FAILED, FLEET, NO_CONDUCTOR, as_plain, exit_code, explain
from libmh.cli.render import as_json, show
from libmh.cli.wide import INTERRUPTED, Wide, ask_many
from libmh.client import Connection, connect
from libmh.errors import InvalidArguments, Problem, Timeout
from libmh.outcomes import Judge
from libmh.spec import Interface, Member, Plain, Type

ONE_HOST = (
    "this command asks one host, which --on names; `mhctl call` asks many, and so do the commands that have"
    " the name of a member"
)


@dataclass(slots=True)
class Session:
    """`timeout` is in seconds; None leaves each member its declared deadline. `wide`: many hosts are meant,
    not the one at `url`."""

    url: str = "local:"
    json: bool = False
    timeout: float | None = None
    wide: Wide | None = None
    _connection: Connection | None = None

    @property
    def target(self) -> str:
        """Who is asked, for people."""
        return str(self.wide) if self.wide else self.url

    def widen(self, wide: Wide | None) -> None:
        """Mean many hosts from now on, if any are named."""
        self.wide = wide

    def connection(self) -> Connection:
        """The connection, made when it is first needed. Raises `InvalidArguments` where many hosts are
        meant."""
        if self.wide is not None:
            raise InvalidArguments(ONE_HOST)
        if self._connection is None:
            self._connection = connect(self.url, self.timeout)
        return self._connection

    def ask(
        self,
        interface: Interface,
        member: str,
        verb: Verb,
        arguments: dict[str, Plain] | None = None,
        *,
        many: bool = False,
        judge: Judge | None = None,
    ) -> Plain:
        """The plain answer to a request. A command that says `many` has one request, which many hosts may be
        asked: then what they answer is printed, and this does not return. `judge` tells which answers are
        failures."""
        given = arguments if arguments is not None else {}
        version = interface.version
        request = Request(interface.name, member, verb, given, deadline=self.timeout, version=version)
        if self.wide is None:
            return self._ask_one(interface, request)
        if not many:
            raise InvalidArguments(ONE_HOST)
        if self.wide.queue_for is not None:
            from libmh.cli.jobs import leave

            how = interface.members.get(member), self.wide.queue_for
            raise click.exceptions.Exit(leave(self.wide, request, *how, as_text=not self.json))
        declared = _answered(interface.members.get(member), verb)
        raise click.exceptions.Exit(ask_many(self.wide, request, declared, judge, json=self.json))

    def _ask_one(self, interface: Interface, request: Request) -> Plain:
        try:
            return self.connection().request(request)
        except Timeout as problem:
            if interface.short not in FLEET:
                raise
            raise Timeout(problem.message, **{"hint": NO_CONDUCTOR, **problem.details}) from problem

    def print(self, declared: Type, plain: Plain) -> None:
        """As a table, or as JSON."""
        if self.json:
            print(as_json(plain))
        else:
            show(declared, plain)

    def show(self, interface: Interface, member: str, arguments: dict[str, Plain] | None = None) -> None:
        """Call a method of one host or of the fleet, and print what it answers."""
        declared = results_type(interface.members[member])
        answer = self.ask(interface, member, Verb.CALL, arguments)
        if declared is not None:
            self.print(declared, answer)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()


pass_session = click.make_pass_decorator(Session, ensure=True)


def reported(session: Session, work: Callable[[], None]) -> None:
    """Run a command's work; a problem becomes one sentence, a hint and the exit code."""
    try:
        work()
    except Problem as problem:
        if session.json:
            print(as_json(as_plain(problem)))
        print(explain(problem), file=sys.stderr)
        raise click.exceptions.Exit(exit_code(problem)) from problem
    except KeyboardInterrupt:
        print("\nmhctl: interrupted", file=sys.stderr)
        raise click.exceptions.Exit(INTERRUPTED) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # nobody reads on: click ends quietly
            raise
        print(f"mhctl: cannot print: {error.strerror}", file=sys.stderr)
        raise click.exceptions.Exit(FAILED) from error


def results_type(member: Member) -> Type | None:
    """The type of a method's one result; None where it answers nothing or several."""
    return member.results[0].type if len(member.results) == 1 else None


def _answered(member: Member | None, verb: Verb) -> Type | None:
    if member is None or verb is Verb.GET_ALL:
        return None
    return member.type if verb is Verb.GET else results_type(member)
