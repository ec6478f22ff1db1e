"""Steps -> calls. What has been done by others meanwhile counts as done, after a look; a refusal is told and
what hangs on it is left; where nobody answers any more, the rest is."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from libmh.caller import time_left
from libmh.errors import Problem
from mh_conductor.sinks.cloud import CONCURRENT, Cloud, Refused
from mh_conductor.sinks.matching import tentative
from mh_conductor.sinks.reading import aggregate, aggregates
from mh_conductor.sinks.settings import OpenStack
from mh_conductor.sinks.steps import Action, Pushed, Step

MAX_ATTEMPTS = 5
RESERVE_SECONDS = 60.0
"""Short of the caller's deadline, so that he is told what was done and what is there."""


class Pusher:
    """Carries the steps of one plan out, in their order."""

    def __init__(self, cloud: Cloud, settings: OpenStack, keep: Callable[[], None]) -> None:
        self._cloud = cloud
        self._settings = settings
        self._keep = keep
        self._made: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._homeless: dict[str, str] = {}
        self._staying: dict[str, str] = {}
        self._left: dict[str, list[Step]] = {}
        self._calls: dict[Action, Callable[[Step], None]] = {
            Action.CREATE_TRAIT: self._create_trait,
            Action.CREATE: self._create,
            Action.RENAME: self._rename,
            Action.SET_METADATA: self._set_metadata,
            Action.UNSET_METADATA: self._set_metadata,
            Action.ADD_HOST: self._add_host,
            Action.REMOVE_HOST: self._remove_host,
            Action.DELETE: self._delete,
            Action.SET_TRAITS: self._set_traits,
            Action.MIRROR_HOST: self._mirror,
            Action.UNMIRROR_HOST: self._mirror,
        }

    def push(self, steps: Sequence[Step]) -> Pushed:
        """Do them all, or say of each why not."""
        pushed = Pushed()
        stopped = ""
        for step in steps:
            if not stopped and time_left() < RESERVE_SECONDS:
                stopped = "the time is over: plan again"
            reason = f"not tried: {stopped}" if stopped else self._hindered(step)
            if not reason:
                try:
                    self._keep()
                    self._calls[step.action](step)
                except Problem as problem:
                    # whether it was carried out is not known: the next plan looks
                    reason = stopped = problem.message
                except Refused as refused:
                    reason = refused.message
                except (KeyError, TypeError, AttributeError, ValueError) as error:
                    reason = stopped = f"'{self._settings.name}' does not answer as expected: {error!r}"
            if reason:
                self._note(step, reason)
                pushed.failed.append((step, reason))
            else:
                pushed.done += 1
        return pushed

    def _hindered(self, step: Step) -> str:
        """Why a step must not be tried after what has failed before it."""
        if step.aggregate in self._broken and step.action not in (Action.REMOVE_HOST, Action.DELETE):
            return f"not tried: {self._broken[step.aggregate]}"
        if step.action is Action.REMOVE_HOST and step.host in self._homeless:
            return f"not tried: {step.host} could not join '{self._homeless[step.host]}'"
        if step.action is Action.UNSET_METADATA and step.aggregate in self._staying:
            return f"not tried: {self._staying[step.aggregate]} is still in it"
        return ""

    def _note(self, step: Step, reason: str) -> None:
        if step.action in (Action.CREATE, Action.SET_METADATA):
            self._broken.setdefault(step.aggregate, f"'{step.target}' has not got its metadata: {reason}")
        elif step.action is Action.ADD_HOST:
            self._homeless.setdefault(step.host, step.target)
        elif step.action is Action.REMOVE_HOST:
            self._staying.setdefault(step.aggregate, step.host)

    def _at(self, step: Step) -> str:
        return self._made.get(step.aggregate, step.aggregate)

    def _action(self, step: Step, body: dict[str, Any]) -> None:
        self._cloud.nova("POST", f"/os-aggregates/{self._at(step)}/action", body)

    def _create_trait(self, step: Step) -> None:
        self._cloud.placement("PUT", f"/traits/{step.target}")

    def _create(self, step: Step) -> None:
        """Nova takes no metadata here, so it gets its name, which says that it is ours, when it has them."""
        name = tentative(self._settings.owner, step.aggregate)
        try:
            made = self._cloud.nova("POST", "/os-aggregates", {"aggregate": {"name": name}})
            number = str(made["aggregate"]["id"])
        except Refused as refused:
            left_behind = [each for each in aggregates(self._cloud) if each.name == name]
            if refused.status != 409 or not left_behind:
                raise
            number = str(left_behind[0].id)
        self._made[step.aggregate] = number
        try:
            self._set_metadata(step)
            self._rename_to(number, step.target)
        except Refused:
            with suppress(Refused):  # the next plan does it
                self._cloud.nova("DELETE", f"/os-aggregates/{number}")
            raise

    def _rename(self, step: Step) -> None:
        self._rename_to(self._at(step), step.name)

    def _rename_to(self, number: str, name: str) -> None:
        self._cloud.nova("PUT", f"/os-aggregates/{number}", {"aggregate": {"name": name}})

    def _set_metadata(self, step: Step) -> None:
        self._action(step, {"set_metadata": {"metadata": dict(step.metadata)}})

    def _add_host(self, step: Step) -> None:
        try:
            self._action(step, {"add_host": {"host": step.host}})
        except Refused as refused:
            # 409 is "already has host", or the zone; only a look tells them apart
            if refused.status != 409 or step.host not in aggregate(self._cloud, self._at(step)).hosts:
                self._put_back(step.host)
                raise

    def _put_back(self, host: str) -> None:
        """A host that has left a zone for one that does not take it would be restricted by nothing."""
        for step in self._left.pop(host, []):
            with suppress(Refused):  # why it was refused elsewhere is what has to be told
                self._action(step, {"add_host": {"host": host}})

    def _remove_host(self, step: Step) -> None:
        try:
            self._action(step, {"remove_host": {"host": step.host}})
            self._left.setdefault(step.host, []).append(step)
        except Refused as refused:
            if refused.status != 404 or self._is_member(step):
                raise

    def _is_member(self, step: Step) -> bool:
        try:
            return step.host in aggregate(self._cloud, self._at(step)).hosts
        except Refused as refused:
            if refused.status == 404:
                return False
            raise

    def _delete(self, step: Step) -> None:
        try:
            self._cloud.nova("DELETE", f"/os-aggregates/{self._at(step)}")
        except Refused as refused:
            if refused.status != 404:
                raise

    def _set_traits(self, step: Step) -> None:
        mine = self._settings.prefix

        def changed(traits: set[str]) -> set[str]:
            coming = {trait for trait, comes in step.traits.items() if comes}
            going = {trait for trait, comes in step.traits.items() if not comes and trait.startswith(mine)}
            return (traits | coming) - going

        self._edit(step.provider, "traits", changed)

    def _mirror(self, step: Step) -> None:
        comes = step.action is Action.MIRROR_HOST

        def changed(members: set[str]) -> set[str]:
            return members | {step.aggregate} if comes else members - {step.aggregate}

        self._edit(step.provider, "aggregates", changed)

    def _edit(self, provider: str, what: str, changed: Callable[[set[str]], set[str]]) -> None:
        """Read, change and write a provider's list, in which others have their entries; anew where somebody
        wrote in between."""
        path = f"/resource_providers/{provider}/{what}"
        for attempt in range(1, MAX_ATTEMPTS + 1):
            told = self._cloud.placement("GET", path)
            now = set(told[what])
            wanted = changed(now)
            if wanted == now:
                return
            generation = {"resource_provider_generation": told["resource_provider_generation"]}
            try:
                self._cloud.placement("PUT", path, {what: sorted(wanted), **generation})
                return
            except Refused as refused:
                if refused.code != CONCURRENT or attempt == MAX_ATTEMPTS:
                    raise
