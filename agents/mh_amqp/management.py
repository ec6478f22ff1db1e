"""A management node (AMQP Management, working drafts 9 to 11): what a request means, and its answer.

`type` names an interface, `name` the host's UUID or `self`, `operation` what to do: `READ` (all
properties, or those in `attributeNames`), `UPDATE` (a map of writable properties), a declared method, or a
declared property, which is read. The type `org.amqp.management` is the node itself: `QUERY`, `GET-TYPES`,
`GET-ATTRIBUTES`, `GET-OPERATIONS`, `GET-ANNOTATIONS`, `GET-MGMT-NODES`.
"""

import uuid
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from libmh import audit
from libmh.api.agent import Agent
from libmh.call import Request, Verb, look_up, prepare
from libmh.caller import Caller
from libmh.dispatch import Dispatcher, no_objects
from libmh.errors import InvalidArguments, NotAuthorized, NotFound, NotImplementedHere, Problem
from libmh.spec import Effect, Interface, Kind, Member, Plain, interface_of
from mh_amqp import codec, types
from mh_amqp.authority import Roles
from mh_amqp.bodies import Bodies
from mh_amqp.messages import Message
from mh_amqp.names import NODE_TYPE, SELF
from mh_amqp.query import NODE_OPERATIONS, describe, query_rows
from mh_amqp.status import Answer, Form, body_of, form_of, refusal

READ = "READ"
UPDATE = "UPDATE"
MAX_NAME = 256
MAX_NAMES = 1000
PLAINLY = frozenset({"operation", "type", "name", "mh:trace", "mh:where", "mh:fleet"})
"""What a request that memory may answer says; anything else has to be looked at."""
NO_DATA = (None, b"", b"{}")
EMPTY_BODIES = (None, codec.NULL, codec.map_of([]), b"\xd1\x00\x00\x00\x04\x00\x00\x00\x00")


class Management:
    """Answers requests for the interfaces that are served at one address; `host` is "" where no host is
    meant."""

    def __init__(self, dispatcher: Dispatcher, host: str, served: Collection[str] | None = None) -> None:
        self.dispatcher = dispatcher
        self.host = host
        bound = dispatcher.interfaces
        self.interfaces: Mapping[str, Interface] = {
            name: each.interface for name, each in bound.items() if served is None or name in served
        }
        self.bodies = Bodies(host)
        self._reading: Mapping[object, Request] = {
            name: Request(name, "", Verb.GET_ALL, id="") for name in self.interfaces
        }

    def reads(self, message: Message) -> bool:
        """Whether a request only reads; one that cannot be understood does nothing, so it does too."""
        operation = message.text("operation")
        if message.text("type") == NODE_TYPE or operation in (READ, None):
            return True
        if operation == UPDATE:
            return False
        member = self._member(message)
        return member is None or member.kind is Kind.PROPERTY or member.effect is Effect.READS

    def idempotent(self, message: Message) -> bool:
        """Whether a request may be run again when its answer was lost."""
        if self.reads(message):
            return True
        member = self._member(message)
        return member is not None and member.idempotent

    def _member(self, message: Message) -> Member | None:
        interface = self.interfaces.get(message.text("type") or "")
        return interface.members.get(message.text("operation") or "") if interface else None

    def answer_now(self, message: Message, identity: str) -> Answer | None:
        """The answer of a `READ` of everything that memory holds whole; None when `answer` has to be
        awaited."""
        properties = message.properties
        if properties.get("operation") != READ or not properties.keys() <= PLAINLY:
            return None
        if message.value not in EMPTY_BODIES or message.data not in NO_DATA:
            return None
        request = self._reading.get(message.text("type"))
        if request is None or properties.get("name", SELF) not in (SELF, self.host):
            return None
        roles = self.dispatcher.authority
        if not isinstance(roles, Roles) or not roles.may_read(identity, self.interfaces[request.interface]):
            return None
        try:
            values = self.dispatcher.answer_now(request)
        except LookupError:  # something has to be read first
            return None
        return self.bodies.properties(self.interfaces[request.interface], values, form_of(message))

    async def answer(self, message: Message, caller: Caller) -> Answer:
        """The answer of any request; a problem is one too."""
        form = form_of(message)
        try:
            return await self._perform(message, caller, form)
        except Problem as problem:
            return refusal(problem, self.host, form)

    async def _perform(self, message: Message, caller: Caller, form: Form) -> Answer:
        operation = _required(message, "operation")
        body = body_of(message)
        if message.text("type") == NODE_TYPE or (
            operation in NODE_OPERATIONS and "type" not in message.properties
        ):
            return await self._node(operation, message, body, caller, form)
        interface = self._interface(message)
        self._check_name(message)
        version, number = message.text("mh:v"), message.id_text() or uuid.uuid4().hex
        deadline = _deadline(message)
        if operation in (READ, UPDATE):
            asked = Request(interface.name, "", Verb.GET_ALL, (), caller, deadline, version, number)
            perform = self._read if operation == READ else self._update
            return await perform(interface, asked, body, form)
        member = interface.members.get(operation)
        if member is not None and member.kind is Kind.PROPERTY:
            _no_arguments(operation, body)
            asked = Request(interface.name, operation, Verb.GET, (), caller, deadline, version, number)
            return self.bodies.properties(interface, {operation: await self.dispatcher.call(asked)}, form)
        given = _arguments(member, body, form)
        asked = Request(interface.name, operation, Verb.CALL, given, caller, deadline, version, number)
        result = await self.dispatcher.call(asked)
        return self.bodies.results(interface.members[operation], result, form)

    async def _read(self, interface: Interface, asked: Request, body: Any, form: Form) -> Answer:
        names = _attribute_names(body)
        if not names:
            return self.bodies.properties(interface, await self.dispatcher.call(asked), form)
        values: dict[str, Plain] = {}
        for name in names:
            values[name] = await self.dispatcher.call(replace(asked, member=name, verb=Verb.GET))
        return self.bodies.properties(interface, values, form)

    async def _update(self, interface: Interface, asked: Request, body: Any, form: Form) -> Answer:
        if not isinstance(body, dict) or not body:
            raise InvalidArguments("body: expected a map of the properties to set", argument="body")
        values = {name: _restored(interface, name, value, form) for name, value in body.items()}
        requests = [
            replace(asked, member=name, verb=Verb.SET, arguments=[value]) for name, value in values.items()
        ]
        bound = look_up(self.dispatcher.interfaces, asked)
        for request in requests:  # all are looked at before the first is done
            call = prepare(bound, request)
            await self.dispatcher.authorise(call)
        for request in requests:
            await self.dispatcher.call(request)
        return self.bodies.properties(interface, values, form)

    async def _node(self, operation: str, message: Message, body: Any, caller: Caller, form: Form) -> Answer:
        if operation not in NODE_OPERATIONS:
            raise NotImplementedHere(
                f"the node has no operation '{operation[:MAX_NAME]}'", operation=operation[:MAX_NAME]
            )
        self._check_name(message)
        request = Request(NODE_TYPE, operation, Verb.GET_ALL, (), caller, _deadline(message))
        try:
            await self.dispatcher.authority.authorise(request, interface_of(Agent), None, no_objects)
        except NotAuthorized as problem:
            audit.record("call", f"{NODE_TYPE}.{operation}", {}, caller, problem.word, message.id_text())
            raise
        entity = message.text("entityType")
        if operation != "QUERY":
            return self.bodies.anything(describe(operation, self.interfaces, entity), form)
        values: dict[str, Plain] = {}
        found = None
        if entity is not None:
            found = self._interface(replace(message, properties={"type": entity}))
            read = await self.dispatcher.call(replace(request, interface=found.name, member=""))
            values = read if isinstance(read, dict) else {}
        rows = query_rows(self.interfaces, entity, _attribute_names(body), values, self.host)
        page = rows.page(message.number("offset"), message.number("count"))
        return self.bodies.table(page, found, form)

    def _interface(self, message: Message) -> Interface:
        name = _required(message, "type")
        interface = self.interfaces.get(name)
        if interface is None:
            raise NotFound(f"no interface '{name[:MAX_NAME]}' is served here", interface=name[:MAX_NAME])
        return interface

    def _check_name(self, message: Message) -> None:
        for key in ("name", "identity"):
            name = message.properties.get(key)
            if name not in (None, SELF, self.host or SELF):
                shown = str(name)[:MAX_NAME]
                raise NotFound(f"there is no '{shown}' here: expected '{SELF}' or '{self.host}'", name=shown)


