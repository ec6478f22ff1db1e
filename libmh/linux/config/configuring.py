"""Configuration runs of this host: what the members of `Sysconfig` that plan and change are made of."""

import importlib
import logging
import threading
import time
from collections.abc import Callable

from libmh.api.sysconfig import Plan, Run, RunResult
from libmh.caller import asking, time_left
from libmh.context import Root
from libmh.errors import Conflict, InvalidArguments, Problem, Unavailable
from libmh.linux.config import keys, planning, plans, runs
from libmh.linux.config.confstore import Store
from libmh.linux.config.performing import SECOND, Order, Performer
from libmh.linux.config.plans import Prepared
from libmh.linux.config.schemes import SCHEMES
from libmh.schemes import Scheme
from libmh.uris import shown

log = logging.getLogger("libmh.linux.config.configuring")
FORECAST_SECONDS = 840.0
FETCH_SECONDS = 60.0
FORCE = 1
ATTEMPTS = 3  # a file that changes under a plan that nobody has seen is planned for again
MAX_CONFIRM = 86_400
MAX_PENDING = 50
GRACE = 3.0  # seconds that what is armed has before the agent does it itself
SHOWN = 100
MAX_SOURCE = 2000
MASTER = "puppet://"


class Settled(Exception):
    """The key has a status already."""


