"""What the node tells of itself, from the declaration: types, attributes, operations, and rows of
entities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from libmh.errors import NotFound
from libmh.spec import Interface, Kind, Plain

NODE_OPERATIONS = frozenset(
    {"QUERY", "GET-TYPES", "GET-ATTRIBUTES", "GET-OPERATIONS", "GET-ANNOTATIONS", "GET-MGMT-NODES"}
)
ENTITY = ("name", "type", "identity")
OVERVIEW = (*ENTITY, "version", "summary")


def describe(operation: str, interfaces: Mapping[str, Interface], entity: str | None) -> Plain:
    """The answer of a `GET-` operation; `entity` restricts it to one type."""
    if operation == "GET-MGMT-NODES":
        return []
    if entity is not None and entity not in interfaces:
        raise NotFound(f"no interface '{entity[:256]}' is served here", interface=entity[:256])
    chosen = [each for each in interfaces.values() if entity in (None, each.name)]
    if operation == "GET-ATTRIBUTES":
        return {each.name: [*ENTITY, *_properties(each)] for each in chosen}
    if operation == "GET-OPERATIONS":
        return {each.name: _operations(each) for each in chosen}
    return {each.name: [] for each in chosen}  # supertypes; annotations


def _properties(interface: Interface) -> list[Plain]:
    return [member.name for member in interface.of(Kind.PROPERTY)]


def _operations(interface: Interface) -> dict[str, Plain]:
    operations: dict[str, Plain] = {"READ": ["attributeNames"]}
    writable: list[Plain] = [member.name for member in interface.of(Kind.PROPERTY) if member.setter]
    if writable:
        operations["UPDATE"] = writable
    for member in interface.of(Kind.METHOD):
        operations[member.name] = [argument.name for argument in member.arguments]
    return operations


@dataclass(frozen=True, slots=True)
class Rows:
    """The answer of a query: columns, and a row for each entity."""

    columns: Sequence[str]
    rows: Sequence[list[Plain]]

    @property
    def size(self) -> int:
        return len(self.rows)

    def page(self, offset: int | None, count: int | None) -> "Rows":
        """The rows from `offset` on, `count` of them at most."""
        first = max(offset or 0, 0)
        last = None if count is None or count <= 0 else first + count
        return Rows(self.columns, self.rows[first:last])


def query_rows(
    interfaces: Mapping[str, Interface],
    entity: str | None,
    wanted: Sequence[str],
    values: Mapping[str, Plain],
    host: str,
) -> Rows:
    """Each interface that is served is an entity; of the `entity` asked for, `values` are the properties.
    What an entity does not have is null."""
    chosen = [each for each in interfaces.values() if entity in (None, each.name)]
    default = (
        OVERVIEW
        if entity is None
        else (*ENTITY, *(str(name) for each in chosen for name in _properties(each)))
    )
    columns = list(wanted) or list(default)
    rows: list[list[Plain]] = []
    for each in chosen:
        known: dict[str, Plain] = {
            "version": each.version,
            "summary": each.doc.partition("\n\n")[0],
            **values,
            "name": host or "self",
            "type": each.name,
            "identity": host or "self",
        }
        rows.append([known.get(column) for column in columns])
    return Rows(columns, rows)
