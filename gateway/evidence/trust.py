"""Which keys may have signed a gateway's checkpoints.

With keys given by the auditor, those and no others. Without, those that the gateway published in the store; then it is
the witness, an exported file and, for the gateway that verifies itself, its own key that an attacker who writes to the
store cannot bring in line with what he signed.

Belongs here: that choice. Never here: verifying a signature's bytes.
"""

from collections.abc import Mapping, Sequence

from gateway.errors import KeyUnusable
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.keys import VerifyingKey, parse_public_key
from gateway.ports import PublicKey


class Trust:
    """The keys that count.

    `given` are the auditor's; `own` is the key of the gateway that verifies itself, by its name. `published` are those
    of the store: one that is not what it says leaves a finding.
    """

    def __init__(
        self,
        given: Sequence[VerifyingKey],
        own: Mapping[str, VerifyingKey],
        published: Sequence[PublicKey],
        findings: Findings,
    ) -> None:
        self._given = {key.id: key for key in given}
        self._own = own
        self._published: dict[str, dict[str, VerifyingKey]] = {}
        self._since = {(one.gateway, one.key): one.since_ns for one in published}
        self.gateways = frozenset(one.gateway for one in published) | frozenset(own)
        for one in published:
            try:
                key = parse_public_key(one.pem)
            except KeyUnusable as error:
                findings.add(Finding(f"its published key {one.key} cannot be read: {error.message}", one.gateway))
                continue
            if key.id != one.key:
                findings.add(Finding(f"its published key {one.key} is another, {key.id}", one.gateway))
                continue
            self._published.setdefault(one.gateway, {})[key.id] = key
        for gateway, key in own.items():
            if key.id not in self._published.get(gateway, {}):
                findings.add(Finding(f"its key {key.id} is not among those that are published in the store", gateway))

    def key(self, gateway: str, key_id: str) -> VerifyingKey | str:
        """Return the key by which a checkpoint of a gateway may be signed, or in words why it may not."""
        if self._given:
            return self._given.get(key_id) or f"it is signed by the key {key_id}, which is not among those given"
        own = self._own.get(gateway)
        if own is not None and own.id == key_id:
            return own
        known = self._published.get(gateway, {}).get(key_id)
        return known or f"it is signed by the key {key_id}, which gateway {gateway} never published"

    def wrong_newest(self, gateway: str, key_id: str, at_ns: int) -> str:
        """Say what is wrong when the newest checkpoint of a gateway, made at `at_ns`, is signed by that key.

        It has to be the gateway's own, where that is known and was there by then.
        """
        own = self._own.get(gateway)
        if self._given or own is None or own.id == key_id or self._since.get((gateway, own.id), 0) > at_ns:
            return ""
        return f"it is the newest and not signed by the gateway's own key {own.id}"
