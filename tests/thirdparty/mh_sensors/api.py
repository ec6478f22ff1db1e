"""The declaration: what there is to ask."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from libmh.spec import U32, Access, Effect, Time, event, interface, method, prop, writes


@dataclass(frozen=True, slots=True)
class Limits:
    """Between which temperatures all is well."""

    low: Annotated[float, "degrees Celsius"]
    high: Annotated[float | None, "degrees Celsius; absent where nothing is too hot"] = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a sensor says."""

    sensor: Annotated[str, "its name"]
    temperature: Annotated[float, "degrees Celsius"]
    taken: Annotated[Time, "when"]
    limits: Annotated[Limits, "of this sensor"]


@interface("com.example.Sensors", version="1.0")
class Sensors(Protocol):
    """The temperatures of a host."""

    @prop(source="the sensors", max_age=1.0)
    def readings(self) -> list[Reading]:
        """What every sensor says now."""
        ...

    @prop(source="the agent's settings")
    def alarm(self) -> U32:
        """Degrees Celsius above which `too_hot` is raised."""
        ...

    @writes("alarm")
    def set_alarm(self, value: U32) -> None:
        """Set the alarm."""
        ...

    @method(access=Access.OPEN, objects=("sensor",), returns="reading")
    def read(self, sensor: Annotated[str, "a sensor's name"]) -> Reading:
        """What one sensor says; `not-found` where there is none of that name."""
        ...

    @method(access=Access.ADMIN, effect=Effect.CHANGES, objects=("sensor",), returns="reading")
    def calibrate(
        self,
        sensor: Annotated[str, "a sensor's name"],
        offset: Annotated[float, "degrees Celsius to add from now on"] = 0.0,
    ) -> Reading:
        """Correct a sensor. It raises `too_hot` when that brings it above the alarm."""
        ...

    @event()
    def too_hot(
        self,
        sensor: Annotated[str, "the sensor's name"],
        reading: Annotated[Reading, "what it said"],
    ) -> None:
        """A sensor passed the alarm."""
        return
