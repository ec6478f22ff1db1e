"""`mhctl key`: the keys that requests are signed with, on this machine."""

import os
from pathlib import Path

import click

from libmh.cli.session import Session, pass_session, reported
from libmh.keys import KIND, TRUSTED, generate, parse, read, revoke, trust


def own_key() -> Path:
    """Where a user's key is."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - Path.home raises
    return Path(home) / "matahari" / "console.key"


def _directory() -> click.Option:
    return click.Option(
        ["--keys", "directory"],
        type=click.Path(path_type=Path),
        default=TRUSTED,
        show_default=True,
        help="The directory of the keys that the agents of this host trust.",
    )


@click.group("key")
def key_group() -> None:
    """Keys that requests are signed with: make one, and say which are trusted here."""


@key_group.command("generate")
@click.argument("name")
@click.option("--file", "path", type=click.Path(path_type=Path), help="Where the key goes.")
@pass_session
def generate_command(session: Session, name: str, path: Path | None) -> None:
    """Make a key, and print its public half for those who are to trust it."""

    def work() -> None:
        where = path or own_key()
        public = generate(name, where)
        print(public.line)
        click.echo(f"the key is in {where}; let a console use it by [signing] key in console.toml", err=True)

    reported(session, work)


@key_group.command("show")
@click.argument("path", type=click.Path(path_type=Path), required=False)
@pass_session
def show_command(session: Session, path: Path | None) -> None:
    """Print the public half of a key: your own, or of a file."""
    reported(session, lambda: print(read(path or own_key().with_name("console.key.pub")).line))


def _trust(session: Session, /, key: str, directory: Path) -> None:
    def work() -> None:
        public = parse(key, "KEY") if key.startswith(KIND) else read(Path(key))
        print(f"{public.name} ({public.id}) is trusted: {trust(public, directory)}")

    reported(session, work)


def _revoke(session: Session, /, name: str, directory: Path) -> None:
    def work() -> None:
        revoke(name, directory)
        print(f"{name} is not trusted any more")

    reported(session, work)


key_group.add_command(
    click.Command(
        "trust",
        callback=pass_session(_trust),
        params=[click.Argument(["key"]), _directory()],
        help="Trust a public key on this host: a file, or the line itself. Its agents notice by themselves.",
    )
)
key_group.add_command(
    click.Command(
        "revoke",
        callback=pass_session(_revoke),
        params=[click.Argument(["name"]), _directory()],
        help="Trust a key on this host no more, by its name.",
    )
)
