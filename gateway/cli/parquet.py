"""Parquet files from the lines of an export: typed columns, in row groups, a bounded part of them in memory.

Belongs here: which type of Arrow a column of an export has, and writing. Never here: where lines come from. pyarrow is
an extra, and imported when it is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, BinaryIO, Final

import orjson

from gateway.cli.failures import CommandFailed

GROUP_ROWS: Final = 20_000
"""Records of one row group, if they are small."""
_GROUP_BYTES = 32 * 2**20


def _json_text(value: Any) -> str:
    return orjson.dumps(value).decode()


_VALUES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "time": datetime.fromisoformat,
    "day": date.fromisoformat,
    "json": _json_text,
}
"""How a value becomes what Arrow takes, by the type of its column; others are taken as they are."""


def check_pyarrow() -> None:
    """Raise `CommandFailed` when pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401, PLC0415 - an extra, for those who want Parquet
    except ModuleNotFoundError:
        raise CommandFailed(
            "Parquet needs pyarrow, which is not installed", "Run: pip install 'pointsman[export]', or take jsonl."
        ) from None


class ParquetLines:
    """Writes records, each a JSON object, to a Parquet file with an export's columns (`name`, `type` of each)."""

    def __init__(self, file: BinaryIO, columns: Sequence[Mapping[str, str]], group_rows: int = GROUP_ROWS) -> None:
        import pyarrow as arrow  # noqa: PLC0415 - as above
        from pyarrow import parquet  # noqa: PLC0415

        self._arrow = arrow
        types = {
            "text": arrow.string(),
            "whole": arrow.int64(),
            "truth": arrow.bool_(),
            "time": arrow.timestamp("us", tz="UTC"),
            "day": arrow.date32(),
            "json": arrow.string(),
        }
        unknown = [column["type"] for column in columns if column["type"] not in types]
        if unknown:
            raise CommandFailed(
                f"this pointsman knows no columns of type {unknown[0]}", "Take one as new as the gateway."
            )
        self._columns = [(column["name"], column["type"]) for column in columns]
        self._schema = arrow.schema([(name, types[kind]) for name, kind in self._columns])
        self._writer = parquet.ParquetWriter(file, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._group_rows = group_rows

    def add(self, line: bytes) -> None:
        """Write a record, now or with those to come."""
        self._rows.append(orjson.loads(line))
        self._bytes += len(line)
        if len(self._rows) >= self._group_rows or self._bytes >= _GROUP_BYTES:
            self._write_group()

    def finish(self) -> None:
        """Write what is left of the records."""
        self._write_group()

    def close(self) -> None:
        """Write the end of the file; also when it is not to be kept, or pyarrow would, when it is closed already."""
        self._writer.close()

    def _write_group(self) -> None:
        if not self._rows:
            return
        arrays = [self._array(name, kind) for name, kind in self._columns]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema), row_group_size=len(self._rows))
        self._rows, self._bytes = [], 0

    def _array(self, name: str, kind: str) -> Any:
        values = [row.get(name) for row in self._rows]
        if (made := _VALUES.get(kind)) is not None:
            values = [made(value) if value is not None else None for value in values]
        return self._arrow.array(values, type=self._schema.field(name).type)
