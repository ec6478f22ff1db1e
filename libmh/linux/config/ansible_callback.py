"""A plugin of ansible that tells what a playbook does as lines of JSON; ansible has none such of its own.

It is copied to where ansible looks for it, and imports nothing of ours: ansible runs it with its own Python.
"""

import json
import os
from importlib import import_module
from typing import Any

DOCUMENTATION = """
name: matahari
type: stdout
short_description: lines of JSON in a file
description: Writes what each task did to the file that MATAHARI_ANSIBLE_LOG names.
"""
try:
    Base: Any = import_module("ansible.plugins.callback").CallbackBase
except ImportError:  # it is imported by something else than ansible
    Base = object

FILE = "MATAHARI_ANSIBLE_LOG"
PATHS = ("dest", "path", "name")
MAX_DIFF = 1 << 18


class CallbackModule(Base):  # type: ignore[misc]  # its type is known where ansible is
    """Its methods are called by ansible."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "matahari"

    def v2_runner_on_ok(self, result: Any, **_: Any) -> None:
        self._tell("changed" if result._result.get("changed") else "ok", result)  # noqa: SLF001 - ansible's way

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False, **_: Any) -> None:  # noqa: FBT001, FBT002 - ansible's
        self._tell("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._tell("unreachable", result)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        write({"event": "nobody"})

    def _tell(self, event: str, result: Any) -> None:
        told: dict[str, Any] = result._result  # noqa: SLF001 - ansible's way
        hidden = bool(told.get("_ansible_no_log")) or "censored" in told
        write(
            {
                "event": event,
                "task": str(result._task.get_name()),  # noqa: SLF001
                "message": "" if hidden else str(told.get("msg", ""))[:MAX_DIFF],
                "hidden": hidden,
                "diffs": [] if hidden or event == "ok" else list(self._diffs(told)),
            }
        )

    def _diffs(self, told: dict[str, Any]) -> Any:
        given = [told, *(each for each in told.get("results") or () if isinstance(each, dict))]
        for each in given:
            found = each.get("diff") or []
            for diff in found if isinstance(found, list) else [found]:
                yield {"path": path_of(diff, each), "text": str(self._get_diff(diff))[:MAX_DIFF]}


def path_of(diff: Any, told: dict[str, Any]) -> str:
    """The file that a diff is of; empty where that is not said."""
    invocation = told.get("invocation") or {}
    asked = {**invocation, **(invocation.get("module_args") or {})}
    header = str(diff.get("before_header", "")) if isinstance(diff, dict) else ""
    given = (header.partition(" (")[0], *(str(asked.get(name) or "") for name in PATHS))
    return next((path for path in given if path.startswith("/")), "")


def write(told: dict[str, Any]) -> None:
    """Add a line to the file, if there is one."""
    if os.environ.get(FILE):
        with open(os.environ[FILE], "a", encoding="utf-8") as file:  # noqa: PTH123
            file.write(json.dumps(told) + "\n")
