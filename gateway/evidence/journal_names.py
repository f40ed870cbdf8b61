"""The names of journals: `<gateway>/<worker>.<12 hex digits>`, and which of them stand in a folder.

A journal keeps the name that it began with; where a gateway is given another name, it goes on with journals of the
old one. So what belongs to a gateway is what bears its name or stands on its disk.

Belongs here: taking names apart and finding them. Never here: frames.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from gateway.journal.segment import (
    MAX_HEADER_BYTES,
    HeaderIncomplete,
    HeaderUnreadable,
    parse_header,
    segment_numbers,
    segment_path,
)


def gateway_of(journal: str) -> str:
    """Return the gateway that began a journal."""
    return journal.partition("/")[0]


def worker_of(journal: str) -> str:
    """Return the worker of a journal."""
    return journal.rpartition("/")[2].partition(".")[0]


def worker_folders(journals: Path) -> list[Path]:
    """Return the folders of the workers' journals, in order; none when there is no such folder."""
    return sorted(path for path in journals.iterdir() if path.is_dir()) if journals.is_dir() else []


def journals_in(folder: Path) -> Iterator[str]:
    """Yield the names that the segments of a worker's folder bear, as far as they can be read. Raises `OSError`."""
    unreadable = suppress(FileNotFoundError, HeaderIncomplete, HeaderUnreadable)
    for number in segment_numbers(folder):
        with unreadable, segment_path(folder, number).open("rb") as file:
            yield parse_header(file.read(MAX_HEADER_BYTES))[0].journal
