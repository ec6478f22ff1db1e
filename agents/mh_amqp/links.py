"""Both ends of an AMQP link: `Sender` and `Receiver`, and the `Delivery` that a receiver hands out. Bytes
in, bytes out.

Everything here runs in the connection's event loop; callbacks are plain functions and must not block. A
link object outlives its C link: after the end every call is refused (`Unavailable`) or does nothing, and
says which below.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from libmh import errors
from mh_amqp import outcome, pn
from mh_amqp.limits import Limits
from mh_amqp.outcome import Outcome, Word
from mh_amqp.pn import Handle, lib

OnOutcome = Callable[[Outcome], None]
WORDS = {
    pn.ACCEPTED: Word.ACCEPTED,
    pn.REJECTED: Word.REJECTED,
    pn.RELEASED: Word.RELEASED,
    pn.MODIFIED: Word.MODIFIED,
}


class Owner(Protocol):
    """What a link needs of its connection."""

    limits: Limits
    remote_container: str
    peer: str
    user: str

    @property
    def paused(self) -> bool:
        """Whether the peer does not read what we write."""
        ...

    def touch(self) -> None:
        """Something is to be written at the end of this turn of the loop."""

    def wait_for_room(self, sender: "Sender") -> None:
        """Call the sender's `pump` after bytes were written."""

    def detaching(self, handle: Handle) -> None:
        """The link was closed on this side."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a peer wants of a link that it attaches here; `address` is None for the anonymous terminus,
    `other` is what the peer calls its own end."""

    address: str | None
    dynamic: bool = False
    settled: bool | None = None
    coordinator: bool = False
    other: str | None = None


def nothing(*_: object) -> None:
    """The callback of who does not care."""


SMALL = 1 << 16
"""Bytes that every peer of ours takes."""
NOTHING: deque[tuple[bytes, bool, OnOutcome]] = deque()
"""Stays empty: a deque of one's own takes 760 bytes, and few senders ever need one."""


