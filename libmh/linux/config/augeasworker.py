"""The process that libaugeas works in: what its parsers do to it costs one answer, never the agent.

It imports nothing of ours, so that it is there in 30 ms. A request is a length of four bytes, big-endian,
and so much JSON; so is the answer. It reads lenses and no other file: texts come with the request and what
they become goes back with the answer. It cannot write a file either, whatever a text says (RLIMIT_FSIZE is
0). It ends when it is idle, when its parent goes, and in the middle of a request that takes too long.

The binding is ctypes: python-augeas is a source distribution that needs a compiler and libaugeas-dev where
it is installed, which is much for twelve functions; Debian's libaugeas0 is all that this needs.
"""

import ctypes
import json
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

LIBRARY = "libaugeas.so.0"
NO_LOAD, NO_AUTOLOAD = 1 << 5, 1 << 6
IDLE = 10.0
MAX_FRAME = 1 << 28
MAX_MEMORY = 1 << 30
MAX_PRINTED = 1 << 20
MAX_MATCHES = 10_001
MAX_COMPARED = 1 << 20  # lines of one text times those of the other
NOBODY = 65534
LENGTH = 4
LAST_STANDARD, MAX_DESCRIPTORS = 2, 1 << 16
NUMBER = re.compile(r"/\d+(?=/|$)")
POINTER, TEXT = ctypes.c_void_p, ctypes.c_char_p

Answer = dict[str, Any]


class Refused(Exception):
    """What the answer says instead: `kind` and what is known of it."""

    def __init__(self, kind: str, **known: Any) -> None:
        super().__init__(kind)
        self.answer: Answer = {"error": kind, **known}


class Library:
    """libaugeas, and of the C library what makes a stream that is kept in memory."""

    def __init__(self) -> None:
        self.c, self.augeas = ctypes.CDLL(None), ctypes.CDLL(LIBRARY)
        self.c.open_memstream.restype = POINTER
        self.c.open_memstream.argtypes = [ctypes.POINTER(POINTER), ctypes.POINTER(ctypes.c_size_t)]
        self.c.fclose.argtypes = self.c.free.argtypes = [POINTER]
        self.augeas.aug_init.restype = POINTER
        self.augeas.aug_init.argtypes = [TEXT, TEXT, ctypes.c_uint]
        for name, arguments in (
            ("get", (TEXT, ctypes.POINTER(TEXT))),
            ("set", (TEXT, TEXT)),
            ("rm", (TEXT,)),
            ("match", (TEXT, ctypes.POINTER(ctypes.POINTER(POINTER)))),
            ("text_store", (TEXT, TEXT, TEXT)),
            ("text_retrieve", (TEXT, TEXT, TEXT, TEXT)),
            ("srun", (POINTER, TEXT)),
            ("print", (POINTER, TEXT)),
            ("error", ()),
            *((f"error_{kind}message", ()) for kind in ("", "minor_")),
            ("error_details", ()),
        ):
            function = getattr(self.augeas, f"aug_{name}")
            function.argtypes = [POINTER, *arguments]
            if name.startswith("error_"):
                function.restype = TEXT


