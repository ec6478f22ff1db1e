"""The C engine below proton's Python classes: the calls that are made for every message, and the constants
they need.

proton's own wrappers (`Event`, `Link`, `Delivery`) cost several Python objects and two reference counts
for each event; these calls cost one. Pointers are owned by the C connection: a link or session dies when
it is freed here, a delivery when it is settled, and the objects that hold them forget them at that moment.
"""

from collections.abc import Sequence
from typing import Any

from cproton import (
    ffi,
    lib,
    pn_condition_get_description,
    pn_condition_get_name,
    pn_condition_set_description,
    pn_condition_set_name,
    pn_data_put_symbol,
    pn_link_name,
    pn_receiver,
    pn_sender,
    pn_terminus_get_address,
    pn_terminus_set_address,
)

Handle = Any  # a C pointer: hashable and comparable by address, false when null

ACCEPTED: int = lib.PN_ACCEPTED
REJECTED: int = lib.PN_REJECTED
RELEASED: int = lib.PN_RELEASED
MODIFIED: int = lib.PN_MODIFIED
SND_UNSETTLED: int = lib.PN_SND_UNSETTLED
SND_SETTLED: int = lib.PN_SND_SETTLED
SND_MIXED: int = lib.PN_SND_MIXED
NO_TERMINUS: int = lib.PN_UNSPECIFIED
COORDINATOR: int = lib.PN_COORDINATOR
DURABLE: int = lib.PN_DELIVERIES
REMOTE_CLOSED: int = lib.PN_REMOTE_CLOSED
LOCAL_CLOSED: int = lib.PN_LOCAL_CLOSED
LOCAL_UNINIT: int = lib.PN_LOCAL_UNINIT
SASL_OK: int = lib.PN_SASL_OK
SASL_NONE: int = lib.PN_SASL_NONE

__all__ = [
    "Handle",
    "condition_of",
    "ffi",
    "lib",
    "new_delivery",
    "pn_link_name",
    "pn_receiver",
    "pn_sender",
    "pn_terminus_get_address",
    "pn_terminus_set_address",
    "put_flags",
    "put_symbols",
    "receive",
    "set_condition",
    "write",
]

_from_buffer = ffi.from_buffer


def impl(wrapper: object) -> Handle:
    """The C pointer inside one of proton's Python objects."""
    return wrapper._impl  # type: ignore[attr-defined]  # noqa: SLF001 - there is no public way


def condition_of(condition: Handle) -> tuple[str, str]:
    """Name and description of an error condition; ("", "") when there is none."""
    if not lib.pn_condition_is_set(condition):
        return "", ""
    return pn_condition_get_name(condition) or "", pn_condition_get_description(condition) or ""


def set_condition(condition: Handle, name: str, description: str) -> None:
    pn_condition_set_name(condition, name)
    pn_condition_set_description(condition, description[:500])


def put_symbols(data: Handle, words: Sequence[str]) -> None:
    """Write an array of symbols; nothing for none."""
    if not words:
        return
    lib.pn_data_put_array(data, False, lib.PN_SYMBOL)  # noqa: FBT003 - C
    lib.pn_data_enter(data)
    for word in words:
        pn_data_put_symbol(data, word)
    lib.pn_data_exit(data)


def put_flags(data: Handle, words: Sequence[str]) -> None:
    """Write a map in which each symbol is true; nothing for none."""
    if not words:
        return
    lib.pn_data_put_map(data)
    lib.pn_data_enter(data)
    for word in words:
        pn_data_put_symbol(data, word)
        lib.pn_data_put_bool(data, True)  # noqa: FBT003 - C
    lib.pn_data_exit(data)


def new_delivery(link: Handle, tag: bytes) -> Handle:
    return lib.pn_delivery(link, (len(tag), _from_buffer(tag)))


def write(link: Handle, raw: bytes) -> None:
    lib.pn_link_send(link, _from_buffer(raw), len(raw))


def receive(link: Handle, size: int) -> bytes:
    """Take up to `size` bytes of the link's current delivery."""
    buffer = bytearray(size)
    taken: int = lib.pn_link_recv(link, _from_buffer(buffer), size)
    return bytes(buffer) if taken == size else bytes(buffer[: max(taken, 0)])
