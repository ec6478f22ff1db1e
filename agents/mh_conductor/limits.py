"""Nova's limits for names of aggregates and zones, and for metadata (nova.api.validation)."""

import re
import unicodedata

ZONE_KEY = "availability_zone"
DEFAULT_ZONE = "nova"
MAX_NAME = 255
MAX_VALUE = 255
MAX_KEYS = 1000  # of one aggregate or flavor: Nova knows no limit, a store has to
MAX_INT = 2**31 - 1
MAX_WHO = 255
MAX_WHY = 500
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
METADATA_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")


def name_fault(name: str) -> str | None:
    """What is wrong with the name of an aggregate or a flavor."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"expected 1 to {MAX_NAME} characters, got {len(name)}"
    if name != name.strip():
        return "expected no blank at either end"
    if not (name.isascii() and name.isprintable()) and not all(map(is_printable, name)):
        return "expected printable characters"
    return None


def is_printable(char: str) -> bool:
    """As Nova has it: of the basic plane, neither a control character nor a line's or paragraph's end."""
    category = unicodedata.category(char)
    return char < "\uffff" and category[0] != "C" and (category[0] != "Z" or category == "Zs")


def zone_fault(name: str) -> str | None:
    """What is wrong with the name of a zone."""
    return "expected no ':'" if ":" in name else name_fault(name)


def storable(text: str) -> bool:
    """Whether a database can hold it: PostgreSQL refuses U+0000, and half a character has no UTF-8."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def holdable(text: str, most: int) -> str:
    """What a database can hold of a text that a host may have made, in so many characters."""
    cut = text[:most]
    return cut if storable(cut) else UNSTORABLE.sub("\ufffd", cut)


def key_fault(key: str) -> str | None:
    """What is wrong with a metadata key."""
    if METADATA_KEY.fullmatch(key):
        return None
    return "expected 1 to 255 letters, digits, blanks, '-', '_', ':' or '.'"


def value_fault(value: str) -> str | None:
    """What is wrong with a metadata value."""
    if len(value) > MAX_VALUE:
        return f"expected at most {MAX_VALUE} characters, got {len(value)}"
    return None if storable(value) else "expected text without U+0000 and without halves of characters"