class Tree:
    """A tree of augeas. It raises `Refused` for what augeas refuses."""

    def __init__(self, library: Library, flags: int = NO_LOAD | NO_AUTOLOAD) -> None:
        self._c, self._augeas = library.c, library.augeas
        self._handle = self._augeas.aug_init(b"/", None, flags)
        if not self._handle:
            raise Refused("command", message="libaugeas does not start")

    def get(self, path: str) -> str | None:
        """A value; None where there is none, or not exactly one node."""
        found = TEXT()
        code = self._augeas.aug_get(self._handle, encoded(path), ctypes.byref(found))
        if code < 0 and not self.match(path, 1):  # a path that cannot be; many are no mistake
            return None
        return decoded(found.value) if code == 1 and found.value is not None else None

    def match(self, path: str, limit: int = MAX_MATCHES) -> list[str]:
        """The paths of the nodes that an expression matches."""
        found = ctypes.POINTER(POINTER)()
        count = self._augeas.aug_match(self._handle, encoded(path), ctypes.byref(found))
        if count < 0:
            raise self.mistake()
        names = [decoded(ctypes.string_at(found[at])) for at in range(min(count, limit))]
        for at in range(count):
            self._c.free(found[at])
        self._c.free(found)
        return names

    def count(self, path: str) -> int:
        return int(self._augeas.aug_match(self._handle, encoded(path), None))

    def set(self, path: str, value: str) -> None:
        if self._augeas.aug_set(self._handle, encoded(path), encoded(value)) < 0:
            raise self.mistake()

    def remove(self, path: str) -> None:
        self._augeas.aug_rm(self._handle, encoded(path))

    def run(self, line: str) -> tuple[bool, str]:
        """Run a command: whether it asks for no more, and what it printed."""
        code, printed = self._printing(self._augeas.aug_srun, line)
        if code == -1:
            raise self.mistake()
        return code < 0, printed

    def printed(self, path: str) -> str:
        """A subtree as augeas prints it, each line without the path of its root."""
        lines = self._printing(self._augeas.aug_print, path)[1].split("\n")
        return "\n".join(line.removeprefix(lines[0]) for line in lines)

    def store(self, lens: str, text: str, path: str) -> None:
        """Parse a text; the tree below `path` is what it says."""
        self.set("/text", text)
        if self._augeas.aug_text_store(self._handle, encoded(lens), b"/text", encoded(path)) < 0:
            raise self._failure("parse", path, lens)

    def retrieve(self, lens: str, before: str, path: str) -> str:
        """What a text becomes with the tree that is below `path` now."""
        self.set("/text", before)
        arguments = (encoded(lens), b"/text", encoded(path), b"/out")
        if self._augeas.aug_text_retrieve(self._handle, *arguments) < 0:
            raise self._failure("put", path, lens)
        return self.get("/out") or ""

    def mistake(self) -> Refused:
        """Augeas's own words for what it has just refused."""
        words = (
            getattr(self._augeas, f"aug_error_{kind}")(self._handle)
            for kind in ("message", "minor_message", "details")
        )
        return Refused("command", message=": ".join(decoded(each).strip() for each in words if each))

    def _failure(self, kind: str, path: str, lens: str) -> Refused:
        mistake = self.mistake()
        at = f"/augeas/text{path}/error"
        if self.get(at) is None:
            return Refused("lens", path=path, lens=lens, message=mistake.answer["message"])
        message = (self.get(f"{at}/message") or "").partition("{")[0]  # then 20 KiB, and secrets
        line, char = self.get(f"{at}/line"), self.get(f"{at}/char")
        return Refused(kind, path=path, lens=lens, line=line, char=char, message=" ".join(message.split()))

    def _printing(self, function: Any, text: str) -> tuple[int, str]:
        start, size = POINTER(), ctypes.c_size_t()
        stream = self._c.open_memstream(ctypes.byref(start), ctypes.byref(size))
        code = function(self._handle, stream, encoded(text))
        self._c.fclose(stream)
        printed = ctypes.string_at(start, size.value)
        self._c.free(start)
        return code, decoded(printed)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


class Files:
    """The texts of a request as trees, and what they became. One is a list: the path of its tree, its lens,
    its text (None: there is no such file), whether the request names it."""

    def __init__(self, tree: Tree, files: list[list[Any]]) -> None:
        self._tree, self._files, self._broken = tree, files, set[str]()
        for path, lens, text, named in files:
            try:
                if text is not None:
                    tree.store(lens, text, path)
            except Refused:
                if named:
                    raise
                self._broken.add(path)
        self._first: dict[str, str] = {}

    def remember(self) -> None:
        """What a text changes is told from here."""
        self._first = {path: self._tree.printed(path) for path, *_ in self._files}

    def reload(self) -> None:
        """Forget what was changed."""
        for path, lens, text, _ in self._files:
            self._tree.remove(path)
            if text is not None and path not in self._broken:
                self._tree.store(lens, text, path)

    def changed(self, since: dict[str, str] | None = None) -> dict[str, str]:
        """The trees that are not what they were."""
        now = ((path, self._tree.printed(path)) for path, *_ in self._files)
        before = self._first if since is None else {**self._first, **since}
        return {path: printed for path, printed in now if printed != before[path]}

    def results(self) -> list[list[Any]]:
        """Of each file that changes its path and its new text; None where it goes. Each text is parsed
        again: it must mean the tree that it was made from."""
        changed = self.changed()
        return [
            [path, self._result(path, lens, text)] for path, lens, text, _ in self._files if path in changed
        ]

    def _result(self, path: str, lens: str, before: str | None) -> str | None:
        if path in self._broken:
            self._tree.store(lens, before or "", "/check")
        if not self._tree.count(path):
            return None
        after = self._tree.retrieve(lens, before or "", path)
        wanted = unnumbered(self._tree.printed(path))
        if not self._says(lens, after, wanted):
            raise Refused("again", path=path, lens=lens)
        calm = spaced_as(before or "", after)
        with suppress(Refused):
            after = calm if calm != after and self._says(lens, calm, wanted) else after
        self._tree.remove("/check")
        return after

    def _says(self, lens: str, text: str, wanted: str) -> bool:
        """Whether a text means that tree."""
        self._tree.store(lens, text, "/check")
        return unnumbered(self._tree.printed("/check")) == wanted


