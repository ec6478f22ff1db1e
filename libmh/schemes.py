"""What a scheme of configuration does: it says what a text would change and, where another program has to
make the change, makes it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Edit:
    """A file before and after. None: there is no such file. `told`: the program's own words (a unified diff
    where it prints one) where it alone knows what the file becomes; `after` then says nothing."""

    path: str
    before: bytes | None
    after: bytes | None
    told: str | None = None


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a text would do. `exact`: writing the edits is all that has to be done. `saves`: it means to
    write at all (a text of augeas does when it says `save`)."""

    edits: tuple[Edit, ...]
    output: str = ""
    exact: bool = True
    saves: bool = True


@dataclass(frozen=True, slots=True)
class Execution:
    """How a program that made the change ended: its exit code, whether that means failure, what it said.
    `changed`: whether it changed anything, as far as it says."""

    code: int
    failed: bool
    output: str
    changed: bool = True


class Scheme(Protocol):
    """A scheme. Both raise `Problem`; neither leaves anything behind or running after `seconds`. For puppet
    the text may be `puppet://HOST`."""

    def forecast(self, text: str, seconds: float) -> Forecast:
        """What the text would change; it changes nothing."""
        ...

    def run(self, text: str, seconds: float) -> Execution:
        """Make the change, where the forecast was not `exact`."""
        ...
