"""The ASGI application: routes, and what is the same for every request."""

import asyncio
import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Protocol
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from libmh.caller import Caller
from libmh.dispatch import Dispatcher
from libmh.errors import Problem
from mh_conductor.rest import (
    aggregates,
    extra_specs,
    flavors,
    hypervisors,
    microversions,
    services,
    validation,
    versions,
    zones,
)
from mh_conductor.rest.exchange import Exchange, Fleet, Operation
from mh_conductor.rest.faults import NO_RESOURCE, Fault, fault_of

log = logging.getLogger("mh_conductor.rest")
OPERATIONS: Sequence[Operation] = (
    *aggregates.OPERATIONS,
    *zones.OPERATIONS,
    *flavors.OPERATIONS,
    *extra_specs.OPERATIONS,
    *hypervisors.OPERATIONS,
    *services.OPERATIONS,
)
ROOT = f"/{versions.VERSION}"
MAX_BODY = 114_688  # as Nova's
MAX_PARAMETERS = 1000
MAX_SHOWN = 40
BODY_SECONDS = 30.0
JSON = "application/json"
TYPES = frozenset({"", "text/plain", JSON, "application/vnd.openstack.compute+json"})
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
WITH_BODY = frozenset({"POST", "PUT"})
# older catalogues put the project's id into the URL of the API
PROJECT = re.compile(r"(?<=^/v2\.1)/[0-9a-f-]+(?=/)")


class Entrance(Protocol):
    """Who asks. Raises the `Fault` for somebody who may not come in."""

    async def enter(self, headers: Mapping[str, str], peer: str) -> Caller: ...


@dataclass(slots=True)
class Answer:
    """What is sent back."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        content = b"" if self.body is None else json.dumps(self.body).encode()
        return Response(content, self.status, self.headers, JSON)


@dataclass(frozen=True, slots=True)
class Api:
    """Answers requests, on behalf of whom the entrance lets in."""

    dispatcher: Dispatcher
    entrance: Entrance

    async def operate(self, request: Request, operations: Mapping[str, Operation]) -> Response:
        """A path of the API; one method or another of it."""
        own = f"req-{uuid.uuid4()}"
        answer = Answer(200, headers={"x-openstack-request-id": own, "x-compute-request-id": own})
        try:
            await self._answer(request, operations.get(request.method), answer)
        except Fault as fault:
            answer.status, answer.body = fault.status, fault.body()
            answer.headers |= fault.headers
        return answer.response()

    async def _answer(self, request: Request, operation: Operation | None, answer: Answer) -> None:
        peer = request.client.host if request.client else ""
        caller = await self.entrance.enter(request.headers, peer)
        if operation is None:
            raise Fault(404, NO_RESOURCE)
        version = microversions.wanted(request.headers.items())
        answer.headers |= microversions.told(f"{microversions.MAJOR}.{version}")
        _check_type(request)
        body = await _body(request) if request.method in WITH_BODY else None
        first, last = operation.versions
        if not first <= version <= last:
            raise Fault(404, NO_RESOURCE)
        fleet = Fleet(self.dispatcher, caller, answer.headers["x-openstack-request-id"])
        query = _query(request, operation, version)
        if operation.body:
            schema = validation.in_force(operation.body, version)
            validation.check_body(schema or {}, body)
        base = f"{_server(request)}{ROOT}"
        try:
            answer.body = await operation.run(
                Exchange(fleet, version, base, request.path_params, query, body)
            )
        except Problem as problem:
            raise fault_of(problem) from problem
        answer.status = operation.status


def _server(request: Request) -> str:
    return f"{request.url.scheme}://{request.url.netloc}"


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in TYPES:
        raise Fault(415, "Unsupported Content-Type")


def _query(request: Request, operation: Operation, version: int) -> Mapping[str, Sequence[str]]:
    schema = validation.in_force(operation.query, version)
    if schema is None:
        return {}
    text = request.scope["query_string"].decode("ascii", "surrogateescape")
    try:
        given = parse_qs(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeError:
        raise Fault(400, validation.NOT_UTF8) from None
    except ValueError:
        raise Fault(400, f"expected at most {MAX_PARAMETERS} query parameters") from None
    return validation.check_query(schema, given)


async def _body(request: Request) -> Any:
    """The JSON that was sent; None for nothing."""
    read = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                read += part
                if len(read) > MAX_BODY:
                    raise Fault(413, "Request is too large.", {"Connection": "close"})
    except TimeoutError:
        said = f"the body did not come within {BODY_SECONDS:g} s"
        raise Fault(408, said, {"Connection": "close"}) from None
    try:
        return json.loads(read, parse_constant=_no_number, parse_float=_finite) if read else None
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or nested beyond all measure
        raise Fault(400, "Malformed request body") from None


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):  # what is kept could not be answered as JSON
        raise ValueError(f"{text[:MAX_SHOWN]} is no number here")
    return number


def application(dispatcher: Dispatcher, entrance: Entrance) -> Starlette:
    """Nova's API, as far as it is about aggregates, zones, flavors and hosts."""
    api = Api(dispatcher, entrance)
    paths: dict[str, dict[str, Operation]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method] = each
    routes = [
        Route("/", _versions, methods=METHODS),
        Route(ROOT, _version, methods=METHODS),
        Route(f"{ROOT}/", _version, methods=METHODS),
        *(_route(api, path, operations) for path, operations in paths.items()),
        _route(api, "/{rest:path}", {}),
        Route("/{rest:path}", _choices, methods=METHODS),
    ]
    # what nobody expected is logged by the server, with its traceback
    handlers: Any = {Exception: _unexpected, ClientDisconnect: _gone}
    found = Starlette(routes=routes, exception_handlers=handlers)
    found.router.redirect_slashes = False
    found.add_middleware(WithoutProject)
    return found


def _route(api: Api, path: str, operations: Mapping[str, Operation]) -> Route:
    async def answer(request: Request) -> Response:
        return await api.operate(request, operations)

    return Route(ROOT + path, answer, methods=METHODS)


@dataclass(frozen=True, slots=True)
class WithoutProject:
    """Middleware: leaves the project's id out of the path."""

    app: Any

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = PROJECT.sub("", scope["path"], count=1)
            scope = {**scope, "path": path}
        await self.app(scope, receive, send)


async def _versions(request: Request) -> Response:
    return Answer(200, versions.every(_server(request))).response()


async def _version(request: Request) -> Response:
    try:
        wanted = microversions.wanted(request.headers.items())
    except Fault as fault:
        return Answer(fault.status, fault.body(), dict(fault.headers)).response()
    headers = dict(microversions.told(f"{microversions.MAJOR}.{wanted}"))
    return Answer(200, versions.one(_server(request)), headers).response()


async def _choices(request: Request) -> Response:
    return Answer(300, versions.choices(_server(request), request.url.path)).response()


async def _unexpected(_request: Request, error: Exception) -> Response:
    fault = Fault(500, f"Unexpected API Error. The log of the conductor has it.\n{type(error)}")
    return Answer(fault.status, fault.body()).response()


async def _gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it