class Sender:
    """We send and the peer receives, in order, as far as it grants credit; what it does not is kept, up to
    a limit.

    `on_credit` is called when credit or room came and nothing is kept back; `on_closed(condition,
    description)` once, however the link ended, after the outcomes of all unsettled deliveries were
    reported as LOST.
    """

    __slots__ = (
        "_backlog", "_backlog_bytes", "_link", "_owner", "_session", "_tag", "_unsettled",
        "address", "asked", "name", "on_closed", "on_credit", "settles",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, link: Handle, session: Handle, name: str, asked: Asked | None = None
    ) -> None:
        self._owner = owner
        self._link = link
        self._session = session
        self._tag = 0
        self._unsettled: dict[Handle, OnOutcome] = {}
        self._backlog: deque[tuple[bytes, bool, OnOutcome]] = NOTHING
        self._backlog_bytes = 0
        self.name = name
        self.asked = asked
        self.address = asked.address if asked else None
        self.settles: bool | None = asked.settled if asked else None
        self.on_credit: Callable[[], None] = nothing
        self.on_closed: Callable[[str, str], None] = nothing

    @property
    def open(self) -> bool:
        return self._link is not None

    @property
    def handle(self) -> Handle:
        """The C link, for the connection alone; None once closed."""
        return self._link

    @property
    def owner(self) -> Owner:
        """The connection that it is on."""
        return self._owner

    @property
    def container(self) -> str:
        """What the peer calls itself: an agent keeps its name until it ends."""
        return self._owner.remote_container

    @property
    def whose(self) -> str:
        """The peer, for people: its name and where it is."""
        return f"'{self._owner.remote_container}' at {self._owner.peer}"

    @property
    def credit(self) -> int:
        """Messages that the peer is ready to take now; 0 once closed."""
        return int(lib.pn_link_credit(self._link)) if self._link is not None else 0

    @property
    def unsettled(self) -> int:
        return len(self._unsettled)

    @property
    def waiting(self) -> int:
        """Messages kept back for want of credit."""
        return len(self._backlog)

    @property
    def waiting_bytes(self) -> int:
        """How long they are together."""
        return self._backlog_bytes

    def ready(self) -> bool:
        """Whether a message sent now goes out now, rather than being kept."""
        link = self._link
        if link is None or self._backlog or lib.pn_link_credit(link) <= 0:
            return False
        return self._room()

    def offer(self, raw: bytes) -> bool:
        """Send a settled message if it goes out now; False when it would be kept, or refused."""
        if not raw or len(raw) > SMALL or not self.ready():
            return False
        self._transmit(raw, nothing, settled=True)
        return True

    def send(self, raw: bytes, *, settled: bool = False, on_outcome: OnOutcome = nothing) -> None:
        """Send one encoded message, or keep it until there is credit. Raises `Unavailable`: closed, or too
        much kept; `InvalidArguments` for one that is larger than the peer takes.

        `on_outcome` is called once: with the peer's outcome, or with LOST; for a settled message, when it
        was handed to the engine.
        """
        if self._link is None:
            raise errors.Unavailable(f"the link to '{self.address or ''}' is closed")
        if not raw:
            raise errors.InvalidArguments("an AMQP message has at least one section, not none")
        if len(raw) > SMALL:
            self._check_size(len(raw))
        if self.ready():
            self._transmit(raw, on_outcome, settled=settled)
            return
        limits = self._owner.limits
        if len(self._backlog) >= limits.backlog or self._backlog_bytes + len(raw) > limits.backlog_bytes:
            raise errors.Unavailable(f"too much waits for credit on the link to '{self.address or ''}'")
        if self._backlog is NOTHING:
            self._backlog = deque()
        self._backlog.append((raw, settled, on_outcome))
        self._backlog_bytes += len(raw)

    def _check_size(self, size: int) -> None:
        """Before it is sent in vain, and costs the link."""
        most: int = lib.pn_link_remote_max_message_size(self._link)
        if 0 < most < size:
            raise errors.InvalidArguments(
                f"a message for '{self.address or ''}' has {size} bytes, the peer takes at most {most}"
            )

    async def send_acked(self, raw: bytes, deadline: float = 10.0) -> None:
        """Send, and return when the peer accepted. Raises the Problem of its condition, `Unavailable` when
        the message was released or the link lost, `Timeout` after `deadline` seconds (the message may
        arrive all the same)."""
        answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.send(raw, on_outcome=lambda came: None if answered.done() else answered.set_result(came))
        try:
            async with asyncio.timeout(deadline):
                came = await answered
        except TimeoutError as late:
            raise errors.Timeout(
                f"'{self.address or ''}' did not settle a message in {deadline} s"
            ) from late
        if came.word is Word.REJECTED:
            raise outcome.problem(
                came.condition, came.description, f"'{self.address or ''}' refused a message"
            )
        if came.word is not Word.ACCEPTED:
            raise errors.Unavailable(f"'{self.address or ''}' did not take a message: {came.word}")

    def close(self, condition: str = "", description: str = "") -> None:
        """Detach, with an error when a condition is given. Does nothing the second time."""
        link, self._link = self._link, None
        if link is None:
            return
        if condition:
            pn.set_condition(lib.pn_link_condition(link), condition, description)
        lib.pn_link_close(link)
        self._finish(condition, description)
        self._owner.detaching(link)

    def pump(self) -> None:
        """Credit or room came: send what was kept, then ask for more."""
        while self._backlog and self._link is not None and self.credit > 0 and self._room():
            raw, settled, on_outcome = self._backlog.popleft()
            self._backlog_bytes -= len(raw)
            self._transmit(raw, on_outcome, settled=settled)
        if self._link is not None and not self._backlog:
            self.on_credit()
        if self._link is not None and not self._backlog and lib.pn_link_get_drain(self._link):
            lib.pn_link_drained(self._link)
            self._owner.touch()

    def updated(self, delivery: Handle) -> bool:
        """The peer said something about a delivery; False if it is none of ours."""
        on_outcome = self._unsettled.get(delivery)
        if on_outcome is None:
            return False
        word = WORDS.get(lib.pn_delivery_remote_state(delivery))
        if word is None and not lib.pn_delivery_settled(delivery):
            return True  # an interim state
        came = outcome.ACCEPTED
        if word is not Word.ACCEPTED:
            condition = pn.condition_of(lib.pn_disposition_condition(lib.pn_delivery_remote(delivery)))
            came = Outcome(word or Word.RELEASED, *condition)
        full = len(self._unsettled) >= self._owner.limits.unsettled
        del self._unsettled[delivery]
        lib.pn_delivery_settle(delivery)
        self._owner.touch()
        on_outcome(came)
        if full:
            self.pump()
        return True

    def ended(self, condition: str, description: str) -> Handle:
        """The peer or the network ended the link; gives back the C link, None if this side had closed it."""
        link, self._link = self._link, None
        if link is not None:
            self._finish(condition, description)
        return link

    def _room(self) -> bool:
        limits = self._owner.limits
        if len(self._unsettled) >= limits.unsettled:
            return False
        if lib.pn_session_outgoing_bytes(self._session) < limits.outgoing:
            return True
        self._owner.wait_for_room(self)
        return False

    def _transmit(self, raw: bytes, on_outcome: OnOutcome, *, settled: bool) -> None:
        link = self._link
        self._tag += 1
        delivery = pn.new_delivery(link, b"%x" % self._tag)
        pn.write(link, raw)
        if settled:
            lib.pn_delivery_settle(delivery)
        else:
            self._unsettled[delivery] = on_outcome
            lib.pn_link_advance(link)
        self._owner.touch()
        if settled:
            on_outcome(outcome.ACCEPTED)

    def _finish(self, condition: str, description: str) -> None:
        lost = list(self._unsettled.values()) + [entry[2] for entry in self._backlog]
        self._unsettled.clear()
        self._backlog.clear()
        self._backlog_bytes = 0
        for on_outcome in lost:
            on_outcome(outcome.LOST)
        self.on_closed(condition, description)


