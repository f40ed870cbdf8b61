"""`pointsman audit`: what happened to a request, for the person who has to answer for it.

Belongs here: the command and the card of a record. Never here: a judgement about a record.
"""

import typer

commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Audit: the record of every prediction.")