class Configuring:
    """Plans and runs of one host, of which several processes may have one. `tell` hears how runs ended."""

    def __init__(self, root: Root, store: Store, tell: Callable[[Run], None]) -> None:
        self._root, self.store, self._tell = root, store, tell
        self._schemes: dict[str, Scheme] = {}
        self._guard = threading.Lock()
        self._timer: threading.Timer | None = None
        self._awaited: set[str] = set()
        self._performer = Performer(root, store, self.scheme, tell, _below(root, store))

    def scheme(self, name: str) -> Scheme:
        """By its name in any case; `invalid-arguments` for one that is none."""
        place = SCHEMES.get(name.lower())
        if place is None:
            raise InvalidArguments(
                f"scheme: expected one of {', '.join(SCHEMES)}, got '{name[:SHOWN]}'", argument="scheme"
            )
        with self._guard:
            if name.lower() not in self._schemes:
                module, _, attribute = place.partition(":")
                made = getattr(importlib.import_module(module), attribute)
                self._schemes[name.lower()] = made(self._root, self.store.directory)
            return self._schemes[name.lower()]

    def plan(self, scheme: str, text: str, uri: str) -> Plan:
        """Make a plan and keep it."""
        self.scheme(scheme)
        if bool(text) == bool(uri):
            raise InvalidArguments("expected either a text or a URI", argument="text")
        text, source = self._text(uri, scheme) if uri else (text, None)
        prepared = self._prepared(scheme, text, source)
        plans.put(self.store, prepared)
        return prepared.plan

    def run(self, scheme: str, text: str, uri: str, flags: int, key: str) -> str:
        """Plan and apply in one; answers the status that is kept under the key."""
        keys.check(key)
        force = bool(flags & FORCE)
        if not force and keys.is_kept(self._root, key):
            return keys.status(self._root, key)
        if flags & ~FORCE:
            raise InvalidArguments(f"flags: expected 0 or {FORCE}, got {flags}", argument="flags")
        self.scheme(scheme)
        text, source = self._text(uri, scheme) if uri else (text, None)
        for attempt in range(ATTEMPTS):
            prepared = self._prepared(scheme, text, source, saving=True)
            try:
                return self._performer.perform(self._order(prepared, key, force=force)).status
            except Settled:
                return keys.status(self._root, key)
            except Conflict:
                if attempt == ATTEMPTS - 1 or not prepared.plan.exact:
                    raise
        raise Conflict("the files changed again and again")

    def _order(self, prepared: Prepared, key: str, *, force: bool) -> Order:
        def take() -> Prepared:
            if not force and keys.is_kept(self._root, key):  # another client's run was first
                raise Settled
            return prepared

        return Order(take, asking().described, key)

    def _prepared(self, scheme: str, text: str, source: str | None, *, saving: bool = False) -> Prepared:
        planning.check_text(text)
        forecast = self.scheme(scheme).forecast(text, min(FORECAST_SECONDS, time_left()))
        prepared = planning.foretold(
            self._root,
            forecast,
            scheme=scheme.lower(),
            text=text,
            source=source,
            by=asking().described,
            forbidden=self._performer.forbidden,
        )
        return prepared if forecast.saves or not saving else planning.emptied(prepared)

    def _text(self, uri: str, scheme: str) -> tuple[str, str]:
        if uri.lower().startswith(MASTER) and scheme.lower() == "puppet":
            return uri, uri
        from libmh.linux.config.fetch import fetch

        content = fetch(self._root, uri, min(FETCH_SECONDS, time_left())).content
        try:
            return content.decode("utf-8"), shown(uri)[:MAX_SOURCE]
        except UnicodeDecodeError as error:
            raise InvalidArguments(f"what '{shown(uri)[:SHOWN]}' gave is no text in UTF-8") from error

    def apply(self, plan: str, key: str, confirm: int) -> Run:
        """Carry a plan out; it is used up."""
        if key:
            keys.check(key)
        if confirm > MAX_CONFIRM:
            raise InvalidArguments(
                f"confirm: expected at most {MAX_CONFIRM} seconds, got {confirm}", argument="confirm"
            )
        if confirm and len(runs.pending(self.store)) >= MAX_PENDING:
            raise Unavailable(f"{MAX_PENDING} runs wait to be confirmed already")
        order = Order(lambda: plans.take(self.store, plan), asking().described, key, confirm)
        run = self._performer.perform(order)
        self._look_after()
        return run

    def confirm(self, name: str) -> Run:
        """Keep a pending run; of this and its undoing exactly one happens."""
        run = runs.find(self.store, name)
        if runs.confirm(self.store, name):
            self._awaited.discard(name)
            self._performer.disarm(name)
            run = runs.find(self.store, name)
            self._tell(run)
        elif (run := runs.find(self.store, name)).result not in (RunResult.APPLIED, RunResult.UNCHANGED):
            raise Conflict(f"run {name} is {run.result}: there is nothing to confirm", run=name)
        return run

    def undo(self, name: str) -> Plan:
        """The plan that takes a run back, kept like any other."""
        run = runs.find(self.store, name)
        prepared = planning.reverse(self._root, self.store, run, asking().described)
        plans.put(self.store, prepared)
        return prepared.plan

    def watch(self) -> None:
        """End what died with the agent before, and look after what waits to be confirmed."""
        threading.Thread(target=self._begin, name="configuring", daemon=True).start()

    def _begin(self) -> None:
        try:
            self._performer.recover()
            for run in runs.pending(self.store):
                left = _left(run)
                if left > 0:  # what was armed may not have outlived a restart of the host
                    self._performer.disarm(run.id)
                    self._performer.arm(run.id, left)
        except Unavailable:
            log.info("another process is in the middle of a run")
        except Problem as problem:
            log.warning("configuration runs are not looked after: %s, ignoring", problem)
        self._look_after()

    def _look_after(self) -> None:
        """Wait for the next run that has to be confirmed: its end is told, whoever brings it."""
        try:
            waiting = runs.pending(self.store)
        except Problem as problem:
            log.warning("runs that wait to be confirmed are not known: %s, ignoring", problem)
            return
        with self._guard:
            self._awaited |= {run.id for run in waiting}
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if waiting:
                pause = max(0.0, min(_left(run) for run in waiting)) + GRACE
                self._timer = threading.Timer(pause, self._overdue)
                self._timer.daemon = True
                self._timer.start()

    def _overdue(self) -> None:
        for name in sorted(self._awaited):
            try:
                run = runs.find(self.store, name)
                if run.result is RunResult.PENDING and _left(run) > 0:
                    continue
                self._awaited.discard(name)
                if run.result is RunResult.PENDING:
                    self._performer.expire(name)
                elif run.result is RunResult.UNDONE:
                    self._tell(run)
            except Problem as problem:  # the next start of the agent tries again
                log.warning("run %s is not undone: %s, ignoring", name, problem)
        if any(_left(run) > 0 for run in runs.pending(self.store)):
            self._look_after()

    def close(self) -> None:
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        for scheme in self._schemes.values():
            end = getattr(scheme, "close", None)
            if end is not None:
                end()
        self.store.close()


def _left(run: Run) -> float:
    """Seconds until a pending run is undone."""
    return ((run.confirm_by or 0) - time.time_ns()) / SECOND


def _below(root: Root, store: Store) -> str:
    """Where our own records are, as seen from the root: no run writes there."""
    try:
        return "/" + str(store.directory.absolute().relative_to(root.base.absolute()))
    except ValueError:  # elsewhere
        return ""
