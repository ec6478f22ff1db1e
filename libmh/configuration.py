"""The configuration file of an agent: TOML. Its keys are the long options, its tables the command's own."""

import argparse
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_FILE = 1 << 20
NOT_IN_A_FILE = frozenset({"config", "help", "version"})


def options_and_tables(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, tables: Collection[str]
) -> tuple[argparse.Namespace, Mapping[str, Any]]:
    """Parse a command line. Where it says nothing of an option, the value of the file that `--config` names
    stands. Anything unknown or unreadable is a usage error: one sentence on stderr, exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(words)
    if options.config is None:
        return options, {}
    values = _load(parser, options.config)
    found = {name: value for name, value in values.items() if isinstance(value, dict)}
    for name in sorted(found.keys() - set(tables)):
        parser.error(f"'{options.config}': there is no table [{name}] here")
    from_file = [
        word
        for name, value in values.items()
        if name not in found
        for word in _words(parser, options.config, name, value, words)
    ]
    return parser.parse_args([*from_file, *words]), found


def _load(parser: argparse.ArgumentParser, path: str) -> dict[str, Any]:
    import tomllib

    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            parser.error(f"the configuration '{path}' is longer than {MAX_FILE} bytes")
        return tomllib.loads(text.decode())
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or not TOML
        parser.error(f"cannot read the configuration '{path}': {error}")


def _words(
    parser: argparse.ArgumentParser, path: str, name: str, value: object, given: Sequence[str]
) -> Iterator[str]:
    action = parser._option_string_actions.get(f"--{name}")  # noqa: SLF001 - argparse has no other way to ask
    if action is None or name in NOT_IN_A_FILE:
        parser.error(f"'{path}': there is no option '{name}'")
    if any(word.partition("=")[0] in action.option_strings for word in given):
        return  # the command line wins
    several = isinstance(action, argparse._AppendAction)  # noqa: SLF001 - nor to ask this
    for each in value if isinstance(value, list) and several else [value]:
        if action.nargs == 0:
            if not isinstance(each, bool):
                parser.error(f"'{path}': {name}: expected true or false, got '{each}'")
            if each:
                yield f"--{name}"
        elif isinstance(each, bool | list | dict):
            parser.error(f"'{path}': {name}: expected a string or a number, got '{each}'")
        else:
            yield f"--{name}={each}"
