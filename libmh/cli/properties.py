"""`--property KEY=VALUE`, as the commands of the fleet take it."""

from collections.abc import Iterable

import click

from libmh.errors import InvalidArguments

PROPERTIES = click.option(
    "--property", "properties", multiple=True, metavar="KEY=VALUE", help="To set; repeat it for more."
)
KEYS = click.option(
    "--property",
    "keys",
    multiple=True,
    required=True,
    metavar="KEY",
    help="To take away; repeat it for more.",
)


def properties_of(texts: Iterable[str], option: str = "property") -> dict[str, str]:
    """Keys and values; the key ends at the first `=`. Raises `InvalidArguments`, which names the option."""
    found: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise InvalidArguments(f"--{option}: expected KEY=VALUE, got '{text}'", argument=option)
        if key in found:
            raise InvalidArguments(f"--{option}: '{key}' is given twice", argument=option)
        found[key] = value
    return found
