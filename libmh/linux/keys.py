"""The key store of configuration runs: a file for each key, its content the status text."""

import re

from libmh.context import Root
from libmh.errors import NotImplementedHere

KEYS = "/var/lib/matahari/sysconfig-keys"
KEY = re.compile(r"[0-9A-Za-z_-][0-9A-Za-z_.-]{0,254}")
UNKNOWN = "unknown"
MAX_STATUS = 65_535


def status(root: Root, key: str) -> str:
    """What was kept under a key; `unknown` for one that is not kept or not valid. Raises `not-authorized`
    when the file may not be read, `backend-failed` when the disk refuses."""
    if not KEY.fullmatch(key):
        return UNKNOWN
    try:
        return root.read(f"{KEYS}/{key}", MAX_STATUS).replace("\0", "") or UNKNOWN
    except NotImplementedHere:  # there is no such file
        return UNKNOWN
