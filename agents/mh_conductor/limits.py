"""Nova's limits for names of aggregates and zones, and for metadata (nova.api.validation)."""

import re

ZONE_KEY = "availability_zone"
MAX_NAME = 255
MAX_VALUE = 255
METADATA_KEY = re.compile(r"[a-zA-Z0-9\-_:. ]{1,255}")


def name_fault(name: str) -> str | None:
    """What is wrong with the name of an aggregate or a zone."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"expected 1 to {MAX_NAME} characters, got {len(name)}"
    if name != name.strip():
        return "expected no blank at either end"
    if not name.isprintable():
        return "expected printable characters"
    return None


def key_fault(key: str) -> str | None:
    """What is wrong with a metadata key."""
    if METADATA_KEY.fullmatch(key):
        return None
    return "expected 1 to 255 letters, digits, blanks, '-', '_', ':' or '.'"


def value_fault(value: str) -> str | None:
    """What is wrong with a metadata value."""
    return None if len(value) <= MAX_VALUE else f"expected at most {MAX_VALUE} characters, got {len(value)}"
