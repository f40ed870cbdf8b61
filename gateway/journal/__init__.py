"""The journals: where a record is kept from before its reply leaves until the audit store has it.

Belongs here: the file format, appending to it, recovering it, reading it. Never here: the audit store, or when to read.
"""

from gateway.journal.appending import Journal
from gateway.journal.reading import JournalReader

__all__ = ["Journal", "JournalReader"]