def unnumbered(printed: str) -> str:
    """A printed tree whose entries of a list have no numbers: `set .../01/ipaddr` makes one that is numbered
    otherwise when it is read again."""
    lines = (line.partition(" = ") for line in printed.split("\n"))
    return "\n".join(NUMBER.sub("/#", path) + equals + value for path, equals, value in lines)


def spaced_as(before: str, after: str) -> str:
    """A text whose lines have the space that they had before, where only that is different: of entries with
    one name augeas gives the space of the first to the first that is left when one is removed."""
    old, new = before.split("\n"), after.split("\n")
    bare_old, bare_new = ([" ".join(line.split()) for line in lines] for lines in (old, new))
    most = min(len(old), len(new))
    start = next((at for at in range(most) if bare_old[at] != bare_new[at]), most)
    left = most - start
    end = next((at for at in range(left) if bare_old[-1 - at] != bare_new[-1 - at]), left)
    middle_old, middle_new = bare_old[start : len(old) - end], bare_new[start : len(new) - end]
    made = new[start : len(new) - end]
    if 0 < len(middle_old) * len(middle_new) <= MAX_COMPARED and not len(middle_old) == len(middle_new) == 1:
        from difflib import SequenceMatcher  # it takes its time to come, and is seldom needed

        matcher = SequenceMatcher(None, middle_old, middle_new, autojunk=False)
        for one, other, size in matcher.get_matching_blocks():
            made[other : other + size] = old[start + one : start + one + size]
    return "\n".join([*old[:start], *made, *old[len(old) - end :]])


def index(library: Library) -> Answer:
    """Every lens that loads, with the files that it is for."""
    tree = Tree(library, NO_LOAD)
    lenses = [
        [
            (tree.get(f"{own}/lens") or "").removeprefix("@"),
            [tree.get(each) for each in tree.match(f"{own}/incl")],
            [tree.get(each) for each in tree.match(f"{own}/excl")],
        ]
        for own in tree.match("/augeas/load/*")
    ]
    return {"version": tree.get("/augeas/version"), "lenses": lenses}


def read(tree: Tree, request: Answer) -> Answer:
    """The nodes that an expression matches, with their values."""
    paths = [path for path, *_ in request["files"]]
    try:
        Files(tree, request["files"])
        found = [[path, tree.get(path)] for path in tree.match(request["path"])]
    finally:
        for path in paths:
            tree.remove(path)
        tree.remove("/augeas/text")
    return {"found": found}


def run(tree: Tree, request: Answer) -> Answer:
    """Run the lines of a text. What it changes is what its last `save` finds, or its end without any."""
    files = Files(tree, request["files"])
    files.remember()
    lines: list[list[Any]] = request["lines"]
    last = max((at for at, (_, verb, _) in enumerate(lines) if verb == "save"), default=-1)
    printed, saved = "", dict[str, str]()
    results: list[list[Any]] | None = None
    for at, (number, verb, line) in enumerate(lines):
        try:
            if verb == "quit":
                break
            if verb == "load":
                files.reload()
            elif verb == "save":
                new = files.changed(saved)
                saved |= new
                printed += f"Saved {len(new)} file(s)\n" if new else ""
                results = files.results() if at == last else results
            else:
                printed += tree.run(line)[1] if len(printed) < MAX_PRINTED else ""
        except Refused as refused:
            refused.answer.setdefault("number", number)
            raise
    for path in request["without"]:
        if tree.count(path):
            raise Refused("without", path=path)
    return {
        "output": printed[:MAX_PRINTED],
        "saves": bool(saved) or last >= 0,
        "files": files.results() if last < 0 else results or [],
    }


