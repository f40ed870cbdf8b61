"""That one record is covered by a checkpoint: its leaf, and the path from there to the root that was signed.

Belongs here: reading what a checkpoint covers and working out that path. Never here: whose signature counts.
"""

from msgspec import Struct

from gateway.chain import inclusion_proof, leaf, root_of
from gateway.errors import NotCovered, NotProven
from gateway.evidence.statements import NotCanonical, Statement, digest, parse_listing, parse_statement
from gateway.evidence.uncovered import chain_after
from gateway.ports import AuditStore, Place, Row, SignedCheckpoint


class Inclusion(Struct, frozen=True):
    """A row, and the checkpoint that covers it as leaf `index`; `path` leads from there to the root."""

    row: Row
    checkpoint: SignedCheckpoint
    statement: Statement
    index: int
    path: list[bytes]


def include(store: AuditStore, place: Place) -> Inclusion:
    """Return how a record is included in the checkpoint that covers its place. Reads all that the checkpoint covers.

    Raises:
        NotCovered: no checkpoint covers the place yet.
        NotProven: what the store holds is not what that checkpoint covers.
        AuditUnavailable: the store fails.
    """
    checkpoint = store.checkpoint_of(place)
    if checkpoint is None:
        raise NotCovered(
            f"no checkpoint covers record {place.sequence} of journal {place.journal} yet; "
            "one is made within seconds, so ask again"
        )
    try:
        statement, listing = parse_statement(checkpoint.statement), parse_listing(checkpoint.listing)
    except NotCanonical as error:
        raise _not_proven(checkpoint, str(error)) from None
    if digest(checkpoint.listing) != statement.listing or sum(one.size for one in listing) != statement.size:
        raise _not_proven(checkpoint, "its listing is not the one that was signed")
    leaves: list[bytes] = []
    found: tuple[Row, int] | None = None
    for stretch in listing:
        for row in store.rows(stretch.journal, stretch.first, stretch.last):
            if row.journal == place.journal and row.sequence == place.sequence:
                found = row, len(leaves)
            leaves.append(leaf(row.journal, row.sequence, chain_after(row)))
    if found is None or len(leaves) != statement.size or root_of(leaves).hex() != statement.root:
        raise _not_proven(checkpoint, "the records that it covers are not those that the store holds now")
    return Inclusion(found[0], checkpoint, statement, found[1], inclusion_proof(leaves, found[1]))


def _not_proven(checkpoint: SignedCheckpoint, why: str) -> NotProven:
    return NotProven(
        f"checkpoint {checkpoint.number} of gateway {checkpoint.gateway} proves nothing: {why}; "
        "audit verify names what was changed"
    )
