"""The logical addresses that agents, consoles and conductors meet at, and the URLs that lead to a broker
or an agent."""

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from libmh.errors import InvalidArguments
from mh_amqp.addresses import GROUP_PREFIX, MULTICAST

HOST_PREFIX = "mh.host."
EVENT_PREFIX = "mh.event."
REPORT = "mh.report"
CONDUCTOR = "mh.conductor"
MANAGEMENT = "$management"
NODE_TYPE = "org.amqp.management"
SELF = "self"
CHANGED = "properties_changed"
"""The last word of the address of an event that says that properties changed."""
AGENT_CONTAINER = "mh-amqp:"
"""How the container id of a listening agent begins; its host's UUID follows."""
LOOKED_UP = "+srv"
PATH_SCHEME = "amqp+unix"
PORTS = {"amqp": 5672, "amqps": 5671}


def is_private(address: str) -> bool:
    """Whether replies may be sent there: not where others take requests, reports or events."""
    shared = (HOST_PREFIX, EVENT_PREFIX, GROUP_PREFIX)
    return address not in (REPORT, CONDUCTOR, MULTICAST) and not address.startswith(shared)


def host_address(uuid: str) -> str:
    """Where requests for a host go."""
    return HOST_PREFIX + uuid


def event_address(interface: str, member: str) -> str:
    """Where an event goes; `member` is empty for a change of properties."""
    return f"{EVENT_PREFIX}{interface}.{member or CHANGED}"


def event_pattern(interface: str, member: str) -> str:
    """Where to receive the events of one interface or member, or all; empty means any."""
    if not interface:
        return f"{EVENT_PREFIX}#"
    return event_address(interface, member) if member else f"{EVENT_PREFIX}{interface}.*"


@dataclass(frozen=True, slots=True)
class Place:
    """What a URL says: whom to dial, as whom, and which host is meant (`""`: none is named). `looked_up`:
    the host is a domain whose SRV records say whom; `certified` is the name that a certificate has to be
    for, where it is not the host."""

    host: str
    port: int
    uuid: str = ""
    user: str | None = None
    password: str | None = None
    scheme: str = "amqp"
    looked_up: bool = False
    certified: str = ""

    @property
    def secured(self) -> bool:
        """Whether it is to be reached by TLS."""
        return self.scheme == "amqps"

    @property
    def shown(self) -> str:
        """For people and logs: without credentials."""
        bracketed = f"[{self.host}]" if ":" in self.host else self.host
        if self.scheme == PATH_SCHEME:
            return f"{self.scheme}:{self.host}" + (f"#{self.uuid}" if self.uuid else "")
        if self.looked_up:
            return f"{self.scheme}{LOOKED_UP}://{bracketed}"
        return f"{self.scheme}://{bracketed}:{self.port}" + (f"/{self.uuid}" if self.uuid else "")


def place(url: str) -> Place:
    """The parts of `amqp[s]://[user:password@]host[:port][/HOST-UUID]`; with `+srv` before the colon the
    host is a domain whose DNS says where its brokers are. The host of `amqp+unix:/PATH[#HOST-UUID]` is the
    path of a Unix socket or a character device. Raises `InvalidArguments`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # a port that is no number, a bracket that does not close
        raise _refusal(url) from error
    if parts.scheme == PATH_SCHEME:
        if parts.netloc or not parts.path.startswith("/") or parts.query:
            raise _refusal(url)
        return Place(unquote(parts.path), 0, unquote(parts.fragment), scheme=PATH_SCHEME)
    uuid = unquote(parts.path.removeprefix("/"))
    scheme, looked_up = parts.scheme.removesuffix(LOOKED_UP), parts.scheme.endswith(LOOKED_UP)
    if (
        scheme not in PORTS
        or (looked_up and port is not None)
        or not host
        or "/" in uuid
        or parts.query
        or parts.fragment
    ):
        raise _refusal(url)
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    return Place(host, PORTS[scheme] if port is None else port, uuid, user, password, scheme, looked_up)


def listening_place(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, where port 0 picks one, or the path of a Unix socket. Raises
    `InvalidArguments`."""
    if text.startswith("/"):
        return text, 0
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise InvalidArguments(f"'{text[:200]}' is not a place to listen at: expected HOST:PORT or /PATH")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _refusal(url: str) -> InvalidArguments:
    shown = url.rpartition("@")[2][:200]
    return InvalidArguments(
        f"'{shown}' is not the URL of a broker or agent: expected amqp://host:port[/HOST-UUID], or amqps://",
        argument="url",
    )
