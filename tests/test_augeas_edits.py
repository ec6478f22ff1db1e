"""A thousand edits of generated files over ten lenses: each changes its own entry, and no other byte."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from libmh.context import Root
from libmh.linux.config.augeas import Augeas
from libmh.linux.config.augeasworker import spaced_as
from testbed import needs

SECONDS = 30.0
EACH, ALL = 10, 100
SSHD = (
    "Port",
    "PermitRootLogin",
    "UseDNS",
    "X11Forwarding",
    "MaxAuthTries",
    "LoginGraceTime",
    "StrictModes",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: `line` writes an entry with a key and a value, `at` is the value's place in the tree,
    `whole` the entry's. `gap` is any space that the format allows in a line."""

    path: str
    line: Callable[[str, str, str], str]
    at: str
    whole: str
    keys: Callable[[int], str]
    value: Callable[[random.Random], str]
    comment: str = "# {}"


def word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghij", k=rng.randint(1, 8)))


def number(rng: random.Random) -> str:
    return str(rng.randint(0, 99_999))


def address(rng: random.Random) -> str:
    return f"10.{rng.randint(0, 255)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"


def named(index: int) -> str:
    return f"name{index}"


KINDS = (
    Kind(
        "/etc/hosts",
        lambda key, value, gap: f"{value}{gap}{key}{gap}alias-{key}",
        "*[canonical='{key}']/ipaddr",
        "*[canonical='{key}']",
        named,
        address,
    ),
    Kind(
        "/etc/ssh/sshd_config",
        lambda key, value, gap: f"{key}{gap}{value}",
        "{key}",
        "{key}",
        lambda index: SSHD[index],
        word,
    ),
    Kind(
        "/etc/sysctl.conf",
        lambda key, value, gap: f"net.{key}{gap}={gap}{value}",
        "net.{key}",
        "net.{key}",
        named,
        number,
        "; {}",
    ),
    Kind(
        "/etc/fstab",
        lambda key, value, gap: f"/dev/{key}{gap}/{key}{gap}{value}{gap}defaults,noatime{gap}0 1",
        "*[file='/{key}']/vfstype",
        "*[file='/{key}']",
        named,
        word,
    ),
    Kind(
        "/etc/resolv.conf",
        lambda _, value, gap: f"nameserver{gap}{value}",
        "nameserver[. = '{old}']",
        "nameserver[. = '{old}']",
        named,
        address,
    ),
    Kind(
        "/etc/chrony.conf",
        lambda key, value, gap: f"server{gap}{key}.example{gap}maxpoll{gap}{value}",
        "server[. = '{key}.example']/maxpoll",
        "server[. = '{key}.example']",
        named,
        lambda rng: str(rng.randint(4, 12)),
        "! {}",
    ),
    Kind(
        "/etc/passwd",
        lambda key, value, gap: f"{key}:x:{value}:100:{gap.strip()}:/home/{key}:/bin/sh",
        "{key}/uid",
        "{key}",
        named,
        number,
        "",
    ),
    Kind(
        "/etc/group",
        lambda key, value, _: f"{key}:x:{value}:root,{key}",
        "{key}/gid",
        "{key}",
        named,
        number,
        "",
    ),
    Kind(
        "/etc/login.defs",
        lambda key, value, gap: f"{key.upper()}{gap}{value}",
        "{KEY}",
        "{KEY}",
        lambda index: f"name{'abcdefg'[index]}",
        number,
    ),
    Kind(
        "/etc/security/limits.conf",
        lambda key, value, gap: f"{key}{gap}hard{gap}nofile{gap}{value}",
        "domain[. = '{key}']/value",
        "domain[. = '{key}']",
        named,
        number,
    ),
)


def lines(kind: Kind, rng: random.Random) -> Iterator[tuple[str, str, str, str]]:
    """Key (empty for a comment or an empty line), value, space and line of a file."""
    for index in range(rng.randint(2, 7)):
        if kind.comment:
            for _ in range(rng.randint(0, 2)):
                yield "", "", "", rng.choice((kind.comment.format(f"{word(rng)}  {word(rng)}"), ""))
        key, value, gap = kind.keys(index), kind.value(rng), rng.choice((" ", "  ", "\t", " \t"))
        yield key, value, gap, kind.line(key, value, gap)


def edit(augeas: Augeas, root: Path, kind: Kind, rng: random.Random) -> None:
    """Make a file, change or remove an entry of it, and compare with what that is by hand."""
    made = list(lines(kind, rng))
    chosen = rng.choice([at for at, (key, *_) in enumerate(made) if key])
    key, old, gap, _ = made[chosen]
    new = kind.value(rng)
    names = {"key": key, "KEY": key.upper(), "old": old}
    tree = f"/files{kind.path}/"
    before = "".join(f"{each}\n" for *_, each in made)
    after = [each for *_, each in made]
    if rng.random() < 0.3:
        command = f"rm {tree}{kind.whole.format(**names)}"
        del after[chosen]
    else:
        command = f"set {tree}{kind.at.format(**names)} {new}"
        after[chosen] = kind.line(key, new, gap)
    (root / kind.path.lstrip("/")).write_text(before)
    expected = "".join(f"{each}\n" for each in after)
    edits = augeas.forecast(f"{command}\nsave\n", SECONDS).edits
    assert [(each.path, each.after) for each in edits] == (
        [(kind.path, expected.encode())] if expected != before else []
    ), command


def several(root: Path, kind: Kind, count: int) -> None:
    needs.file("/usr/share/augeas/lenses/dist/hosts.aug", "libaugeas0")
    (root / kind.path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    augeas = Augeas(Root(root))
    try:
        for seed in range(count):
            edit(augeas, root, kind, random.Random(f"{kind.path} {seed}"))
    finally:
        augeas.close()


@pytest.mark.parametrize("kind", KINDS, ids=[kind.path for kind in KINDS])
def test_an_edit_of_a_generated_file_changes_one_entry(tmp_path: Path, kind: Kind) -> None:
    several(tmp_path, kind, EACH)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=[kind.path for kind in KINDS])
def test_a_hundred_edits_each(tmp_path: Path, kind: Kind) -> None:
    several(tmp_path, kind, ALL)


@pytest.mark.parametrize(
    ("before", "augeas", "wanted"),
    [
        ("a  1\nb 2\n c\t3\n", "b  2\n c 3\n", "b 2\n c\t3\n"),
        ("a  1\nb 2\nc\t3\n", "a 1\nx  2\nc 3\n", "a  1\nx  2\nc\t3\n"),
        ("a  1\nb  2\nc\t3\nd 4", "b 2\nx\nd  4", "b  2\nx\nd 4"),
        ("a  1\nb 2\n", "a  1\nb 2\nc\t3\n", "a  1\nb 2\nc\t3\n"),
        ("", "a 1\n", "a 1\n"),
        ("a 1\n", "", ""),
    ],
)
def test_lines_keep_their_space(before: str, augeas: str, wanted: str) -> None:
    assert spaced_as(before, augeas) == wanted
