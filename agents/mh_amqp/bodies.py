"""The bodies of answers, in either form; what was encoded once is kept for as long as the very same values
are told again.

The dispatcher keeps what properties answered for as long as their declaration allows, and gives the same
objects again: their identity is enough to know that their bytes are still right.
"""

import operator
from collections.abc import Mapping
from typing import Any

from libmh.spec import Interface, Kind, Member, OptionalOf, Plain
from mh_amqp import codec, types
from mh_amqp.query import Rows
from mh_amqp.status import OK, Answer, Form, head, in_amqp, in_json


class Bodies:
    """Belongs to one node; bounded by the number of properties that it serves."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._front = head(OK, "OK", host)
        self._parts: dict[tuple[Form, str, str], tuple[Plain, bytes]] = {}
        self._whole: dict[tuple[Form, str], tuple[dict[str, Plain], Answer]] = {}

    def properties(self, interface: Interface, values: Plain, form: Form) -> Answer:
        """A map of properties by name."""
        given = values if isinstance(values, dict) else {}
        whole = self._whole.get((form, interface.name))
        if whole is not None and (whole[0] is given or _same(whole[0], given)):
            return whole[1]
        parts = [
            self._part(interface, name, value, form) for name, value in given.items() if value is not None
        ]
        if form is Form.JSON:
            answer = in_json(self._front, b"{" + b",".join(parts) + b"}")
        else:
            answer = in_amqp(self._front, codec.map_of_pairs(parts))
        if len(given) > 1:
            self._whole[form, interface.name] = (given, answer)
        return answer

    def _part(self, interface: Interface, name: str, value: Plain, form: Form) -> bytes:
        key = (form, interface.name, name)
        held = self._parts.get(key)
        if held is not None and held[0] is value:
            return held[1]
        member = interface.members[name]
        if form is Form.JSON:
            part = types.dump_json(name) + b":" + types.dump_json(_fit(member.type, value))
        else:
            part = codec.string(name) + types.encoder(member.type)(value)
        self._parts[key] = (value, part)
        return part

    def results(self, member: Member, value: Plain, form: Form) -> Answer:
        """A map of what a method answered, by the names of its results."""
        values = value if len(member.results) > 1 and isinstance(value, list) else [value]
        found = [(r, v) for r, v in zip(member.results, values, strict=False) if v is not None]
        if form is Form.JSON:
            return in_json(self._front, types.dump_json({r.name: _fit(r.type, v) for r, v in found}))
        return in_amqp(
            self._front,
            codec.map_of([b for r, v in found for b in (codec.string(r.name), types.encoder(r.type)(v))]),
        )

    def anything(self, value: Plain, form: Form) -> Answer:
        """A plain tree."""
        if form is Form.JSON:
            return in_json(self._front, types.dump_json(value))
        return in_amqp(self._front, codec.any_value(value))

    def table(self, table: Rows, interface: Interface | None, form: Form) -> Answer:
        """Rows of entities; the columns that are properties of an interface have their declared types."""
        front = head(OK, "OK", self._host, count=table.size)
        members = {each.name: each for each in interface.of(Kind.PROPERTY)} if interface else {}
        known = [members[name].type if name in members else types.ANYTHING for name in table.columns]
        if form is Form.JSON:
            rows = [[_fit(t, v) for t, v in zip(known, row, strict=True)] for row in table.rows]
            return in_json(front, types.dump_json({"attributeNames": list(table.columns), "results": rows}))
        encoders = [types.encoder(OptionalOf(each)) for each in known]
        encoded = [codec.list_of([e(v) for e, v in zip(encoders, row, strict=True)]) for row in table.rows]
        names = codec.list_of([codec.string(name) for name in table.columns])
        fields = [codec.string("attributeNames"), names, codec.string("results"), codec.list_of(encoded)]
        return in_amqp(front, codec.map_of(fields))


def _same(held: dict[str, Plain], given: dict[str, Plain]) -> bool:
    """Whether two maps hold the very same objects under the same names."""
    return (
        len(held) == len(given)
        and all(map(operator.is_, held.values(), given.values()))
        and list(held) == list(given)
    )


def _fit(declared: Any, value: Plain) -> Any:
    change = types.to_json(declared)
    return change(value) if change and value is not None else value


def arguments_in_json(member: Member | None, arguments: Mapping[str, Plain] | list[Plain]) -> bytes:
    """The JSON body of a request; a member that this side does not know is carried by value."""
    known = {a.name: types.to_json(a.type) for a in member.arguments} if member else {}
    anything = types.to_json(types.ANYTHING)
    if not isinstance(arguments, Mapping):
        return types.dump_json(anything(list(arguments)) if anything else arguments)
    changes = {name: known.get(name, anything) for name in arguments}
    return types.dump_json({n: c(v) if (c := changes[n]) else v for n, v in arguments.items()})
