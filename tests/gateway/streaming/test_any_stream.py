"""Whatever pieces a stream comes in and however it ends: what the caller has, what it may believe, what is recorded."""

from contextlib import suppress
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzzing import fuzzed
from tests.gateway.streaming.world import CHUNKED, INFER, Call, World, chunk, on_world

bodies = st.lists(st.binary(min_size=1, max_size=40) | st.binary(min_size=1_000, max_size=3_000), max_size=8)
ends = st.sampled_from(["complete", "closed", "reset", "garbage", "hung up"])


@fuzzed(60)
@given(bodies, st.lists(st.integers(0, 30_000), max_size=8), ends, st.sampled_from(["1.1", "1.0"]))
def test_a_stream_is_whole_for_its_caller_if_and_only_if_its_record_says_so(
    parts: list[bytes], cuts: list[int], end: str, version: str
) -> None:
    sent = CHUNKED + b"".join(map(chunk, parts))
    places = sorted({cut % (len(sent) + 1) for cut in cuts} | {0, len(CHUNKED), len(sent)})
    body = b"".join(parts)

    async def check(world: World) -> None:
        call = await world.call(INFER, version=version)
        answering = await world.backends["1"].next()
        for start, stop in pairwise(places):
            answering.write(sent[start:stop])
            await answering.drain()
        await call.head()
        if end == "complete":
            answering.end()
        elif end == "garbage":
            answering.write(b"?\r\n")
        elif end == "hung up":
            call.hang_up()
        else:
            answering.cut(reset=end == "reset")
        got, whole = await outcome(call) if end != "hung up" else (b"", False)
        record = await world.record()
        assert record.streamed == ("complete" if end == "complete" else "broken_off")
        assert whole == (end == "complete")
        assert (record.outcome == "served") == whole
        said = body[: record.response.size]
        assert world.response().sha256 == sha256(said).hexdigest()
        assert world.response().body == said
        assert said.startswith(got)
        if whole:
            assert got == body
        assert len(world.kept.records) == 1

    async def outcome(call: Call) -> tuple[bytes, bool]:
        """Return what a caller got, and whether it may believe that this is all."""
        if version == "1.1":
            got = b""
            with suppress(EOFError, ConnectionResetError):
                while piece := await call.piece():
                    got += piece
                return got, True
            return got, False
        try:
            return await call.all_that_comes(), True
        except ConnectionResetError:
            return b"", False

    with TemporaryDirectory() as folder:
        on_world(Path(folder), check)
