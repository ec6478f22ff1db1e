"""The scheme `registry`: a .reg file, looked at before it is done, and done whole or not at all."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, Protocol

from libmh.errors import BackendFailed, NotAuthorized, Problem
from libmh.schemes import Edit, Execution, Forecast
from libmh.windows.regfile import STRINGS, Step, Value, export, parse

MAX_KEYS = 10_000
MAX_VALUES = 100_000
DENIED = 5  # winerror.h: ERROR_ACCESS_DENIED

Values = dict[str, Value]
Snapshot = dict[str, Values | None]


class Registry(Protocol):
    """The registry. A key is named from its hive on; names keep their case and are found in any. Everything
    raised is a `Problem`."""

    def values(self, key: str) -> Values | None:
        """The values of a key; the name of the default one is empty. None: there is no such key."""
        ...

    def below(self, key: str) -> list[str]:
        """The names of the keys right below a key; none for one that is not there."""
        ...

    def make(self, key: str) -> None:
        """Make a key, with those above it; nothing where it is there."""
        ...

    def put(self, key: str, name: str, value: Value) -> None: ...

    def drop(self, key: str, name: str) -> None:
        """Remove a value; nothing where there is none."""
        ...

    def remove(self, key: str) -> None:
        """Remove a key that has none below it; nothing where there is none."""
        ...


class RegistryScheme:
    """`registry` on a machine; Windows' own registry unless another is given."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry: Registry = registry or Winreg()

    def forecast(self, text: str, seconds: float) -> Forecast:  # noqa: ARG002 - it is quick
        """What each key becomes, before and after as texts of their own that would make it so."""
        before, after = self._looked_ahead(parse(text))
        edits = (
            Edit(key, _exported(key, before[key]), _exported(key, after[key]))
            for key in sorted(after, key=str.lower)
            if before[key] != after[key]
        )
        return Forecast(tuple(edits), exact=False)

    def run(self, text: str, seconds: float) -> Execution:  # noqa: ARG002 - it is quick
        """Do it. When a step fails, what was done is taken back."""
        steps = parse(text)
        before, after = self._looked_ahead(steps)
        changed = sorted(key for key in after if before[key] != after[key])
        try:
            self._make_so(changed, after)
        except Problem as problem:
            self._make_so(changed, before)
            return Execution(1, failed=True, output=f"{problem}; nothing is changed\n", changed=False)
        told = "".join(f"{'changed' if after[key] is not None else 'removed'}: {key}\n" for key in changed)
        return Execution(0, failed=False, output=told, changed=bool(changed))

    def _looked_ahead(self, steps: tuple[Step, ...]) -> tuple[Snapshot, Snapshot]:
        """The keys that steps are about, as they are and as they become."""
        names: dict[str, str] = {}
        before: Snapshot = {}
        after: Snapshot = {}
        left = [MAX_VALUES]

        def known(key: str) -> str:
            name = names.setdefault(key.lower(), key)
            if name not in before:
                before[name] = self._registry.values(name)
                after[name] = None if before[name] is None else dict(before[name] or {})
                left[0] -= len(before[name] or ())
                if len(before) > MAX_KEYS or left[0] < 0:
                    raise BackendFailed(f"expected at most {MAX_KEYS} keys and {MAX_VALUES} values of them")
            return name

        for step in steps:
            if step.removes:
                for key in [*self._tree(known(step.key), known), *_inside(step.key, after)]:
                    after[key] = None
                continue
            name = known(step.key)
            values = after[name] = _made(after[name])
            if step.name is not None:
                _set(values, step.name, step.value)
        return before, after

    def _tree(self, key: str, known: Callable[[str], str]) -> Iterator[str]:
        left = [key]
        while left:
            one = left.pop()
            yield one
            left += [known(f"{one}\\{name}") for name in self._registry.below(one)]

    def _make_so(self, keys: list[str], wanted: Snapshot) -> None:
        """Keys that go are removed from below; the others get the values that they should have."""
        for key in reversed(keys):
            if wanted[key] is None:
                self._registry.remove(key)
        for key in keys:
            values = wanted[key]
            if values is None:
                continue
            self._registry.make(key)
            there = self._registry.values(key) or {}
            for name in there.keys() - values.keys():
                self._registry.drop(key, name)
            for name, value in values.items():
                if there.get(name) != value:
                    self._registry.put(key, name, value)


