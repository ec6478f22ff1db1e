"""Facts: whatever a provider does, every property has one, in time."""

import threading
import time
from dataclasses import dataclass
from typing import Annotated, Protocol

import pytest

from libmh.api.host import Fact, FactStatus
from libmh.errors import BackendFailed, NotAuthorized, NotImplementedHere, Timeout
from libmh.facts import Facts, collect
from libmh.guard import Guard
from libmh.spec import U32, interface, prop
from waiting import wait_for


@dataclass(frozen=True, slots=True)
class Thing:
    """A record."""

    size: Annotated[U32, "how large"]
    colour: Annotated[str | None, "if it has one"] = None


@interface("org.example.Sample", version="1.0")
class Sample(Protocol):
    """Properties that go well and badly."""

    @prop(source="here")
    def good(self) -> Thing:
        """Answers."""
        ...

    @prop(source="there", constant=True)
    def constant(self) -> str:
        """Never changes."""
        ...

    @prop(source="nowhere")
    def missing(self) -> str:
        """Is not on this host."""
        ...

    @prop()
    def absent(self) -> str | None:
        """Is not known."""
        ...

    @prop()
    def denied(self) -> str:
        """May not be read."""
        ...

    @prop(deadline=0.2)
    def slow(self) -> U32:
        """Sometimes does not come back."""
        ...

    @prop()
    def broken(self) -> str:
        """Its backend fails."""
        ...

    @prop()
    def bug(self) -> str:
        """Raises what it should not."""
        ...

    @prop()
    def liar(self) -> U32:
        """Answers what it does not declare."""
        ...

    @prop()
    def unwritten(self) -> str:
        """Is not implemented."""
        return ""

    @prop(inline=True)
    def quick(self) -> U32:
        """From memory."""
        ...


LIE = (
    "org.example.Sample.liar answered what it does not declare: "
    "org.example.Sample.liar: expected u32 (0 to 4294967295), got -1"
)


class ThisSample(Sample):
    def __init__(self) -> None:
        self.hang = threading.Event()
        self.hang.set()
        self.reads = 0

    def good(self) -> Thing:
        return Thing(7)

    def constant(self) -> str:
        self.reads += 1
        return "always"

    def missing(self) -> str:
        raise NotImplementedHere("there is no such file")

    def absent(self) -> str | None:
        return None

    def denied(self) -> str:
        raise NotAuthorized("root alone may")

    def slow(self) -> int:
        self.hang.wait(30)
        return 3

    def broken(self) -> str:
        raise BackendFailed("the daemon said no")

    def bug(self) -> str:
        raise ZeroDivisionError("by nothing")

    def liar(self) -> int:
        return -1

    def quick(self) -> int:
        return 1


def test_every_property_has_a_fact(caplog: pytest.LogCaptureFixture) -> None:
    before = time.time_ns()
    facts = collect(ThisSample())
    assert {name: (fact.status.value, fact.value, fact.reason) for name, fact in facts.items()} == {
        "good": ("ok", {"size": 7}, None),
        "constant": ("ok", "always", None),
        "missing": ("unsupported", None, "there is no such file"),
        "absent": ("unsupported", None, "this host does not tell"),
        "denied": ("denied", None, "root alone may"),
        "slow": ("ok", 3, None),
        "broken": ("failed", None, "the daemon said no"),
        "bug": ("failed", None, "ZeroDivisionError: by nothing"),
        "liar": (
            "failed",
            None,
            "BrokenProvider: " + LIE,
        ),
        "unwritten": ("unsupported", None, "'org.example.Sample.unwritten' is not implemented on this host"),
        "quick": ("ok", 1, None),
    }
    assert facts["good"].source == "here"
    assert before <= facts["good"].observed <= time.time_ns()
    assert "org.example.Sample.bug cannot be read" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_what_hangs_is_stale_with_its_last_good_value_and_time() -> None:
    provider = ThisSample()
    facts = Facts(provider, Guard())
    first = facts.collect()["slow"]
    provider.hang.clear()
    for reason in ("did not answer within 0.2 s", "has not come back"):
        started = time.monotonic()
        again = facts.collect()
        assert time.monotonic() - started < 20
        stale = again["slow"]
        assert (stale.status, stale.value, stale.observed) == (FactStatus.STALE, 3, first.observed)
        assert reason in str(stale.reason)
        assert again["good"].status is FactStatus.OK
    provider.hang.set()


def test_what_hangs_from_the_start_is_a_timeout() -> None:
    provider = ThisSample()
    provider.hang.clear()
    fact = Facts(provider, Guard()).collect()["slow"]
    assert (fact.status, fact.value) == (FactStatus.TIMEOUT, None)
    provider.hang.set()


def test_it_comes_back() -> None:
    provider, guard = ThisSample(), Guard()
    facts = Facts(provider, guard)
    provider.hang.clear()
    assert facts.collect()["slow"].status is FactStatus.TIMEOUT
    provider.hang.set()
    wait_for(lambda: not guard.stuck)
    assert facts.collect()["slow"].status is FactStatus.OK


def test_a_timeout_that_the_provider_raises_counts_too() -> None:
    class Late(ThisSample):
        def good(self) -> Thing:
            raise Timeout("logind did not answer")

    assert collect(Late())["good"].status is FactStatus.TIMEOUT


def test_a_constant_is_read_once() -> None:
    provider = ThisSample()
    facts = Facts(provider, Guard())
    first, second = facts.collect()["constant"], facts.collect()["constant"]
    assert provider.reads == 1
    assert first == second


def test_many_collections_at_once_do_not_wait_for_each_other() -> None:
    provider = ThisSample()
    facts = Facts(provider, Guard(max_threads=4))
    found: list[dict[str, Fact]] = []
    threads = [threading.Thread(target=lambda: found.append(facts.collect())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [each["good"].status for each in found] == [FactStatus.OK] * 20
