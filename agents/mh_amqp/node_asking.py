"""Asking the broker's own node, over the connection that a process serves by."""

import asyncio
from dataclasses import dataclass, field, replace

from libmh.call import Request
from libmh.errors import NotFound, NotImplementedHere
from libmh.providers import find_interface
from libmh.spec import DEFAULT_DEADLINE, Plain
from mh_amqp.asking import Asker, asker
from mh_amqp.dialects import Name
from mh_amqp.names import MANAGEMENT
from mh_amqp.post import Post
from mh_amqp.status import body_of, problem_of


@dataclass(slots=True)
class NodeAsking:
    """`libmh.connections.Ask` over what a connection sends by; the reply address is attached when it is
    first needed. `not-implemented` where the broker is not one of ours."""

    sending: Post
    _asker: Asker | None = None
    _attaching: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def __call__(self, request: Request) -> Plain:
        # most processes that serve do without it
        from mh_amqp.client import body_for, request_message, result_of

        if self.sending.dialect.name != Name.MH_BROKER:
            raise NotImplementedHere(f"a broker that speaks {self.sending.dialect.name} is not asked")
        interface = find_interface(request.interface)
        member = interface.members.get(request.member) if interface else None
        if member is None:
            raise NotFound(f"no interface '{request.interface}' with '{request.member}' is known here")
        deadline = request.deadline or DEFAULT_DEADLINE
        asking = await self._attached()
        message = request_message(request, body_for(request, member), MANAGEMENT)
        address = asking.receiver.address if asking.receiver else None
        reply = await asking.ask(replace(message, reply_to=address, ttl=int(deadline * 1000)), deadline)
        problem = problem_of(reply)
        if problem is not None:
            raise problem
        return result_of(request, member, interface, body_of(reply))

    async def _attached(self) -> Asker:
        async with self._attaching:
            if self._asker is None or not self._asker.open:
                self._asker = await asker(self.sending.connection, sending=self.sending)
            return self._asker
