"""Brokers by DNS: `amqps+srv://example.org` is whoever the domain's SRV records name at every try.

`_amqps._tcp` and `_matahari._tls` are asked for over TLS, `_amqp._tcp` and `_matahari._tcp` without; the
records' order is RFC 2782's. Whoever they name has to show a certificate for the domain itself, for who
answers DNS could name anybody.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from libmh.errors import Unavailable
from mh_amqp.names import Place

log = logging.getLogger(__name__)
SERVICES: Mapping[str, Sequence[str]] = {
    "amqps": ("_amqps._tcp", "_matahari._tls"),
    "amqp": ("_amqp._tcp", "_matahari._tcp"),
}
LOOKUP_SECONDS = 5.0
MAX_TARGETS = 16


async def targets(where: Place, servers: Sequence[tuple[str, int]] = ()) -> list[Place]:
    """The places to try, in order: that of the URL itself unless it is to be looked up. `servers` are asked
    instead of the system's. Raises `Unavailable` when nobody is named, or no answer comes."""
    if not where.looked_up:
        return [where]
    import dns.asyncresolver
    import dns.exception

    try:
        resolver = dns.asyncresolver.Resolver(configure=not servers)
    except (dns.exception.DNSException, OSError) as error:  # no resolv.conf, or nobody in it
        raise Unavailable(f"no broker is known for '{where.host}': nobody to ask: {error}") from error
    if servers:
        resolver.nameservers = [host for host, _ in servers]
        resolver.port = servers[0][1]
    said: list[str] = []
    for service in SERVICES[where.scheme]:
        name = f"{service}.{where.host.rstrip('.')}."
        try:
            answer = await resolver.resolve(name, "SRV", lifetime=LOOKUP_SECONDS)
        except (dns.exception.DNSException, OSError) as error:  # no such name, no server, no network
            said.append(f"{name} {error}")
            continue
        records: Any = answer.rrset.processing_order() if answer.rrset else ()
        found = [(each.target.to_text(omit_final_dot=True), each.port) for each in records]
        named = [(host, port) for host, port in found[:MAX_TARGETS] if host and host != "."]
        if named:
            return [
                replace(where, host=host, port=port, looked_up=False, certified=where.host)
                for host, port in named
            ]
        said.append(f"{name} says that there is none")
    raise Unavailable(f"no broker is known for '{where.host}': {'; '.join(said)[:500]}")
