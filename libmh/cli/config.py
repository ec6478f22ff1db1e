"""`mhctl config`: configuration that is looked at, applied whole or not at all, and can be undone."""

import click

COMMANDS: tuple[click.Command, ...] = ()
