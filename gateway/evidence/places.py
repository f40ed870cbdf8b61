"""What control records say about places: which records an erasure or a pruning took, as one digest.

Belongs here: that digest and the actions' names. Never here: taking records, or verifying.
"""

from collections.abc import Iterable
from hashlib import sha256

from gateway.ports import Place

ERASE = "audit.erase"
PRUNE = "audit.prune"


def places_digest(places: Iterable[Place]) -> str:
    """Return the SHA-256 (hex) over the lines `journal SP sequence LF` of places, sorted, each once."""
    digest = sha256()
    for place in sorted(set(places)):
        digest.update(f"{place.journal} {place.sequence}\n".encode())
    return digest.hexdigest()
