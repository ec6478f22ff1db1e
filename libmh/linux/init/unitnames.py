"""Names of units: only what systemd itself could have as a name is ever passed on."""

import re

from libmh.errors import InvalidArguments

UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}")
MAX_NAME = 255
SUFFIXES = (
    *(".service", ".socket", ".target", ".timer", ".path", ".mount"),
    *(".automount", ".swap", ".slice", ".scope", ".device"),
)
ROOTS = ("-.mount", "-.slice")  # of the file tree, and of the control groups
ANY = "matahari"
ESCAPED = re.compile("_([0-9a-f]{2})")
UNITS = "/org/freedesktop/systemd1/unit"


def is_name(name: str) -> bool:
    """Whether systemd.unit(5) allows it, and no program could take it for an option or a path."""
    if name in ROOTS:
        return True
    fits = bool(UNIT_NAME.fullmatch(name)) and len(_suffixed(name)) <= MAX_NAME
    return fits and not name.startswith(("-", ".", "@"))


def _suffixed(name: str) -> str:
    return name if name.endswith(SUFFIXES) else f"{name}.service"


def full(name: str) -> str:
    """With its suffix: a service where it has none. `invalid-arguments` for what is no unit's name."""
    if not is_name(name):
        raise InvalidArguments(
            f"name: expected a unit's name such as 'ssh.service', got '{name[:100]}'", argument="name"
        )
    return _suffixed(name)


def is_template(name: str) -> bool:
    """`many@.service`, which stands for its instances."""
    return name.rpartition(".")[0].endswith("@")


def instance(name: str) -> str:
    """An instance of a template, to learn from it what the template is."""
    prefix, _, suffix = name.rpartition(".")
    return f"{prefix}{ANY}.{suffix}"


def template(name: str) -> str:
    """What a unit that may be an instance is made from."""
    prefix, at, rest = name.partition("@")
    return f"{prefix}@.{rest.rpartition('.')[2]}" if at else name


def unit_path(name: str) -> str:
    """The object path of a unit, by its own name or an alias: sd_bus_path_encode(3)."""
    encoded = (
        chr(byte) if chr(byte).isalpha() or (at and chr(byte).isdigit()) else f"_{byte:02x}"
        for at, byte in enumerate(name.encode("ascii"))
    )
    return f"{UNITS}/{''.join(encoded)}"


def unit_name(path: str) -> str:
    """The name of the unit that an object path stands for."""
    return ESCAPED.sub(lambda found: chr(int(found[1], 16)), path.rpartition("/")[2])