class Winreg:
    """Windows' own, by the module `winreg` of Python; the 64-bit view."""

    def __init__(self, module: Any = None) -> None:
        self._winreg = module or import_module("winreg")

    def values(self, key: str) -> Values | None:
        try:
            with self._open(key, self._winreg.KEY_READ) as handle:
                count = self._winreg.QueryInfoKey(handle)[1]
                found = [self._winreg.EnumValue(handle, at) for at in range(count)]
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _problem(key, error) from error
        return {name: Value(kind, _data(kind, data)) for name, data, kind in found}

    def below(self, key: str) -> list[str]:
        try:
            with self._open(key, self._winreg.KEY_READ) as handle:
                count = self._winreg.QueryInfoKey(handle)[0]
                return [self._winreg.EnumKey(handle, at) for at in range(count)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _problem(key, error) from error

    def make(self, key: str) -> None:
        try:
            self._winreg.CreateKeyEx(*self._place(key), 0, self._access("KEY_WRITE")).Close()
        except OSError as error:
            raise _problem(key, error) from error

    def put(self, key: str, name: str, value: Value) -> None:
        data = list(value.data) if isinstance(value.data, tuple) else value.data
        try:
            with self._open(key, self._winreg.KEY_WRITE) as handle:
                self._winreg.SetValueEx(handle, name, 0, value.kind, data)
        except (OSError, ValueError, TypeError) as error:  # the latter two: a type that winreg knows better
            raise _problem(key, error) from error

    def drop(self, key: str, name: str) -> None:
        try:
            with self._open(key, self._winreg.KEY_WRITE) as handle:
                self._winreg.DeleteValue(handle, name)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _problem(key, error) from error

    def remove(self, key: str) -> None:
        try:
            self._winreg.DeleteKeyEx(*self._place(key), self._winreg.KEY_WOW64_64KEY, 0)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _problem(key, error) from error

    def _open(self, key: str, access: int) -> Any:
        return self._winreg.OpenKeyEx(*self._place(key), 0, access | self._winreg.KEY_WOW64_64KEY)

    def _access(self, name: str) -> int:
        return int(getattr(self._winreg, name)) | int(self._winreg.KEY_WOW64_64KEY)

    def _place(self, key: str) -> tuple[Any, str]:
        hive, _, below = key.partition("\\")
        return getattr(self._winreg, hive), below


def _exported(key: str, values: Values | None) -> bytes | None:
    return None if values is None else export(key, values).encode("utf-8", "replace")


def _inside(key: str, keys: Snapshot) -> list[str]:
    """Keys below one, those included that a text has just made."""
    return [each for each in keys if each.lower().startswith(f"{key.lower()}\\")]


def _made(values: Values | None) -> Values:
    return {} if values is None else values


def _set(values: Values, name: str, value: Value | None) -> None:
    """A value under a name, whose case is that of the one that is there."""
    there = next((each for each in values if each.lower() == name.lower()), name)
    if value is None:
        values.pop(there, None)
    else:
        values[there] = value


def _data(kind: int, data: Any) -> Any:
    """As `Value` has it what winreg gives: it has None for nothing, and lists."""
    if kind == STRINGS:
        return tuple(data or ())
    if data is None:
        return b""
    return data


def _problem(key: str, error: Exception) -> Problem:
    if isinstance(error, OSError) and (error.errno == 13 or getattr(error, "winerror", 0) == DENIED):
        return NotAuthorized(f"'{key}' may not be changed or read by this process", source=key)
    return BackendFailed(f"'{key}': {getattr(error, 'strerror', None) or error}", source=key)
