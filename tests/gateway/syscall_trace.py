"""What processes did to the files of a folder, call by call, as strace(1) saw it.

trace = traced(command, folder, "journal", "told")   run a command and return what it did to `folder/journal`

What it writes with writev(2) to `folder/told` are promises, which the trace has in their place.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = "openat,open,creat,write,pwrite64,writev,pwritev,fdatasync,fsync,rename,renameat,renameat2,unlink,unlinkat"
_MORE_CALLS = "ftruncate,truncate,mkdir,mkdirat,rmdir,link,linkat,fallocate,copy_file_range,sendfile"
_LINE = re.compile(r"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)\Z")
_RESULT = re.compile(r"\)\s+= (-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FILE = re.compile(r"-?\w+<((?:\\x[0-9a-f]{2})*)>")
Image = Mapping[str, bytes | None]
"""The files by their paths, below the folder; None for a folder."""


def why_not() -> str:
    """Return why nothing can be traced here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed (on Debian: apt-get install strace)"
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True, timeout=60)
    return "" if tried.returncode == 0 else f"strace may not trace here: {tried.stderr.decode().strip()}"


def strace(*more_calls: str) -> list[str]:
    """Return the beginning of a command that traces what changes files, and these calls beside it."""
    calls = ",".join((_CALLS, _MORE_CALLS, *more_calls))
    return ["strace", "-f", "-y", "-xx", "-s", "10000000", "-e", f"trace={calls}"]


@dataclass
class Change:
    """One change of a file or of a name: when it began and ended, and when it was durable (None: never)."""

    begin: int
    path: str
    end: int = 0
    durable: int | None = None


@dataclass
class Name(Change):
    """A name that comes (`made`: a file's number, or None for a folder) or goes."""

    gone: bool = False
    made: int | None = None


@dataclass
class Content(Change):
    """Bytes at an offset of a file, `within` those it has or behind them; or with `size` a truncation."""

    file: int = 0
    offset: int = 0
    data: bytes = b""
    size: int | None = None
    within: bool = False


@dataclass
class Trace:
    """What was done, in order, and what the session said, each with the moment when it did."""

    changes: list[Change] = field(default_factory=list)
    said: list[tuple[int, bytes]] = field(default_factory=list)
    moments: int = 0

    def said_before(self, moment: int) -> list[bytes]:
        """Return what had been said when the power went."""
        return [line for at, line in self.said if at < moment]


def traced(command: Sequence[str], folder: Path, watched: str, told: str) -> Trace:
    """Run a command to its end, and return what it did to `folder/watched`; what it wrote to `folder/told` it said."""
    out = folder / "strace.out"
    subprocess.run([*strace(), "-o", str(out), *command], check=True, timeout=120)
    return trace_in(out, folder, watched, told, {})


def trace_in(out: Path, folder: Path, watched: str, told: str, before: Image) -> Trace:
    """Return what a finished strace wrote down, of processes that found `before` in `folder/watched`, all of it
    durable.
    """
    return _Reading(folder, watched, told, before).read(out.read_text().splitlines())


def image_of(folder: Path, watched: str) -> Image:
    """Return what stands in `folder/watched` now."""
    below = [folder / watched, *sorted((folder / watched).rglob("*"))] if (folder / watched).exists() else []
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in below}


