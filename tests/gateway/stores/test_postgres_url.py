"""What an `audit.url` of PostgreSQL may say, and that what it may not is refused without repeating a secret."""

import pytest

from gateway.errors import SettingsError
from gateway.stores.postgres_url import parse_postgres_url


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("postgresql://db.example:6432/audit", "db.example:6432/audit"),
        ("postgres://gateway:s3cret@db.example/audit", "db.example:5432/audit"),
        ("postgresql://a.example:1,b.example:2/audit", "a.example:1,b.example:2/audit"),
        ("postgresql://a.example,b.example:7/audit?port=7", "a.example:7,b.example:7/audit"),
        ("postgresql://gateway@%2Fvar%2Frun%2Fpostgresql/audit", "/var/run/postgresql:5432/audit"),
        ("postgresql:///audit", "the local socket:5432/audit"),
        ("postgresql://[::1]:5433/audit", "::1:5433/audit"),
    ],
)
def test_a_url_is_told_without_its_user_and_password(url: str, where: str) -> None:
    assert parse_postgres_url(url).where == where


def test_options_of_libpq_are_passed_on_and_ours_stand_only_where_nothing_is_said() -> None:
    address = parse_postgres_url(
        "postgresql://u:p%40ss@h/d?sslmode=verify-full&sslrootcert=/ca.pem&connect_timeout=2&application_name=mine"
    )
    assert address.options["sslmode"] == "verify-full"
    assert address.options["sslrootcert"] == "/ca.pem"
    assert address.options["connect_timeout"] == "2"
    assert address.options["application_name"] == "mine"
    assert address.options["password"] == "p@ss"
    assert parse_postgres_url("postgresql://h/d").options["connect_timeout"] == "5"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3cret",
        "mysql://u:s3cret@h/d",
        "postgresql://u:s3cret%@h/d",
        "postgresql://u:s3cret@h:port:5/d?x",
        "postgresql://h/d?s3cret=1",
        "postgresql://[::1/s3cret",
        "host=h password=s3cret",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(SettingsError, match=r"audit\.url: .*postgresql://user:password@host") as refused:
        parse_postgres_url(url)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_secrets_are_masked_wherever_they_stand_in_a_text() -> None:
    address = parse_postgres_url("postgresql://u:s3cret@h/d?sslpassword=k3y")
    assert address.masked("no s3cret,\n  nor\tk3y") == "no ***, nor ***"
