"""Names and values with `{fact}` in them: `os-{os_id}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter

from libmh.spec import Plain


class BadTemplate(ValueError):
    """A text whose braces do not name facts."""


@dataclass(frozen=True, slots=True)
class Template:
    """`parts` are (literal text, name of the fact that follows it or None); `names`: the facts that are
    needed, each once, in their order."""

    text: str
    parts: tuple[tuple[str, str | None], ...]
    names: tuple[str, ...] = ()

    def render(self, values: Mapping[str, str]) -> str:
        """The text for given values of all `names`."""
        return "".join(literal + (values[name] if name else "") for literal, name in self.parts)


def read_template(text: str) -> Template:
    """Raises `BadTemplate`; `{{` and `}}` stand for braces."""
    try:
        fields = list(Formatter().parse(text))
    except ValueError as error:
        raise BadTemplate(f"'{text}': {error}") from error
    for _, name, form, conversion in fields:
        if form or conversion or (name is not None and not name.isidentifier()):
            raise BadTemplate(f"'{text}': expected only the names of facts in braces, like {{os_id}}")
    names = dict.fromkeys(name for _, name, _, _ in fields if name is not None)
    return Template(text, tuple((literal, name) for literal, name, _, _ in fields), tuple(names))


def as_text(value: Plain) -> str | None:
    """How a fact's value is written into a name; None for a value that is no text, number or boolean."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None