class _Reading:
    def __init__(self, folder: Path, watched: str, told: str, before: Image) -> None:
        self._folder = folder
        self._watched = folder / watched
        self._told = folder / told
        self._trace = Trace()
        self._numbers: dict[Path, int | None] = {self._watched.parent: None}
        self._sizes: dict[int, int] = {}
        self._under_way: dict[str, tuple[str, str, Change | int | None]] = {}
        for path, data in before.items():
            self._is_there(folder / path, path, data)

    def _is_there(self, path: Path, below: str, data: bytes | None) -> None:
        number = self._numbers[path] = len(self._numbers) if data is not None else None
        self._trace.changes.append(Name(0, below, durable=0, made=number))
        if number is not None and data is not None:
            self._sizes[number] = len(data)
            self._trace.changes.append(Content(0, below, durable=0, file=number, data=data))

    def read(self, lines: Sequence[str]) -> Trace:
        for moment, line in enumerate(lines, 1):
            if (found := _LINE.match(line)) is not None:
                thread, resumed, call, rest = found.groups()
                if resumed is not None:
                    name, arguments, begun = self._under_way.pop(thread)
                    self._end(moment, name, arguments, begun, rest)
                elif rest.endswith("<unfinished ...>"):
                    self._under_way[thread] = call, rest, self._begin(moment, call, rest)
                elif (result := _RESULT.search(rest)) is not None and not result[1].startswith("-"):
                    self._end(moment, call, rest, self._begin(moment, call, rest), rest)
        self._trace.moments = len(lines) + 1
        return self._trace

    def _begin(self, moment: int, call: str, rest: str) -> Change | int | None:
        """Note a change when it begins, which is when others may see it; return it, or the moment for a sync."""
        files = [Path(_decoded(one).decode()) for one in _FILE.findall(rest)]
        texts = [_decoded(one) for one in _TEXT.findall(rest)]
        if call == "writev" and files[0] == self._told:
            self._trace.said.append((moment, b"".join(texts)))
            return None
        if call in ("write", "pwrite64"):
            return self._written(moment, call, rest, files[0], texts[0])
        if call in ("fdatasync", "fsync"):
            return moment
        if call == "read":
            return None
        path = files[0] if call == "ftruncate" else Path(texts[0].decode()) if texts else Path()
        if not path.is_relative_to(self._watched):
            return None
        change = self._named(moment, call, rest, path)
        if change is not None:
            self._trace.changes.append(change)
        return change

    def _written(self, moment: int, call: str, rest: str, path: Path, data: bytes) -> Change | None:
        if not path.is_relative_to(self._watched):
            return None
        number = self._numbers[path]
        assert number is not None
        if (result := _RESULT.search(rest)) is not None:
            data = data[: int(result[1])]  # a short write
        offset = _last_number(rest) if call == "pwrite64" else self._sizes[number]
        within = offset < self._sizes[number]
        self._sizes[number] = max(self._sizes[number], offset + len(data))
        change = Content(moment, self._below(path), file=number, offset=offset, data=data, within=within)
        self._trace.changes.append(change)
        return change

    def _named(self, moment: int, call: str, rest: str, path: Path) -> Change | None:
        if call in ("openat", "open"):
            if "O_CREAT" not in rest or path in self._numbers:
                return None
            number = self._numbers[path] = len(self._numbers)
            self._sizes[number] = 0
            return Name(moment, self._below(path), made=number)
        if call == "mkdir":
            if path in self._numbers:
                return None
            self._numbers[path] = None
            return Name(moment, self._below(path))
        if call == "ftruncate":
            file = self._numbers[path]
            assert file is not None
            self._sizes[file] = size = _last_number(rest)
            return Content(moment, self._below(path), file=file, size=size)
        assert call == "unlink", f"{call} is not foreseen here"
        del self._numbers[path]
        return Name(moment, self._below(path), gone=True)

    def _end(self, moment: int, call: str, arguments: str, begun: Change | int | None, rest: str) -> None:
        if isinstance(begun, Change):
            begun.end = moment
            if (result := _RESULT.search(rest)) is not None and result[1].startswith("-"):
                self._trace.changes.remove(begun)
        elif begun is not None and (result := _RESULT.search(rest)) is not None and result[1] == "0":
            assert call in ("fdatasync", "fsync")
            self._synced(begun, moment, Path(_decoded(_FILE.findall(arguments)[0]).decode()))

    def _synced(self, begin: int, end: int, path: Path) -> None:
        number = self._numbers.get(path)
        for change in self._trace.changes:
            covered = (
                change.file == number
                if isinstance(change, Content)
                else (self._folder / change.path).parent == path and number is None
            )
            if covered and change.durable is None and 0 < change.end < begin:
                change.durable = end

    def _below(self, path: Path) -> str:
        return str(path.relative_to(self._folder))


def _decoded(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def _last_number(arguments: str) -> int:
    return int(arguments.split(") =", maxsplit=1)[0].rsplit(", ", 1)[1])
