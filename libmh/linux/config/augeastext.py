"""A text of augeas before it is run: which commands it has, and which files its paths lead to."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from libmh.errors import InvalidArguments
from libmh.linux.config.lenses import normal

MAX_TEXT = 16 << 20
MAX_LINES = 100_000
MAX_LINE = 1 << 16
MAX_DEPTH = 32
SHOWN = 100

# where a command has its path expressions, counted from its first argument
COMMANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("set", "clear", "touch", "rm", "rename", "setm", "clearm"), (0,)),
    **dict.fromkeys(("get", "label", "ls", "match", "count", "print", "source", "context"), (0,)),
    **dict.fromkeys(("mv", "move", "cp", "copy"), (0, 1)),
    **dict.fromkeys(("ins", "insert"), (2,)),
    **dict.fromkeys(("defvar", "defnode"), (1,)),
    "store": (1, 2),
    "retrieve": (1, 2, 3),
    **dict.fromkeys(("save", "load", "quit", "errors", "info", "help", "load-file", "transform"), ()),
}
REFUSED: Mapping[str, str] = {
    "dump-xml": "it writes files of its own",
    "preview": "the plan shows what a file becomes",
    "span": "places in a file are not kept",
}
LENS = re.compile(r"@?[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)?")
LABEL = re.compile(r"/((?:\\.|[^\\/\[\]|=()!,*'\"\s$])+)")
FILES = re.compile(r"(?<![\w.*\]/\\-])/files(?![\w.-])")
WORD = re.compile(r"""\s*((?:\\.|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|\[(?:\\.|[^\]\\])*\]|[^\s\\"'])+)""")


@dataclass(frozen=True, slots=True)
class Reach:
    """Where below `/files` a path leads: its first labels, that are plain names."""

    labels: tuple[str, ...]


@dataclass(slots=True)
class Text:
    """A text that may be run: its lines as number, command and words; where its paths lead; the lenses that
    it names for files."""

    lines: list[tuple[int, str, str]] = field(default_factory=list)
    reaches: set[Reach] = field(default_factory=set)
    lenses: dict[str, str] = field(default_factory=dict)


def parse(text: str) -> Text:
    """Raises `invalid-arguments`, with the number of the line, for what is no command or is not run here."""
    if len(text) > MAX_TEXT or "\0" in text:
        raise InvalidArguments("expected at most 16 MiB of commands, without NUL", argument="text")
    parsed = Text()
    if text.count("\n") > MAX_LINES:
        raise InvalidArguments(f"expected at most {MAX_LINES} lines", argument="text")
    for number, line in enumerate(text.split("\n"), 1):
        if (words := line.strip()) and not words.startswith("#"):
            _add(parsed, number, words)
    return parsed


def _add(text: Text, number: int, line: str) -> None:
    if len(line) > MAX_LINE:
        raise refused(number, f"expected at most {MAX_LINE} characters")
    words = [_bare(word) for word in WORD.findall(line)]
    verb = words[0] if words else line
    if verb in REFUSED:
        raise refused(number, f"'{verb}' is not run here: {REFUSED[verb]}")
    if verb not in COMMANDS:
        raise refused(number, f"'{verb[:SHOWN]}' is no command of augeas")
    arguments = words[1:]
    if verb == "transform":
        _transform(text, number, arguments)
    elif verb == "load-file":
        text.reaches.add(Reach(_labels("/" + "".join(arguments[:1]).lstrip("/"), number)))
    else:
        paths = arguments if "/augeas/context" in line else [*_at(arguments, COMMANDS[verb])]
        for path in paths:
            text.reaches |= set(reaches(path, number))
        if verb in ("print", "ls") and not arguments:
            text.reaches.add(Reach(()))
        text.lines.append((number, verb, line))


def _at(words: list[str], places: tuple[int, ...]) -> Iterator[str]:
    return (words[place] for place in places if place < len(words))


def _transform(text: Text, number: int, arguments: list[str]) -> None:
    """`transform LENS incl FILE`: that lens is taken for that file."""
    match arguments:
        case [lens, "incl", path] if LENS.fullmatch(lens) and path.startswith("/") and "*" not in path:
            text.lenses["/" + "/".join(_labels(path, number))] = normal(lens)
        case _:
            raise refused(number, "expected 'transform LENS incl FILE' with the absolute name of one file")


def reaches(path: str, number: int = 0) -> Iterator[Reach]:
    """Where a path expression leads below `/files`, with those in its predicates. A relative one begins
    there. Raises `invalid-arguments` for one that is nested too deep or leads upwards."""
    if _depth(path) > MAX_DEPTH or len(path) > MAX_LINE or "\0" in path:
        raise refused(number, f"the path is too long, or nested more than {MAX_DEPTH} deep")
    if path.startswith(("//", "/*")):
        yield Reach(())
    if path and path[0] not in "/$([":
        yield Reach(_labels("/" + path, number))
    for found in FILES.finditer(path):
        yield Reach(_labels(path[found.end() :], number))


def _labels(path: str, number: int) -> tuple[str, ...]:
    labels: list[str] = []
    at = 0
    while found := LABEL.match(path, at):
        label = re.sub(r"\\(.)", r"\1", found[1])
        if label in ("..", "."):
            raise refused(number, f"'{path[:SHOWN]}' leads upwards: expected names and '/'")
        if "::" in label or path[found.end() : found.end() + 1] in (
            "*",
            "(",
        ):  # an axis, a pattern, a function
            break
        labels.append(label)
        at = found.end()
    return tuple(labels)


def _depth(path: str) -> int:
    depth = deepest = 0
    for each in path:
        depth += (each in "[(") - (each in "])")
        deepest = max(deepest, depth)
    return deepest


def _bare(word: str) -> str:
    """A word without the quotes around it."""
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"" else word


def refused(number: int, why: str) -> InvalidArguments:
    """The problem with a line; there is none with number 0."""
    if not number:
        return InvalidArguments(why, argument="path")
    return InvalidArguments(f"line {number}: {why}", argument="text", line=str(number))


def quoted(value: str) -> str:
    """A value as a word of a command. Raises `invalid-arguments` for one that no command can say."""
    if any(each < " " and each != "\t" for each in value) or _lowest(value) < 0:
        raise InvalidArguments(
            "the value has a line break, a control character or a ']' without its '['", argument="value"
        )
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


def _lowest(value: str) -> int:
    """What augeas counts brackets to, and takes for a mistake below 0."""
    count = lowest = 0
    for each in value:
        count += (each == "[") - (each == "]")
        lowest = min(lowest, count)
    return lowest


def escaped(path: str) -> str:
    """The name of a file as a path of the tree below `/files`."""
    return "/files" + re.sub(r"([\\\[\]|=()!,\s])", r"\\\1", path)
