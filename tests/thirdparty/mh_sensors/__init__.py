"""Temperatures of a host, as an interface of its own."""

from mh_sensors.api import Limits, Reading, Sensors

__all__ = ["Limits", "Reading", "Sensors"]
