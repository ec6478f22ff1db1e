"""The answer: two sensors that stand where the kernel's would."""

import time

from libmh.context import Context
from libmh.errors import NotFound
from mh_sensors.api import Limits, Reading, Sensors

DEFAULT_ALARM = 80
TEMPERATURES = {"cpu": 45.5, "disk": 31.0}


class FileSensors(Sensors):
    """Made by the agent with a context, like every provider."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._offsets: dict[str, float] = {}

    def readings(self) -> list[Reading]:
        return [self._reading(sensor) for sensor in TEMPERATURES]

    def alarm(self) -> int:
        return self._context.settings.number("sensors.alarm", DEFAULT_ALARM)

    def set_alarm(self, value: int) -> None:
        self._context.settings.set("sensors.alarm", value)

    def read(self, sensor: str) -> Reading:
        if sensor not in TEMPERATURES:
            raise NotFound(f"there is no sensor '{sensor}'", sensor=sensor)
        return self._reading(sensor)

    def calibrate(self, sensor: str, offset: float = 0.0) -> Reading:
        self.read(sensor)
        self._offsets[sensor] = offset
        reading = self._reading(sensor)
        if reading.temperature > self.alarm():
            self._context.events.emit(Sensors.too_hot, sensor=sensor, reading=reading)
        return reading

    def _reading(self, sensor: str) -> Reading:
        temperature = TEMPERATURES[sensor] + self._offsets.get(sensor, 0.0)
        return Reading(sensor, temperature, time.time_ns(), Limits(0.0, 90.0 if sensor == "cpu" else None))