class Delivery:
    """A message that arrived. Answer it once with `accept`, `reject`, `release` or `modify`: later
    answers, and answers after its link has ended, do nothing. An answer to one that came settled only
    gives its credit back."""

    __slots__ = ("_delivery", "_link", "raw", "settled")

    def __init__(self, raw: bytes, link: "Receiver", delivery: Handle, *, settled: bool) -> None:
        self.raw = raw
        self.settled = settled
        self._link = link
        self._delivery = delivery

    def accept(self) -> None:
        self._link.answer(self._take(), pn.ACCEPTED)

    def release(self) -> None:
        """Not processed and not to blame: may be delivered to another."""
        self._link.answer(self._take(), pn.RELEASED)

    def modify(self, *, failed: bool = True) -> None:
        """Like release, and counted as a delivery that failed."""
        delivery = self._take()
        if delivery and self._link.open:
            lib.pn_disposition_set_failed(lib.pn_delivery_local(delivery), failed)
        self._link.answer(delivery, pn.MODIFIED)

    def reject(self, condition: str, description: str = "") -> None:
        """Invalid: never to be delivered again."""
        delivery = self._take()
        if delivery and self._link.open:
            pn.set_condition(
                lib.pn_disposition_condition(lib.pn_delivery_local(delivery)), condition, description
            )
        self._link.answer(delivery, pn.REJECTED)

    def _take(self) -> Handle:
        """The C delivery for its only answer: False when it came settled, None when it was answered."""
        delivery, self._delivery = self._delivery, None
        return delivery


