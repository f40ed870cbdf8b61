"""The command line: `serve` and `demo`, and a client of the admin API for everything else.

Belongs here: one file per group of commands, and what they share. Never here: a rule of the gateway's; a command that
needs one asks the admin API, so that every client gets the same answer.
"""

from gateway.cli.app import main

__all__ = ["main"]
