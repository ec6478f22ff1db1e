"""The driver's name of a network link: ETHTOOL_GDRVINFO (linux/ethtool.h), which virtual links answer
too."""

import array
import fcntl
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 0x3
DRVINFO_SIZE = 196
DRIVER = slice(4, 36)
IFNAMSIZ = 16


def driver(link: str) -> str | None:
    """None where the link does not tell, or is gone."""
    name = link.encode()
    if len(name) >= IFNAMSIZ:
        return None
    info = array.array("B", struct.pack("=I", ETHTOOL_GDRVINFO).ljust(DRVINFO_SIZE, b"\0"))
    address, _ = info.buffer_info()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
            fcntl.ioctl(handle, SIOCETHTOOL, struct.pack("16sP16x", name, address))
    except OSError:  # no IPv4 in this kernel, not supported by the link, or gone meanwhile
        return None
    return info.tobytes()[DRIVER].partition(b"\0")[0].decode("ascii", "replace") or None
