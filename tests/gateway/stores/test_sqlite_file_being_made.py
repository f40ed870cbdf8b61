"""A look-up that comes while the file of a new day is being made: it is not there yet, or it is whole."""

import threading
from pathlib import Path

from gateway.stores.audit_sqlite_day import SCHEMA
from gateway.stores.sqlite_file import NotThere, SqliteFile, open_for_reading


def test_a_file_that_is_being_made_is_not_there_or_whole_for_a_reader(tmp_path: Path) -> None:
    met = 0
    for number in range(25):
        path = tmp_path / f"{number}.db"
        made: list[SqliteFile] = []
        making = threading.Thread(target=lambda path=path, made=made: made.append(SqliteFile(path, SCHEMA)))
        making.start()
        while not path.exists():
            pass
        while True:
            try:
                connection = open_for_reading(path, SCHEMA)
                break
            except NotThere:
                met += 1
        making.join()
        connection.close()
        made[0].close()
    assert met > 0, "no reader came while a file was being made"
