"""The options of Nova's API; what serves it is imported when it is asked for."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libmh.dispatch import Dispatcher
from libmh.errors import not_installed
from libmh.serve import Process

TABLES = frozenset({"keystone-roles"})


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--http",
        metavar="HOST:PORT",
        help="serve Nova's API there; https://HOST:PORT: with TLS on loopback, too",
    )
    parser.add_argument("--http-tokens", metavar="FILE", help="TOML: who comes in with which token")
    parser.add_argument(
        "--keystone", metavar="FILE", help="ask Keystone about tokens, as its [keystone_authtoken] says"
    )


@asynccontextmanager
async def web(process: Process, dispatcher: Dispatcher) -> AsyncIterator[None]:
    """Serve Nova's API as long as the block runs, if `--http` says where. Raises `InvalidArguments` for what
    the options say, `NotImplementedHere` where the software is missing."""
    if not process.options.http:
        yield
        return
    try:
        from mh_conductor.rest.listener import listening
    except ImportError as error:
        raise not_installed("http", error) from error
    async with listening(process, dispatcher):
        yield
