"""Words that a shell completes from the host that the line being completed asks."""

from collections.abc import Callable, Iterable, Mapping
from threading import Thread
from typing import Any

import click
from click.shell_completion import CompletionItem

from libmh.call import Verb
from libmh.cli.render import harmless
from libmh.cli.session import Session
from libmh.errors import Problem
from libmh.spec import Interface, Plain

LOCAL = "local:"
COMPLETION_SECONDS = 1.5
MAX_COMPLETIONS = 1000
MAX_HELP = 100
Told = Callable[[Any], Iterable[tuple[str, str]]]
"""The words of a member's answer, each with what it means."""
Given = Callable[[Mapping[str, Any]], Mapping[str, Plain]]
"""The arguments of a member, from what has been typed of the command."""


class FromHost(click.ParamType[str]):
    """A word that the host knows: one of those that a member answers."""

    def __init__(
        self,
        name: str,
        interface: Interface,
        member: str,
        told: Told,
        given: Given = lambda _typed: {},
    ) -> None:
        self.name = name
        self._interface = interface
        self._member = member
        self._told = told
        self._given = given

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del param
        url = str(ctx.find_root().params.get("url") or LOCAL)
        found: list[tuple[str, str]] = []
        # whoever presses a key does not wait for a host that does not answer
        asking = Thread(target=self._ask, args=(url, self._given(ctx.params), found), daemon=True)
        asking.start()
        asking.join(COMPLETION_SECONDS)
        fitting = [each for each in found if each[0].startswith(incomplete) and each[0].isprintable()]
        return [CompletionItem(word, help=_short(doc) or None) for word, doc in fitting[:MAX_COMPLETIONS]]

    def _ask(self, url: str, given: Mapping[str, Plain], found: list[tuple[str, str]]) -> None:
        session = Session(url, timeout=COMPLETION_SECONDS)
        try:
            answer = session.ask(self._interface, self._member, Verb.CALL, dict(given))
            found += self._told(answer if isinstance(answer, list) else [])
        except (Problem, KeyError, TypeError):  # nothing to complete from, and nowhere to say so
            return
        finally:
            session.close()


def words(answer: Iterable[Plain]) -> Iterable[tuple[str, str]]:
    """The words of an answer that is a list of them."""
    return ((str(each), "") for each in answer)


def _short(doc: str) -> str:
    return harmless(doc.replace("\n", " "))[:MAX_HELP]
