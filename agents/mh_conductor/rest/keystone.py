"""Tokens that Keystone gave, checked by OpenStack's own keystonemiddleware.

It is a filter of WSGI, and is asked here for nothing but its verdict: a request without a body goes in with
the token, and what the filter would have handed on tells who it is. So all about it is as operators of
OpenStack know it: the section `[keystone_authtoken]` with its caches, its service user and its time-outs.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from libmh.caller import Caller
from libmh.errors import InvalidArguments, NotImplementedHere
from mh_conductor.rest.entrance import TOKEN, Entrant, refused
from mh_conductor.rest.faults import Fault
from mh_conductor.rest.refusals import TRANSPORT, Refusals

ROLES: Mapping[str, str] = {
    "admin": "operator",
    "service": "read-only",
    "reader": "guest",
    "member": "guest",
}
MAX_NAME = 100
MAX_TOKEN = 16_384
MAX_REMEMBERED = 4096
CACHE = "mh.tokens"
THREADS = 8
SECONDS = 30.0
Start = Callable[..., Any]
Filter = Callable[[dict[str, Any], Start], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Keystone said: `status` of the filter's own answer, or whom it let through."""

    status: int
    user: str = ""
    project: str = ""
    roles: tuple[str, ...] = ()


@dataclass(slots=True)
class Remembered:
    """What the filter keeps of tokens, as it asks for it: the last ones, for as long as it says. Its own
    memory would grow for ever."""

    most: int = MAX_REMEMBERED
    _values: OrderedDict[str, tuple[float, bytes]] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: str) -> bytes | None:
        with self._lock:
            ends, value = self._values.get(key, (0.0, b""))
            return value if monotonic() < ends else None

    def set(self, key: str, value: bytes, time: float = 0.0) -> None:
        """`time`: seconds."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = (monotonic() + time, value)
            while len(self._values) > self.most:
                self._values.popitem(last=False)


def _let_through(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
    start("200 OK", [])
    user, project = (environ.get(f"HTTP_X_{name}_NAME", "")[:MAX_NAME] for name in ("USER", "PROJECT"))
    roles = tuple(each for each in environ.get("HTTP_X_ROLES", "").split(",") if each)
    environ["mh.verdict"].append(Verdict(200, user, project, roles))
    return [b""]


@dataclass(frozen=True, slots=True)
class WithKeystone:
    """Whoever shows a token that Keystone vouches for; `roles`: what its roles are called here."""

    check: Filter
    roles: Mapping[str, str]
    refusals: Refusals = field(default_factory=Refusals)
    _remembered: Remembered = field(default_factory=Remembered)
    _pool: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, thread_name_prefix="keystone")
    )

    async def enter(self, headers: Mapping[str, str], peer: str) -> Caller:
        token = headers.get(TOKEN)
        if not token or len(token) > MAX_TOKEN:
            raise refused(self.refusals, peer, "shows no token")
        asked = asyncio.get_running_loop().run_in_executor(self._pool, self._ask, token)
        try:
            verdict = await asyncio.wait_for(asked, SECONDS)
        except TimeoutError:
            raise Fault(503, f"Keystone did not answer within {SECONDS:g} s") from None
        if verdict.status == 200:
            known = tuple(dict.fromkeys(self.roles[each] for each in verdict.roles if each in self.roles))
            identity = f"{verdict.user}@{verdict.project}" if verdict.project else verdict.user
            return Entrant(TRANSPORT, identity, roles=known or ("none",))
        if verdict.status == 401:
            raise refused(self.refusals, peer, "shows a token that Keystone does not vouch for")
        raise Fault(503, "Keystone cannot be asked now, try again later")

    def _ask(self, token: str) -> Verdict:
        let: list[Verdict] = []
        said: list[int] = []
        environ = {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": "/",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.url_scheme": "http",
            "HTTP_X_AUTH_TOKEN": token,
            "mh.verdict": let,
            CACHE: self._remembered,
        }

        def start(status: str, _headers: object, _exc: object = None) -> None:
            said.append(int(status.partition(" ")[0]))

        for _part in self.check(environ, start):
            pass
        return let[0] if let else Verdict(said[-1] if said else 500)


def keystone(file: str, roles: Mapping[str, Any]) -> WithKeystone:
    """As the file's section `[keystone_authtoken]` says. Raises `InvalidArguments`, `NotImplementedHere`."""
    for name, role in roles.items():
        if not isinstance(role, str):
            raise InvalidArguments(f"[keystone-roles] {name}: expected the name of a role of [roles]")
    if not Path(file).is_file():
        raise InvalidArguments(f"cannot read '{file}': there is no such file", argument="keystone")
    try:
        from keystonemiddleware import auth_token
    except ImportError as error:
        raise NotImplementedHere(
            f"keystonemiddleware is not installed ({error}); pip install 'matahari[keystone]' brings it"
        ) from error
    made = auth_token.filter_factory({}, oslo_config_project="matahari", oslo_config_file=file, cache=CACHE)
    return WithKeystone(made(_let_through), roles or ROLES)
