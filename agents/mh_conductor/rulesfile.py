"""The file of rules that a process was given: loaded when it is new, by whichever process sees it first."""

import asyncio
import logging
import signal
from collections.abc import Callable

from libmh.errors import InvalidArguments, Problem
from mh_conductor import held, rulebook
from mh_conductor.held import RULES
from mh_conductor.reconcile import Reconciled, Reconciler
from mh_conductor.rules import DEFAULT, RuleSet, load
from mh_conductor.store import Store

log = logging.getLogger("mh_conductor.rulesfile")
MAX_WHO = 255
NONE = RuleSet(())


class RulesFile:
    """`place` is a path, or `default`: the rules that are shipped."""

    def __init__(self, store: Store, place: str) -> None:
        self._store = store
        self._place = place
        self._who = "shipped" if place == DEFAULT else f"file {place}"[:MAX_WHO]
        self._reconciler = Reconciler(store, NONE)
        self._seen: str | None = None
        self._tried: str | None = None
        self._said = ""

    def open(self) -> Reconciled | None:
        """At the start: a file with faults is refused, unless there are rules to go by without it. Raises
        `InvalidArguments`."""
        with self._store.read() as connection:
            known = rulebook.digest_in_force(connection) is not None
        if known:
            return self._reconciler.catch_up() or self.check(whole=True)
        return self._load(load(self._place), asked=False)

    def check(self, *, asked: bool = False, whole: bool = False) -> Reconciled | None:
        """Load the file if it is not what it was when it was loaded last; when `asked`, if its rules are not
        in force. One that is not known to be `whole` may be written right now: it is loaded when the next
        look finds it the same. A file with faults changes nothing."""
        try:
            rules = load(self._place)
        except InvalidArguments as fault:
            if asked or str(fault) != self._said:
                log.warning("%s: the rules in force stay", fault)
            self._said = str(fault)
            return None
        self._said = ""
        before, self._seen = self._seen, rules.digest
        if not asked and (rules.digest == self._tried or (rules.digest != before and not whole)):
            return None
        return self._load(rules, asked=asked)

    def _load(self, rules: RuleSet, *, asked: bool) -> Reconciled | None:
        self._tried = rules.digest
        if not self._wanted(rules, asked=asked):
            return None
        for warning in rules.warnings:
            log.warning("%s", warning)
        done = self._reconciler.load(rules, self._who)
        if done.held is None:
            log.info("the rules of '%s' are in force: %d hosts moved", self._place, done.forecast.affected)
        return done

    def _wanted(self, rules: RuleSet, *, asked: bool) -> bool:
        with self._store.read() as connection:
            now = rulebook.in_force(connection)
            if now is None or now.digest == rules.digest:
                return now is None
            if asked:
                return True
            last = rulebook.last_of(connection, self._who)
            if last is not None and last.digest == rules.digest:
                return False  # somebody has put others in force since
            if self._place == DEFAULT and now.who != self._who:
                return False
            return held.same(connection, RULES, rules.text) is None


async def watch(file: RulesFile, seconds: float, tell: Callable[[Reconciled], None]) -> None:
    """Look at the file every so often, and at SIGHUP, until cancelled."""
    asked = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)
    while True:
        try:
            async with asyncio.timeout(seconds):
                await asked.wait()
        except TimeoutError:  # nobody asked: it is looked at all the same
            pass
        was_asked = asked.is_set()
        asked.clear()
        try:
            done = await asyncio.to_thread(file.check, asked=was_asked)
        except Problem as problem:  # the store, which the next look may find well again
            log.warning("the rules could not be looked at: %s, trying again", problem)
            continue
        if done is not None:
            tell(done)
