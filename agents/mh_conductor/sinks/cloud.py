"""Calls on Nova and Placement. openstacksdk finds the cloud, authenticates and speaks HTTP.

Its resources are left out: what changes an aggregate answers without the UUID, and a provider's generation
is stale after its aggregates were set; here, whatever counts is read again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from libmh.caller import time_left
from libmh.errors import BackendFailed, InvalidArguments, NotImplementedHere, Unavailable
from mh_conductor.sinks.settings import OpenStack

NOVA_VERSION = "2.53"
"""The first with a hypervisor's UUID, which is its provider's (Pike)."""
PLACEMENT_VERSION = "1.23"
"""The first that tells by a code what was refused (Rocky)."""
AWAY = (429, 502, 503, 504)
CONCURRENT = "placement.concurrent_update"


class Refused(Exception):
    """An answer of 400 and above that says something of what was asked; `code` is Placement's."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


class Response(Protocol):
    """What of requests' is used."""

    status_code: int
    text: str

    def json(self) -> Any: ...


Request = Callable[..., Response]
"""`request` of openstacksdk's proxies: URL, method, and more by keyword."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """Each call raises `Refused`, `Unavailable` where nobody answers, `BackendFailed` for the rest."""

    name: str
    compute: Request
    resources: Request
    failures: tuple[type[Exception], ...]

    def nova(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("Nova", self.compute, NOVA_VERSION, method, path, body)

    def placement(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        return self._call("Placement", self.resources, PLACEMENT_VERSION, method, path, body)

    def _call(
        self,
        who: str,
        service: Request,
        version: str,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        more: dict[str, Any] = {"json": body} if body is not None else {}
        if not time_left():  # each request has its own limit, and there are many
            raise Unavailable(f"{who} of '{self.name}' is slow: whoever asked has given up")
        try:
            response = service(path, method, microversion=version, raise_exc=False, **more)
        except self.failures as error:  # no endpoint, no connection, no answer in time
            raise Unavailable(f"{who} of '{self.name}' cannot be reached: {error}") from error
        if response.status_code in AWAY:
            raise Unavailable(f"{who} of '{self.name}' answers {response.status_code}: {_said(response)[0]}")
        message, code = _said(response) if response.status_code >= 400 else ("", "")
        if response.status_code >= 500 or response.status_code in (401, 403):
            raise BackendFailed(f"{who} of '{self.name}' answers {response.status_code}: {message}")
        if message:
            raise Refused(response.status_code, message, code)
        return _tree(response)


def _tree(response: Response) -> dict[str, Any]:
    if not response.text:
        return {}
    try:
        tree = response.json()
    except (ValueError, RecursionError) as error:  # somebody else answers at this address
        raise BackendFailed(f"expected JSON, got '{response.text[:80]}'") from error
    if not isinstance(tree, dict):
        raise BackendFailed(f"expected a JSON object, got '{response.text[:80]}'")
    return tree


def _said(response: Response) -> tuple[str, str]:
    """The message, and Placement's code: {"<fault>": {"message": ...}} or {"errors": [{"detail": ...}]}."""
    try:
        tree = response.json()
    except (ValueError, RecursionError):
        tree = None
    for each in tree.values() if isinstance(tree, dict) else ():
        fault = each[0] if isinstance(each, list) and each else each
        if isinstance(fault, dict) and (text := fault.get("message") or fault.get("detail")):
            return " ".join(str(text).split()), str(fault.get("code", ""))
    return " ".join(response.text.split())[:200] or f"status {response.status_code}", ""


def quoted(word: str) -> str:
    """For a path or a query."""
    return quote(word, safe="")


def connect(settings: OpenStack) -> Cloud:
    """Find the cloud that is configured. Raises `NotImplementedHere` without openstacksdk,
    `InvalidArguments` for a cloud that clouds.yaml does not have."""
    try:
        import openstack
        from keystoneauth1.adapter import Adapter
        from keystoneauth1.exceptions import ClientException
        from openstack.exceptions import SDKException
    except ImportError as error:
        raise NotImplementedHere(
            f"the sink '{settings.name}' needs openstacksdk: pip install 'matahari[openstack]' ({error})"
        ) from error
    common = {"app_name": "matahari", "api_timeout": settings.timeout}
    given: dict[str, Any] = {
        "load_yaml_config": False,
        "load_envvars": False,
        "auth_type": "none",
    }
    try:
        connection = openstack.connect(**(common | ({"cloud": settings.cloud} if settings.cloud else given)))
        compute: Any
        placement: Any
        if settings.cloud:
            compute, placement = connection.compute, connection.placement
        else:  # these URLs need not be asked for the versions behind them, as those of a catalog
            session = connection.session
            compute = Adapter(session, service_type="compute", endpoint_override=settings.compute)
            placement = Adapter(session, service_type="placement", endpoint_override=settings.placement)
        return Cloud(settings.name, compute.request, placement.request, (ClientException, SDKException))
    except SDKException as error:
        raise InvalidArguments(f"sink '{settings.name}': {error}") from error
    except ClientException as error:
        raise Unavailable(f"the cloud of sink '{settings.name}' cannot be reached: {error}") from error
