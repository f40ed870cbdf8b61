"""Exported lines as a Parquet file, read back by DuckDB: every type, every value, row group by row group."""

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pyarrow import parquet

from gateway.cli.failures import CommandFailed
from gateway.cli.parquet import ParquetLines
from gateway.evidence.exporting import COLUMNS, lines_of
from gateway.ports import Kept
from tests.records import DAY, ChainedJournal, control_record, new_record

AS_TOLD = [{"name": column.name, "type": column.type} for column in COLUMNS]
DUCKDB_TYPES = {
    "text": "VARCHAR",
    "whole": "BIGINT",
    "truth": "BOOLEAN",
    "time": "TIMESTAMP WITH TIME ZONE",
    "day": "DATE",
    "json": "VARCHAR",
}


@pytest.fixture
def lines() -> list[bytes]:
    chain = ChainedJournal()
    records = [new_record(number, total_us=number, headers={"x-tenant": "acme"}) for number in range(10)]
    frames = [*chain.frames(*records), chain.frame(control_record(10, "audit.erase", details={"count": 2}))]
    return list(lines_of([Kept(frame, DAY) for frame in frames]))


def write(path: Path, lines: list[bytes], group_rows: int) -> None:
    with path.open("wb") as file:
        writing = ParquetLines(file, AS_TOLD, group_rows)
        for line in lines:
            writing.add(line.rstrip(b"\n"))
        writing.finish()
        writing.close()


def ask(question: str) -> list[Any]:
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        return database.execute(question).fetchall()


def test_every_column_has_its_type(tmp_path: Path, lines: list[bytes]) -> None:
    write(tmp_path / "r.parquet", lines, 100)
    described = ask(f"DESCRIBE SELECT * FROM '{tmp_path}/r.parquet'")
    assert [(name, kind) for name, kind, *_ in described] == [
        (column.name, DUCKDB_TYPES[column.type]) for column in COLUMNS
    ]


@pytest.mark.parametrize("group_rows", [1, 3, 11, 100])
def test_every_value_comes_back_whatever_the_row_groups(tmp_path: Path, lines: list[bytes], group_rows: int) -> None:
    path = tmp_path / "r.parquet"
    write(path, lines, group_rows)
    assert parquet.ParquetFile(path).num_row_groups == -(-len(lines) // group_rows)
    assert ask(f"SELECT count(*), sum(total_us), sum(sequence), count(DISTINCT record_id) FROM '{path}'") == [
        (11, 45, 66, 11)
    ]
    whole = [column.name for column in COLUMNS if column.type in {"text", "whole", "truth"}]
    found = ask(f"SELECT {', '.join(whole)} FROM '{path}' ORDER BY sequence")
    assert found == [tuple(json.loads(line)[name] for name in whole) for line in lines]


def test_times_and_days_are_times_and_days_and_json_can_be_asked(tmp_path: Path, lines: list[bytes]) -> None:
    path = tmp_path / "r.parquet"
    write(path, lines, 100)
    assert ask(f"SELECT min(epoch_us(received)) * 1000 = min(received_ns), min(day)::TEXT FROM '{path}'") == [
        (True, DAY)
    ]
    assert ask(f"SELECT DISTINCT headers->>'x-tenant' FROM '{path}' WHERE role = 'primary'") == [("acme",)]
    assert ask(f"SELECT details->>'count' FROM '{path}' WHERE action = 'audit.erase'") == [("2",)]


def test_an_export_of_nothing_is_a_file_of_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "r.parquet", [], 100)
    assert ask(f"SELECT count(*), sum(total_us) FROM '{tmp_path}/r.parquet'") == [(0, None)]


def test_a_column_of_a_type_from_the_future_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "r").open("wb") as file, pytest.raises(CommandFailed, match="knows no columns of type matrix"):
        ParquetLines(file, [{"name": "m", "type": "matrix"}])
