"""What the audit store holds beyond its last checkpoint, as a recorder that was killed leaves it.

Belongs here: finding those rows. Never here: sealing them.
"""

from collections.abc import Collection, Iterator

from msgspec import Struct

from gateway.chain import link
from gateway.ports import AuditStore, Holding, JournalPosition, Place, Row


class UncoveredRow(Struct, frozen=True):
    """A row that no checkpoint covers, the day it is kept under, and the chain after it."""

    day: str
    row: Row
    chain: bytes


def uncovered_rows(store: AuditStore, positions: Collection[JournalPosition]) -> Iterator[UncoveredRow]:
    """Yield the rows of these journals that no checkpoint covers, each journal's in order, day by day.

    What is covered of a journal is always its beginning, so only where that ends has to be looked for. Raises
    `AuditUnavailable` as the store does.
    """
    journals = {one.journal for one in positions if not _is_covered(store, one.journal, one.sequence)}
    if not journals:
        return
    held = sorted((one for one in store.holdings() if one.journal in journals), key=lambda one: (one.day, one.first))
    for journal in sorted(journals):
        for holding in _open_holdings(store, [one for one in held if one.journal == journal]):
            for row in store.rows(journal, _first_uncovered(store, holding), holding.last):
                yield UncoveredRow(holding.day, row, chain_after(row))


def chain_after(row: Row) -> bytes:
    """Return the chain after a row; of a stub, what it says."""
    return row.chain if row.sealed is None else link(row.previous, row.sequence, row.sealed)


def _open_holdings(store: AuditStore, held: list[Holding]) -> list[Holding]:
    """Return the holdings of one journal, in order, that are not wholly covered."""
    for index in range(len(held), 0, -1):
        if _is_covered(store, held[index - 1].journal, held[index - 1].last):
            return held[index:]
    return held


def _first_uncovered(store: AuditStore, holding: Holding) -> int:
    """Return the first sequence without a checkpoint of a holding whose last row has none.

    Halves the stretch that it can be in. Only places with a row are asked for: a place in a gap is never covered.
    """
    found, low, high = holding.last, holding.first, holding.last - 1
    while low <= high:
        middle = (low + high) // 2
        row = next(iter(store.rows(holding.journal, middle, holding.last)))
        if _is_covered(store, holding.journal, row.sequence):
            low = row.sequence + 1
        else:
            found, high = min(found, row.sequence), middle - 1
    return found


def _is_covered(store: AuditStore, journal: str, sequence: int) -> bool:
    return store.checkpoint_of(Place(journal, sequence)) is not None
