"""Evidence that a model really says what was recorded: one recorded input run again, and the answers compared.

Belongs here: one record. Never here: many of them (`trial`), finding records, or HTTP.
"""

from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import Struct

from gateway.errors import CannotReplay
from gateway.evidence.bench import Bench, Ran, Ready
from gateway.evidence.inputs import Answer, answer_of, input_of, pick
from gateway.evidence.outputs import OutputDifference, ReadAnswer, compare_outputs, flipped
from gateway.ports import Kept
from gateway.record import Record


class Replay(Struct, frozen=True):
    """One run of a version on a recorded input, held against the recorded answer (or what stands in for it).

    `identical` says whether the bytes are the same, or their SHA-256 where only that was kept (then `by_digest`); None
    when neither was, and for another version, whose answers name it. `outputs` are compared when bytes are not
    identical; `flips` says which of them flip, in words. `why` says why the version did not run, or why outputs could
    not be compared.
    """

    version: str
    digest: str | None = None
    status: int | None = None
    infer_us: int | None = None
    error_code: str | None = None
    identical: bool | None = None
    by_digest: bool = False
    outputs: tuple[OutputDifference, ...] = ()
    flips: str = ""
    why: str = ""


class Replayed(Struct, frozen=True):
    """What came of the replay of a record: what was `recorded`, the same version `again`, and perhaps another one.

    `agrees` says that the recorded version gave the very answer again, and that the other one, if any, flips nothing.
    """

    record_id: str
    request_id: str
    role: str
    model: str
    received_ns: int
    recorded: Replay
    again: Replay
    other: Replay | None
    agrees: bool


class Replaying:
    """Replays records. `read_answer` is the protocol's way back from a body to outputs."""

    def __init__(self, bench: Bench, read_answer: ReadAnswer) -> None:
        self._bench = bench
        self._read_answer = read_answer

    async def replay(self, found: Sequence[Kept], any_id: str, version: str | None) -> Replayed:
        """Run the record again that an id means among those it found; with `version` also on that version.

        Raises:
            CannotReplay: its input is not kept whole, or the version that answered it, or the other, cannot run.
        """
        kept = pick(found, any_id)
        record, body, answer = kept.frame.record, input_of(kept, found), answer_of(kept)
        other = await self._bench.named(record.model, version, record.rules_revision) if version is not None else None
        try:
            ran = await self._bench.run(await self._bench.recorded(record), record, body)
            again = self.against_record(record, answer, ran)
        except CannotReplay as error:
            if version is None:
                raise
            ran, again = None, Replay(_version_of(record), record.digest, why=error.message)
        compared = None
        if other is not None:
            reference = answer.body if answer.body is not None else ran.body if ran is not None else None
            compared = self.against(reference, answer.why, other, await self._bench.run(other, record, body))
        return Replayed(
            record_id=record.record_id,
            request_id=record.request_id,
            role=record.role,
            model=record.model,
            received_ns=record.received_ns,
            recorded=recorded_of(record, answer),
            again=again,
            other=compared,
            agrees=(again.identical is True) and (compared is None or not (compared.flips or compared.why)),
        )

    def against_record(self, record: Record, answer: Answer, ran: Ran) -> Replay:
        """Return how the answer of a run differs from the recorded one of the same version."""
        replay = _ran(_version_of(record), record.digest, ran)
        if answer.body is not None and answer.status == ran.status and answer.body == ran.body:
            return msgspec.structs.replace(replay, identical=True)
        if answer.body is None:
            if not answer.sha256:
                return msgspec.structs.replace(replay, why=f"the recorded answer cannot be compared: {answer.why}")
            same = answer.status == ran.status and answer.sha256 == sha256(ran.body).hexdigest()
            why = "" if same else f"how far it differs cannot be told: of the recorded answer {answer.why}"
            return msgspec.structs.replace(replay, identical=same, by_digest=True, why=why)
        return self._compared(msgspec.structs.replace(replay, identical=False), answer.body, ran.body)

    def against(self, reference: bytes | None, missing: str, version: Ready, ran: Ran) -> Replay:
        """Return how the answer of another version differs from `reference`; `missing` says why there is none."""
        replay = _ran(version.manifest.version, version.manifest.digest, ran)
        if reference is None:
            return msgspec.structs.replace(replay, why=f"there is no recorded answer to compare with: {missing}")
        return self._compared(replay, reference, ran.body)

    def _compared(self, replay: Replay, one: bytes, other: bytes) -> Replay:
        """Return a replay with the outputs of two answers compared, or why they cannot be."""
        try:
            outputs = compare_outputs(self._read_answer(one), self._read_answer(other))
        except ValueError as error:
            return msgspec.structs.replace(replay, why=f"the outputs cannot be compared: {error}")
        return msgspec.structs.replace(replay, outputs=outputs, flips=flipped(outputs))


def recorded_of(record: Record, answer: Answer) -> Replay:
    """Return what the record itself says, in the form of a replay."""
    return Replay(
        version=_version_of(record),
        digest=record.digest,
        status=record.status,
        infer_us=record.infer_us,
        error_code=record.error_code,
        why=answer.why,
    )


def _version_of(record: Record) -> str:
    return record.served or (record.attempts[-1].version if record.attempts else "")


def _ran(version: str, digest: str | None, ran: Ran) -> Replay:
    return Replay(version, digest, ran.status, ran.infer_us, ran.error_code)
