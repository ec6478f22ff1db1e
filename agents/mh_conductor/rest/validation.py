"""Requests against JSON schemas, with the words of nova.api.validation."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker, ValidationError
from jsonschema.validators import extend

from mh_conductor.limits import is_printable
from mh_conductor.rest.exchange import Schema, Since
from mh_conductor.rest.faults import Fault

MAX_SHOWN = 1000
NOT_UTF8 = "Query string is not UTF-8 encoded"


class InvalidName(Exception):
    """A name that a format refuses; the message is all that is told."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"An invalid 'name' value was provided. The name must be: {reason}")


def _name(value: object) -> bool:
    if not isinstance(value, str) or not _printable(value) or value != value.strip():
        raise InvalidName("printable characters. Can not start or end with whitespace.")
    return True


def _loose_name(value: object) -> bool:
    """Blanks at its ends are taken, and cut off."""
    if not isinstance(value, str) or not _printable(value) or not value.strip():
        raise InvalidName("printable characters with at least one non space character")
    return True


def _zone(value: object) -> bool:
    if not isinstance(value, str) or not _printable(value) or value != value.strip() or ":" in value:
        raise InvalidName("printable characters except :.Can not start or end with whitespace.")
    return True


def _printable(value: object) -> bool:
    return not isinstance(value, str) or all(map(is_printable, value))


def _number(value: object) -> float | None:
    """What a text says as a number; None for what is none."""
    if not isinstance(value, str | int | float):
        return None
    try:
        return int(value)
    except (ValueError, OverflowError):
        return _real(value)


def _real(value: str | float) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _bound(keyword: str) -> Any:
    """As the keyword is, but for numbers in text, too."""
    original = Draft202012Validator.VALIDATORS[keyword]

    def check(validator: Any, bound: object, instance: object, schema: object) -> Any:
        number = _number(instance)
        return None if number is None else original(validator, bound, number, schema)

    return check


@cache
def _checker() -> FormatChecker:
    checker = FormatChecker(formats=())
    for word, check in (("name", _name), ("loose-name", _loose_name), ("az_name", _zone)):
        checker.checks(word, InvalidName)(check)
    checker.checks("printable")(_printable)
    return checker


@cache
def _validator() -> Any:
    return extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, {word: _bound(word) for word in ("minimum", "maximum")}
    )


def in_force(schemas: Sequence[Since], version: int) -> Schema | None:
    """The newest schema that is not newer than the version."""
    return next((each.schema for each in schemas if each.first <= version), None)


def check_body(schema: Schema, body: object) -> None:
    """Raise the `Fault` for the first thing that is wrong with a body."""
    _check(schema, body, "field/attribute", -1)


def check_query(schema: Schema, query: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The parameters that the schema knows; the others are dropped, unless it forbids them."""
    plain = {name: list(values) for name, values in query.items()}
    _check(schema, plain, "query parameters", 0)
    return {name: values for name, values in plain.items() if name in schema["properties"]}


def _check(schema: Schema, instance: object, what: str, of: int) -> None:
    try:
        _validator()(schema, format_checker=_checker()).validate(instance)
    except ValidationError as error:
        raise Fault(400, _words(error, what, of)) from error
    except TypeError as error:  # a key that no pattern can be held against
        raise Fault(400, str(error)) from error


def _words(error: ValidationError, what: str, of: int) -> str:
    if isinstance(error.cause, InvalidName):
        return str(error.cause)
    if not error.path:
        return error.message[:MAX_SHOWN]
    shown = str(error.instance)[:MAX_SHOWN]
    return f"Invalid input for {what} {error.path[of]}. Value: {shown}. {error.message[:MAX_SHOWN]}"