class Worker:
    """The library, and a tree that has every lens which was used before."""

    def __init__(self, library: Library) -> None:
        self._library, self._tree, self._warm = library, Tree(library), set[str]()

    def answer(self, request: Answer) -> Answer:
        """The answer to a request; one that is refused is an answer too."""
        try:
            match request["do"]:
                case "index":
                    return index(self._library)
                case "read":
                    return read(self._tree, request)
                case _:
                    return run(self._tree, request)
        except Refused as refused:
            return refused.answer
        except MemoryError:
            return {"error": "memory"}

    def serve(self, line: socket.socket) -> None:
        """Answer what comes, in copies of this process, one after the other. What may change the tree, or
        takes much memory, goes with its copy; the next one waits already when the next request comes."""
        while True:
            told, telling = os.pipe()
            pid = os.fork()
            if not pid:
                os.close(told)
                os._exit(self._copy(line, telling))
            os.close(telling)
            with open(told, encoding="utf-8") as pipe:  # noqa: PTH123 - a descriptor
                used = set(pipe.read().split())
            if os.waitpid(pid, 0)[1]:
                os._exit(1)  # there is nobody, or an answer may be half said
            self._warm_up(used - self._warm)

    def _copy(self, line: socket.socket, telling: int) -> int:
        """Answer until something more than reading is done: 0. It tells which lenses it has used."""
        used: set[str] = set()
        for request in take(line):
            line.settimeout(request["seconds"])
            self._in_time(line, request)
            line.settimeout(IDLE)
            used |= {lens for _, lens, *_ in request.get("files", ())}
            if request["do"] != "read":
                with open(telling, "w", encoding="utf-8") as pipe:
                    pipe.write(" ".join(used))
                return 0
        return 1

    def _in_time(self, line: socket.socket, request: Answer) -> None:
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])  # whose signal ends the process
        send(line, self.answer(request))
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _warm_up(self, lenses: set[str]) -> None:
        for lens in lenses:
            self._warm.add(lens)
            with suppress(Refused):  # some lens wants more than an empty text
                self._tree.store(lens, "", "/warm")
            self._tree.remove("/warm")
            self._tree.remove("/augeas/text")


def take(line: socket.socket) -> Iterator[Answer]:
    """Requests, until there are no more."""
    while True:
        length = receive(line, LENGTH)
        body = receive(line, int.from_bytes(length))
        if not body:
            return
        yield json.loads(body)


def receive(line: socket.socket, size: int) -> bytes:
    """So many bytes; none at the end, and when nothing comes."""
    received = bytearray()
    while len(received) < min(size, MAX_FRAME):
        part = b""
        with suppress(OSError):
            part = line.recv(min(size - len(received), 1 << 20))
        if not part:
            return b""
        received += part
    return bytes(received)


def send(line: socket.socket, told: Answer) -> None:
    body = json.dumps(told).encode()
    line.sendall(len(body).to_bytes(LENGTH) + body)


def confine() -> None:
    """Give up what this needs not; what may not be given up is kept."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    for what in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        resource.setrlimit(what, (0, 0))
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs 10 ms
        file.write("1000")
    with suppress(OSError):
        os.setgroups(())
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """Answer what comes in at descriptor 0."""
    os.closerange(LAST_STANDARD + 1, MAX_DESCRIPTORS)  # what its parent was handed is not for it
    line = socket.socket(fileno=0)
    line.settimeout(IDLE)
    try:
        library = Library()
    except OSError as error:
        send(line, {"error": "missing", "message": str(error)})
        sys.exit(0)
    confine()
    Worker(library).serve(line)