class Receiver:
    """The peer sends and we receive, in order, within `window` messages of credit, topped up when half is
    used.

    With `hold` credit comes back only when a delivery was answered, so that at most `window` are in hands
    at once. A peer that sends more than `slack` messages without credit, or one above the message size, is
    detached. `on_closed` as for a sender.
    """

    __slots__ = (
        "_allowed", "_link", "_owed", "_owner", "_parts", "_suspended",
        "address", "asked", "hold", "name", "on_closed", "on_delivery", "settles", "slack", "window",
    )  # fmt: skip

    def __init__(self, owner: Owner, link: Handle, name: str, asked: Asked | None = None) -> None:
        self._owner = owner
        self._link = link
        self._allowed = 0
        self._owed = 0
        self._parts = bytearray()
        self._suspended = False
        self.name = name
        self.asked = asked
        self.address = asked.address if asked else None
        self.settles: bool | None = asked.settled if asked else None
        self.window = 0
        self.slack = 0
        self.hold = False
        self.on_delivery: Callable[[Delivery], None] = nothing
        self.on_closed: Callable[[str, str], None] = nothing

    @property
    def open(self) -> bool:
        return self._link is not None

    @property
    def handle(self) -> Handle:
        """The C link, for the connection alone; None once closed."""
        return self._link

    def start(self, window: int, *, hold: bool = False) -> None:
        """Give the first credit."""
        self.window = window
        self.hold = hold
        self._owed = window
        self.top_up()

    def suspend(self) -> None:
        """Give no more credit until `resume`; what was given may still be used."""
        self._suspended = True

    def resume(self) -> None:
        self._suspended = False
        self.top_up()

    def top_up(self) -> None:
        """Give the credit that is owed, if it is half the window or more and the peer reads what we
        write."""
        if self._owed * 2 < self.window or self._suspended or self._owner.paused or self._link is None:
            return
        if self._allowed + self._owed <= 0:  # it has sent ahead, and credit cannot be negative
            return
        owed, self._owed = self._owed, 0
        if owed:
            self._allowed += owed
            lib.pn_link_flow(self._link, owed)
            self._owner.touch()

    def close(self, condition: str = "", description: str = "") -> None:
        """Detach, with an error when a condition is given. Does nothing the second time."""
        link, self._link = self._link, None
        if link is None:
            return
        if condition:
            pn.set_condition(lib.pn_link_condition(link), condition, description)
        lib.pn_link_close(link)
        self._parts.clear()
        self.on_closed(condition, description)
        self._owner.detaching(link)

    def answer(self, delivery: Handle, state: int) -> None:
        """The outcome of one delivery, for `Delivery` alone."""
        if delivery is None:
            return
        if self.hold:
            self._owed += 1
            self.top_up()
        if delivery and self._link is not None:
            lib.pn_delivery_update(delivery, state)
            lib.pn_delivery_settle(delivery)
            self._owner.touch()

    def arrived(self) -> None:
        """Take what has come: whole messages are handed out, the part of one is kept, within the message
        size."""
        while self._link is not None and (delivery := lib.pn_link_current(self._link)):
            if lib.pn_delivery_aborted(delivery):
                self._parts.clear()
                self._allowed -= 1
                self._owed += 1
                lib.pn_delivery_settle(delivery)
                self.top_up()
                continue
            pending: int = lib.pn_delivery_pending(delivery)
            if len(self._parts) + pending > self._owner.limits.message:
                self._too_big(delivery)
                return
            raw = pn.receive(self._link, pending) if pending else b""
            if lib.pn_delivery_partial(delivery):
                self._parts += raw
                return
            if self._parts:
                raw = bytes(self._parts) + raw
                self._parts = bytearray()
            self._hand_out(raw, delivery)

    def ended(self, condition: str, description: str) -> Handle:
        """The peer or the network ended the link; gives back the C link, None if this side had closed it."""
        link, self._link = self._link, None
        if link is not None:
            self._parts.clear()
            self.on_closed(condition, description)
        return link

    def _hand_out(self, raw: bytes, delivery: Handle) -> None:
        if self._allowed + self.slack <= 0:
            lib.pn_delivery_settle(delivery)
            self.close(outcome.TRANSFER_LIMIT, "a message came without credit")
            return
        self._allowed -= 1
        settled = bool(lib.pn_delivery_settled(delivery))
        if settled:
            lib.pn_delivery_settle(delivery)
        else:
            lib.pn_link_advance(self._link)
        if not self.hold:
            self._owed += 1
            self.top_up()
        self.on_delivery(Delivery(raw, self, False if settled else delivery, settled=settled))

    def _too_big(self, delivery: Handle) -> None:
        said = f"a message may have at most {self._owner.limits.message} bytes"
        pn.set_condition(
            lib.pn_disposition_condition(lib.pn_delivery_local(delivery)), outcome.MESSAGE_SIZE, said
        )
        lib.pn_delivery_update(delivery, pn.REJECTED)
        lib.pn_delivery_settle(delivery)
        self.close(outcome.MESSAGE_SIZE, said)


Link = Sender | Receiver
