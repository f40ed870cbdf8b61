"""The checkpoints of one gateway after another: each signed, each bound to the one before, none missing.

Belongs here: what a checkpoint says of itself and of the one before it. Never here: the records that it covers.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from gateway.evidence.accounts import Gone
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.statements import (
    NotCanonical,
    Statement,
    Stretch,
    digest,
    is_signed_by,
    parse_listing,
    parse_statement,
)
from gateway.evidence.trust import Trust
from gateway.ports import SignedCheckpoint


class Checked(Struct, frozen=True):
    """A checkpoint and the stretches that it lists. `sound` says that it is signed by the right key and is what was
    signed; without `statement` its root cannot be believed, and the stretches only tell where to look."""

    statement: Statement | None
    stretches: tuple[Stretch, ...]
    sound: bool


class Newest(Struct, frozen=True):
    """The newest checkpoint of a gateway so far. `sha256` is the digest of its statement."""

    number: int
    day: str
    sha256: str
    key: str
    at_ns: int


class Succession:
    """Checks checkpoints in their order; `expected` are the ones that somebody outside the store remembers."""

    def __init__(self, trust: Trust, expected: Mapping[str, Mapping[int, str]], findings: Findings) -> None:
        self._trust = trust
        self._expected = {gateway: dict(numbers) for gateway, numbers in expected.items()}
        self._findings = findings
        self._gateway = ""
        self.newest: dict[str, Newest] = {}
        self.gone: list[Gone] = []

    def check(self, checkpoint: SignedCheckpoint, *, verify: bool) -> Checked:
        """Check the next checkpoint of the store, its signature only with `verify`; what is wrong leaves a finding."""
        one = checkpoint
        if one.gateway != self._gateway:
            self._close()
            self._gateway = one.gateway
        sha256 = digest(one.statement)
        stretches, wrong = self._read_listing(one)
        say = self._sayer(one, stretches)
        try:
            statement: Statement | None = parse_statement(one.statement)
        except NotCanonical as error:
            statement = None
            say(str(error))
        sound = statement is not None and not wrong
        if wrong:
            say(wrong)
        if statement is not None:
            sound &= self._agrees(one, statement, stretches, say)
            self._follows(one, statement, say)
        if verify:
            sound &= self._is_signed(one, say)
        self._remembered(one, sha256, say)
        self.newest[one.gateway] = Newest(one.number, one.day, sha256, one.key, one.at_ns)
        return Checked(statement if sound else None, stretches, sound)

    def close(self) -> None:
        """Look at what is left when there are no more checkpoints."""
        self._close()
        for gateway, numbers in self._expected.items():
            for number in sorted(numbers):
                if not any(run.gateway == gateway and run.first <= number <= run.last for run in self.gone):
                    what = f"checkpoint {number} was signed and is not in the store any more"
                    self._findings.add(Finding(what, gateway=gateway, checkpoint=number))

    # ── one checkpoint ───────────────────────────────────────────────────────────────────────────────────────────

    def _sayer(self, one: SignedCheckpoint, stretches: tuple[Stretch, ...]) -> Callable[[str], None]:
        first = stretches[0] if stretches else None

        def say(what: str) -> None:
            self._findings.add(
                Finding(
                    f"checkpoint {one.number}: {what}",
                    gateway=one.gateway,
                    journal=first.journal if first else "",
                    sequence=first.first if first else 0,
                    day=one.day,
                    checkpoint=one.number,
                )
            )

        return say

    def _read_listing(self, one: SignedCheckpoint) -> tuple[tuple[Stretch, ...], str]:
        try:
            return parse_listing(one.listing), ""
        except NotCanonical as error:
            return (), str(error)

    def _agrees(
        self, one: SignedCheckpoint, said: Statement, stretches: tuple[Stretch, ...], say: Callable[[str], None]
    ) -> bool:
        columns = (one.gateway, one.number, one.day, one.at_ns, one.key)
        if columns != (said.gateway, said.number, said.day, said.at_ns, said.key):
            say("what is kept beside its statement is not what the statement says")
            return False
        if digest(one.listing) != said.listing or sum(stretch.size for stretch in stretches) != said.size:
            say("its listing is not the one that was signed")
            return False
        return True

    def _follows(self, one: SignedCheckpoint, said: Statement, say: Callable[[str], None]) -> None:
        before = self.newest.get(one.gateway, Newest(0, "", "", "", 0))
        if one.number == before.number + 1:
            if said.previous != before.sha256:
                say(f"it does not follow on checkpoint {before.number}, or that one was changed")
        elif one.number > before.number:
            gone = Gone(one.gateway, before.number + 1, one.number - 1, said.previous, before.day, one.day)
            self.gone.append(gone)
        if one.day < before.day:
            say("its day is before that of the checkpoint before it")

    def _is_signed(self, one: SignedCheckpoint, say: Callable[[str], None]) -> bool:
        key = self._trust.key(one.gateway, one.key)
        if isinstance(key, str):
            say(key)
            return False
        if not is_signed_by(key, one.statement, one.signature):
            say(f"its signature by the key {one.key} does not hold")
            return False
        return True

    def _remembered(self, one: SignedCheckpoint, sha256: str, say: Callable[[str], None]) -> None:
        expected = self._expected.get(one.gateway, {}).pop(one.number, sha256)
        if expected != sha256:
            say("it is not the one that was signed first: another one is remembered outside the store")

    def _close(self) -> None:
        newest = self.newest.get(self._gateway)
        if newest is not None and (wrong := self._trust.wrong_newest(self._gateway, newest.key, newest.at_ns)):
            what = f"checkpoint {newest.number}: {wrong}"
            self._findings.add(Finding(what, gateway=self._gateway, checkpoint=newest.number, day=newest.day))