def _required(message: Message, name: str) -> str:
    value = message.properties.get(name)
    if value is None:
        raise InvalidArguments(f"{name}: is missing", argument=name)
    if not isinstance(value, str):
        raise InvalidArguments(f"{name}: expected string, got {value!r:.60}", argument=name)
    return value


def _deadline(message: Message) -> float | None:
    milliseconds = message.properties.get("mh:deadline")
    if milliseconds is None:
        return None
    if not isinstance(milliseconds, int) or isinstance(milliseconds, bool) or milliseconds <= 0:
        raise InvalidArguments(
            f"mh:deadline: expected milliseconds above 0, got {milliseconds!r:.60}", argument="mh:deadline"
        )
    return milliseconds / 1000


def _attribute_names(body: Any) -> list[str]:
    if body is None:
        return []
    if not isinstance(body, dict):
        raise InvalidArguments(f"body: expected a map, got {body!r:.60}", argument="body")
    names = body.get("attributeNames", [])
    if body.keys() - {"attributeNames"}:
        extra = min(body.keys() - {"attributeNames"})
        raise InvalidArguments(f"there is no argument '{extra[:MAX_NAME]}'", argument=extra[:MAX_NAME])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InvalidArguments("attributeNames: expected a list of strings", argument="attributeNames")
    if len(names) > MAX_NAMES:
        raise InvalidArguments(
            f"attributeNames: expected at most {MAX_NAMES}, got {len(names)}", argument="attributeNames"
        )
    return names


def _no_arguments(operation: str, body: Any) -> None:
    if body:
        raise InvalidArguments(f"{operation}: a property takes no arguments", argument=operation)


def _arguments(member: Member | None, body: Any, form: Form) -> list[Plain] | dict[str, Plain]:
    if body is None:
        return {}
    if not isinstance(body, dict | list):
        raise InvalidArguments(
            f"body: expected a map of arguments by name, got {body!r:.60}", argument="body"
        )
    if member is None or form is Form.AMQP:
        return body
    changes = {a.name: change for a in member.arguments if (change := types.from_json(a.type))}
    if isinstance(body, dict):
        return {name: changes[name](value) if name in changes else value for name, value in body.items()}
    names = [argument.name for argument in member.arguments[: len(body)]]
    named = [
        changes[name](value) if name in changes else value for name, value in zip(names, body, strict=False)
    ]
    return [*named, *body[len(names) :]]


def _restored(interface: Interface, name: str, value: Any, form: Form) -> Plain:
    member = interface.members.get(name)
    if form is Form.AMQP or member is None or member.kind is not Kind.PROPERTY:
        return value  # type: ignore[no-any-return]  # a plain tree, as decoded
    change = types.from_json(member.type)
    return change(value) if change else value  # type: ignore[no-any-return]  # a plain tree, as decoded
