"""The scheme `registry` over a registry of ours, and over a `winreg` of ours."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from libmh.api.sysconfig import RunResult
from libmh.errors import (
    BackendFailed,
    Conflict,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
)
from libmh.windows import registry
from libmh.windows.regfile import NEW, OLD, Step, Value, export, parse
from libmh.windows.registry import Registry, RegistryScheme, Winreg
from libmh.windows.sysconfig import WindowsSysconfig

APP = "HKEY_LOCAL_MACHINE\\SOFTWARE\\App"
SECONDS = 5.0


@dataclass(slots=True)
class FakeWinreg:
    """The module `winreg`: keys by their lower-case names; `broken` is a value that cannot be set."""

    keys: dict[str, dict[str, tuple[Any, int]]] = field(default_factory=dict)
    broken: str = ""
    denied: bool = False
    KEY_READ: int = 1
    KEY_WRITE: int = 2
    KEY_WOW64_64KEY: int = 256
    HKEY_LOCAL_MACHINE: str = "HKEY_LOCAL_MACHINE"
    HKEY_CURRENT_USER: str = "HKEY_CURRENT_USER"

    @contextmanager
    def OpenKeyEx(self, hive: str, below: str, reserved: int, access: int) -> Iterator[str]:  # noqa: N802
        assert access & self.KEY_WOW64_64KEY
        name = f"{hive}\\{below}".lower()
        if self.denied:
            raise PermissionError(13, "denied")
        if name not in self.keys:
            raise FileNotFoundError(2, name)
        yield name

    def CreateKeyEx(self, hive: str, below: str, reserved: int, access: int) -> "FakeWinreg":  # noqa: N802
        if self.denied:
            raise PermissionError(13, "denied")
        parts = f"{hive}\\{below}".lower().split("\\")
        for end in range(1, len(parts) + 1):
            self.keys.setdefault("\\".join(parts[:end]), {})
        return self

    def Close(self) -> None:  # noqa: N802
        return

    def QueryInfoKey(self, key: str) -> tuple[int, int, int]:  # noqa: N802
        return len(self._below(key)), len(self.keys[key]), 0

    def EnumKey(self, key: str, at: int) -> str:  # noqa: N802
        return self._below(key)[at]

    def EnumValue(self, key: str, at: int) -> tuple[str, Any, int]:  # noqa: N802
        name = list(self.keys[key])[at]
        return (name, *self.keys[key][name])

    def SetValueEx(self, key: str, name: str, reserved: int, kind: int, data: Any) -> None:  # noqa: N802
        if name == self.broken:
            raise OSError(22, "broken")
        self.keys[key][name] = (data, kind)

    def DeleteValue(self, key: str, name: str) -> None:  # noqa: N802
        if name not in self.keys[key]:
            raise FileNotFoundError(2, name)
        del self.keys[key][name]

    def DeleteKeyEx(self, hive: str, below: str, access: int, reserved: int) -> None:  # noqa: N802
        name = f"{hive}\\{below}".lower()
        if name not in self.keys:
            raise FileNotFoundError(2, name)
        if self._below(name):
            raise PermissionError(13, "has keys below")
        del self.keys[name]

    def _below(self, key: str) -> list[str]:
        return [each.removeprefix(f"{key}\\") for each in self.keys if each.rpartition("\\")[0] == key]


def made(**values: tuple[Any, int]) -> FakeWinreg:
    fake = FakeWinreg()
    fake.CreateKeyEx("HKEY_LOCAL_MACHINE", "SOFTWARE\\App\\Sub\\Deep", 0, 2)
    fake.keys[APP.lower()].update(values)
    return fake


def text(*lines: str) -> str:
    return "\r\n".join(("\ufeff" + NEW, "", *lines, ""))


def test_every_kind_of_value_is_read_and_written() -> None:
    steps = parse(
        text(
            "; a comment",
            f"[{APP}]",
            '@="default"',
            '"a \\"b\\" \\\\c"="x \\\\ \\"y\\""  ; why',
            '"number"=dword:0000002A',
            '"bytes"=hex:01,\\',
            "  02,0a",
            '"path"=hex(2):25,00,41,00,25,00,00,00',
            '"many"=hex(7):61,00,00,00,62,00,00,00,00,00',
            '"large"=hex(b):01,00,00,00,00,00,00,80',
            '"odd"=hex(8):ff',
            '"gone"=-',
            "[-HKLM\\SOFTWARE\\Old]",
        )
    )
    values = {
        "": Value(1, "default"),
        'a "b" \\c': Value(1, 'x \\ "y"'),
        "number": Value(4, 42),
        "bytes": Value(3, b"\x01\x02\x0a"),
        "path": Value(2, "%A%"),
        "many": Value(7, ("a", "b")),
        "large": Value(11, (1 << 63) + 1),
        "odd": Value(8, b"\xff"),
    }
    assert {step.name: step.value for step in steps if step.name is not None} == {**values, "gone": None}
    assert (steps[0], steps[-1]) == (Step(APP), Step("HKEY_LOCAL_MACHINE\\SOFTWARE\\Old", removes=True))
    again = parse(f"{NEW}\n{export(APP, values)}")
    assert {step.name: step.value for step in again if step.name is not None} == values
    assert parse(f'{OLD}\n[{APP}]\n"a"=hex(2):e9,00')[1].value == Value(2, "é")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("", "line 1: expected 'Windows Registry"),
        ("REGEDIT5\n", "line 1: expected 'Windows Registry"),
        (text("x"), "line 3: expected '.KEY.'"),
        (text('"a"="b"'), "line 3: expected '.KEY.'"),
        (text("[HKEY_NOWHERE\\a]"), "line 3: 'HKEY_NOWHERE.*' is no key"),
        (text("[HKLM\\a\\\\b]"), "is no key"),
        (text("[-HKEY_LOCAL_MACHINE\\SOFTWARE]"), "line 3: .* is not removed"),
        (text(f"[{APP}]", '"a"=dword:xyz'), "line 4: 'dword:xyz' is no value"),
        (text(f"[{APP}]", '"a"=hex:100'), "line 4: 'hex:100' is no value"),
        (text(f"[{APP}]", '"a"=hex(4):01'), "a number of 4 bytes has 1"),
        (text(f"[{APP}]", '"a"=hex(1):01'), "the bytes are no text"),
        (text(f"[{APP}]", '"' + "a" * 20_000 + '"="1"'), "at most 16383"),
        (text(f"[{APP}]", '"a"="b'), "is no value"),
        ("\0", "without NUL"),
        ("\n" * 300_000, "at most 16 MiB"),
    ],
    ids=range(15),
)
def test_what_is_no_reg_file_is_refused_with_its_line(wrong: str, told: str) -> None:
    with pytest.raises(InvalidArguments, match=told):
        parse(wrong)


CHANGE = text(
    f"[{APP}]", '"A"="2"', '"new"=dword:1', '"old"=-', f"[{APP}\\Made]", f"[-{APP}\\Sub]", f"[{APP}\\none]"
)


def test_a_forecast_is_the_keys_before_and_after() -> None:
    fake = made(a=("1", 1), old=(b"\1", 3), other=(None, 3))
    before = {key: dict(values) for key, values in fake.keys.items()}
    edits = {edit.path: edit for edit in RegistryScheme(Winreg(fake)).forecast(CHANGE, SECONDS).edits}
    assert fake.keys == before
    assert edits[APP].before == f'[{APP}]\n"a"="1"\n"old"=hex:01\n"other"=hex:\n'.encode()
    assert edits[APP].after == f'[{APP}]\n"a"="2"\n"new"=dword:00000001\n"other"=hex:\n'.encode()
    assert edits[f"{APP}\\Made"].before is None
    assert edits[f"{APP}\\Sub\\deep"].after is None
    assert len(edits) == 5


def test_a_run_does_what_was_forecast() -> None:
    fake = made(a=("1", 1), old=(b"\1", 3))
    scheme = RegistryScheme(Winreg(fake))
    execution = scheme.run(CHANGE, SECONDS)
    assert (execution.code, execution.failed, execution.changed) == (0, False, True)
    assert f"removed: {APP}\\Sub\n" in execution.output
    assert fake.keys[APP.lower()] == {"a": ("2", 1), "new": (1, 4)}
    assert [key for key in fake.keys if key.startswith(APP.lower() + "\\")] == [
        f"{APP.lower()}\\made",
        f"{APP.lower()}\\none",
    ]
    assert not scheme.run(CHANGE, SECONDS).changed
    remade = text(f"[{APP}\\x]", '"a"="1"', f"[-{APP}]", f"[{APP}\\y]", '"many"=hex(7):61,00,00,00')
    assert not scheme.run(remade, SECONDS).failed
    assert fake.keys[f"{APP.lower()}\\y"] == {"many": (["a"], 7)}
    assert f"{APP.lower()}\\x" not in fake.keys


def test_a_step_that_fails_takes_back_the_others() -> None:
    fake = made(a=("1", 1), old=(b"\1", 3))
    before = {key: dict(values) for key, values in fake.keys.items()}
    fake.broken = "new"
    execution = RegistryScheme(Winreg(fake)).run(CHANGE, SECONDS)
    assert (execution.failed, execution.changed) == (True, False)
    assert "broken; nothing is changed" in execution.output
    assert fake.keys == before
    fake.denied = True
    there: Registry = Winreg(fake)
    for refused in (there.values, there.below, there.make):
        with pytest.raises(NotAuthorized):
            refused(APP)


def test_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_KEYS", 100)
    monkeypatch.setattr(registry, "MAX_VALUES", 5)
    scheme = RegistryScheme(Winreg(made(**{f"v{number}": ("", 1) for number in range(5)})))
    assert scheme.forecast(CHANGE, SECONDS).edits
    scheme = RegistryScheme(Winreg(made(**{f"v{number}": ("", 1) for number in range(6)})))
    with pytest.raises(BackendFailed, match="at most 100 keys and 5 values"):
        scheme.forecast(CHANGE, SECONDS)
    fake = made()
    for number in range(101):
        fake.keys[f"{APP.lower()}\\sub\\{number}"] = {}
    with pytest.raises(BackendFailed, match="at most 100 keys"):
        RegistryScheme(Winreg(fake)).forecast(CHANGE, SECONDS)


def test_the_provider_looks_first_and_keeps_its_statuses() -> None:
    fake = made(password=("hunter2", 1))
    sysconfig = WindowsSysconfig(scheme=RegistryScheme(Winreg(fake)))
    plan = sysconfig.plan("Registry", text(f"[{APP}]", '"password"="other"', '"b"="2"'))
    (change,) = plan.files
    assert '+"b"="2"\n' in change.diff
    assert "hunter2" not in change.diff
    assert "other" not in change.diff
    run = sysconfig.apply(plan.id, "app")
    assert (run.result, run.files, run.key) == (RunResult.APPLIED, [APP], "app")
    assert sysconfig.is_configured("app") == f"OK\nchanged: {APP}\n"
    with pytest.raises(NotFound):
        sysconfig.apply(plan.id)
    again = sysconfig.run_string(text(f"[{APP}]", '"b"="3"'), 0, "registry", "app")
    assert again == sysconfig.is_configured("app")
    assert fake.keys[APP.lower()]["b"] == ("2", 1)
    assert sysconfig.run_string(text(f"[{APP}]", '"b"="3"'), 1, "registry", "app").startswith("OK")
    assert fake.keys[APP.lower()]["b"] == ("3", 1)


def test_a_plan_that_came_true_otherwise_is_a_conflict() -> None:
    fake = made()
    sysconfig = WindowsSysconfig(scheme=RegistryScheme(Winreg(fake)))
    plan = sysconfig.plan("registry", text(f"[{APP}]", '"b"="2"'))
    fake.keys[APP.lower()]["c"] = ("1", 1)
    with pytest.raises(Conflict):
        sysconfig.apply(plan.id)
    fake.broken = "b"
    failed = sysconfig.run_string(text(f"[{APP}]", '"b"="2"'), 0, "registry", "k")
    assert failed.startswith("FAILED\n1\n")
    assert sysconfig.query("x", 0, "registry") == sysconfig.is_configured("none") == "unknown"
    for wrong in (("augeas", "k"), ("registry", "../k")):
        with pytest.raises(InvalidArguments):
            sysconfig.run_string("", 0, *wrong)
    with pytest.raises(NotImplementedHere):
        sysconfig.plan("registry", uri="https://x/")
    with pytest.raises(NotImplementedHere):
        sysconfig.apply(plan.id, confirm=5)
    for number in range(101):
        sysconfig.plan("registry", text(f"[{APP}]", f'"b"="{number}"'))
    assert len(sysconfig.plans()) == 100
    newest = sysconfig.planned(sysconfig.plans()[0])
    assert newest.digest == hashlib.sha256(text(f"[{APP}]", '"b"="100"').encode()).hexdigest()
    with pytest.raises(NotFound):
        sysconfig.planned(plan.id)


def test_what_windows_does_not_have() -> None:
    sysconfig = WindowsSysconfig(scheme=RegistryScheme(Winreg(made())))
    answers = (
        *(sysconfig.drift, sysconfig.history, lambda: sysconfig.configured("k")),
        *(lambda: sysconfig.confirm("r"), lambda: sysconfig.undo("r")),
        *(lambda: sysconfig.settings("f"), lambda: sysconfig.plan_setting("f", "k")),
        lambda: sysconfig.run_uri("https://x/", 0, "registry", "k"),
    )
    for answer in answers:
        with pytest.raises(NotImplementedHere, match="Windows has no"):
            answer()
    sysconfig.set_is_postboot_configured(3)
    assert sysconfig.is_postboot_configured() == 3
    assert sysconfig.hostname()
