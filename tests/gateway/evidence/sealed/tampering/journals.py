"""The segments of the journals on the disk: frames and segments changed, cut, reordered, taken away."""

import random
import shutil
from itertools import pairwise
from pathlib import Path

from crc32c import crc32c
from msgspec import Struct

from gateway.evidence.findings import Verdict
from gateway.journal.frames import FRAME_OVERHEAD, Flaw, read_frame
from gateway.journal.segment import parse_header
from gateway.sealing import parts_at
from tests.gateway.evidence.sealed.tampering.raw import Mutation, Named, Store, anywhere


class Shipped(Struct, frozen=True):
    """A good frame that has been shipped: its segment, where it begins and ends, and its place."""

    path: Path
    start: int
    end: int
    journal: str
    sequence: int


def frames_of(store: Store) -> list[Shipped]:
    """Every good frame that has been shipped."""
    shipped = {row[0]: row[1] for row in store.run(store.days[-1], "SELECT journal, sequence FROM positions")}
    found = []
    for path in sorted((store.folder.parent / "journal").glob("*/*.journal")):
        data = path.read_bytes()
        header, at_ = parse_header(data)
        while at_ < len(data):
            frame = read_frame(memoryview(data), at_)
            if isinstance(frame, Flaw):
                break
            end = at_ + FRAME_OVERHEAD + len(frame[1])
            if frame[0] <= shipped.get(header.journal, 0):
                found.append(Shipped(path, at_, end, header.journal, frame[0]))
            at_ = end
    return found


def segment_named(frame: Shipped) -> Named:
    """The first finding names the place of a frame, or one of the findings its segment."""
    name = f"{frame.path.parent.name}/{frame.path.name}"

    def named(verdict: Verdict) -> bool:
        first = verdict.first
        if first is not None and (first.journal, first.sequence) == (frame.journal, frame.sequence):
            return True
        return any(one.segment == name for one in verdict.findings)

    return named


def flip_a_byte_of_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    data[chance.randrange(frame.start, frame.end)] ^= 1 << chance.randrange(8)
    frame.path.write_bytes(data)
    return Mutation(f"a byte of {frame}", segment_named(frame))


def forge_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    """Change a byte of a frame's content and give it the checksum that then fits."""
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    body = frame.start + FRAME_OVERHEAD
    data[chance.randrange(body, frame.end)] ^= 1 << chance.randrange(8)
    write_checksum(data, frame)
    frame.path.write_bytes(data)
    return Mutation(f"forged {frame}", segment_named(frame))


def write_checksum(data: bytearray, frame: Shipped) -> None:
    checksum = crc32c(
        bytes(data[frame.start + FRAME_OVERHEAD : frame.end]), crc32c(bytes(data[frame.start + 8 : frame.start + 16]))
    )
    data[frame.start + 4 : frame.start + 8] = checksum.to_bytes(4, "little")


def erase_a_frame_without_telling(store: Store, chance: random.Random) -> Mutation | None:
    erased = {(one.journal, one.sequence) for one in store.spots(where="number IN (SELECT number FROM erasures)")}
    kept = {(one.journal, one.sequence) for one in store.spots()} - erased
    frames = [frame for frame in frames_of(store) if (frame.journal, frame.sequence) in kept]
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    body = frame.start + FRAME_OVERHEAD
    start, _, _, end = parts_at(bytes(data[body : frame.end]))
    if start == end:
        return None
    data[body + start : body + end] = bytes(end - start)
    write_checksum(data, frame)
    frame.path.write_bytes(data)
    return Mutation(f"erased {frame}", segment_named(frame))


def swap_two_frames(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    pairs = [(one, other) for one, other in pairwise(frames) if one.path == other.path]
    if not pairs:
        return None
    one, other = chance.choice(pairs)
    data = one.path.read_bytes()
    swapped = data[other.start : other.end] + data[one.start : one.end]
    one.path.write_bytes(data[: one.start] + swapped + data[other.end :])
    return Mutation(f"swapped {one} and the next", segment_named(one))


def cut_out_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = frame.path.read_bytes()
    end = chance.choice([frame.end, len(data)])  # it alone, or all from there to the end
    frame.path.write_bytes(data[: frame.start] + data[end:])
    return Mutation(f"cut out {frame} up to {end}", anywhere)


GAPS = "SELECT journal, segment FROM gaps"


def take_away_a_segment(store: Store, chance: random.Random) -> Mutation | None:
    """Take away a segment with a sound one below it: from the oldest up, damaged ones aside, the recorder deletes."""
    gaps = {(row[0].rpartition("/")[2].partition(".")[0], row[1]) for row in store.run(store.days[-1], GAPS)}
    shipped = {frame.path for frame in frames_of(store)}
    paths = []
    for folder in sorted((store.folder.parent / "journal").iterdir()):
        sound = False
        for path in sorted(folder.glob("*.journal")):
            if sound and path in shipped:
                paths.append(path)
            sound = sound or (folder.name, int(path.stem)) not in gaps
    if not paths:
        return None
    path = chance.choice(paths)
    path.unlink()
    return Mutation(f"took away {path}", anywhere)


def swap_two_segments(store: Store, chance: random.Random) -> Mutation | None:
    folders = [
        folder for folder in (store.folder.parent / "journal").iterdir() if len(list(folder.glob("*.journal"))) > 1
    ]
    if not folders:
        return None
    one, other = chance.sample(sorted(chance.choice(sorted(folders)).glob("*.journal")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return Mutation(f"swapped {one} and {other}", anywhere)


def flip_a_byte_of_a_header(store: Store, chance: random.Random) -> Mutation | None:
    path = chance.choice([frame.path for frame in frames_of(store)] or [None])
    if path is None:
        return None
    data = bytearray(path.read_bytes())
    _, end = parse_header(bytes(data))
    data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return Mutation(f"a byte of the header of {path}", anywhere)


def put_a_segment_of_another_journal(store: Store, chance: random.Random) -> Mutation | None:
    paths = sorted({frame.path for frame in frames_of(store)})
    pairs = [(one, other) for one in paths for other in paths if one.parent != other.parent]
    if not pairs:
        return None
    one, other = chance.choice(pairs)
    shutil.copyfile(other, one)
    return Mutation(f"{other} in the place of {one}", anywhere)
