"""Erasing over the admin port: contents are gone from every file, the records stay and say who took them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from routing import unit_digest
from tests.records import new_record, shadow_of

WithAdmin = Callable[..., None]
ERASE = "/admin/v1/audit/erase"
SECRET = b"canary-7f3a91"


def files_with(folder: Path, needle: bytes) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and needle in _read(path)
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""  # SQLite takes its files away when it likes


def of_caller(number: int, key: str, **fields: Any) -> Any:
    return new_record(number, unit=unit_digest(key).hex(), **fields)


def test_a_request_is_erased_with_its_shadows_and_nothing_of_it_is_left_in_any_file(
    with_admin: WithAdmin, tmp_path: Path
) -> None:
    async def test(at: Any) -> None:
        primary = of_caller(1, "ann", request_id="order-1")
        at.record(primary, request=b'{"card": "' + SECRET + b'"}', response=SECRET)
        at.record(shadow_of(primary, 1), response=SECRET)
        at.record(of_caller(2, "bob"), request=b"stays-here", response=b"[]")
        assert (await at.http.get("/admin/v1/audit/requests/order-1")).status_code == 200
        assert len(files_with(tmp_path, SECRET)) >= 2

        answer = await at.http.post(ERASE, json={"request_id": "order-1"}, headers={"x-actor": "dpo"})
        assert answer.status_code == 200, answer.text
        assert (answer.json()["places"], answer.json()["records"]) == (2, 2)
        assert files_with(tmp_path, SECRET) == []
        assert files_with(tmp_path, b"stays-here") != []

        [record] = (await at.http.get("/admin/v1/audit/requests/order-1")).json()["records"]
        assert record["request"]["erased"]
        assert (record["request"]["body"], record["request"]["sha256"]) == (None, "")
        assert record["erasure"] == answer.json()["erasure"]
        assert record["shadows"][0]["response"]["erased"]
        [told] = (await at.http.get(f"/admin/v1/audit/requests/{record['erasure']}")).json()["records"]
        assert (told["action"], told["actor"]) == ("audit.erase", "dpo")
        assert told["details"]["count"] == 2

    with_admin(test)


def test_everything_of_a_caller_is_erased_by_the_routing_key_which_itself_is_recorded_nowhere(
    with_admin: WithAdmin, tmp_path: Path
) -> None:
    async def test(at: Any) -> None:
        for number in range(5):
            at.record(of_caller(number, "ann-of-green-gables"), request=SECRET, response=SECRET)
        at.record(of_caller(9, "bob"), request=b"stays-here", response=b"[]")
        answer = await at.http.post(ERASE, json={"unit_key": "ann-of-green-gables"})
        assert answer.json()["records"] == 5
        assert files_with(tmp_path, SECRET) == []
        assert files_with(tmp_path, b"ann-of-green-gables") == []
        again = await at.http.post(ERASE, json={"unit_key": "ann-of-green-gables"})
        assert (again.json()["places"], again.json()["records"]) == (5, 0)

    with_admin(test)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "invalid_document"),
        ({"unit_key": "a", "request_id": "b"}, 422, "invalid_document"),
        ({"unit_key": ""}, 422, "invalid_document"),
        ({"key": "a"}, 422, "invalid_document"),
        ({"unit_key": "nobody"}, 404, "not_found"),
        ({"request_id": "nothing"}, 404, "not_found"),
    ],
)
def test_an_erasure_of_nothing_or_of_two_things_is_refused(
    with_admin: WithAdmin, body: dict[str, str], status: int, code: str
) -> None:
    async def test(at: Any) -> None:
        answer = await at.http.post(ERASE, json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    with_admin(test)


def test_control_records_of_an_id_are_not_what_an_erasure_takes(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(replace(of_caller(1, "ann"), request_id="r"), request=SECRET, response=b"[]")
        first = (await at.http.post(ERASE, json={"request_id": "r"})).json()["erasure"]
        answer = await at.http.post(ERASE, json={"request_id": first})
        assert answer.status_code == 404

    with_admin(test)


def test_nothing_is_pruned_before_its_time(with_admin: WithAdmin) -> None:
    async def test(at: Any) -> None:
        at.record(of_caller(1, "ann"))
        for dry_run in (True, False):
            answer = await at.http.post("/admin/v1/audit/prune", json={"dry_run": dry_run})
            assert answer.json() == {"dry_run": dry_run, "pruned": []}

    with_admin(test)
