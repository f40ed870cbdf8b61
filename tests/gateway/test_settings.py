"""Settings: where they come from and which source wins, and what is refused, in words that never hold a secret."""

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.config import Settings, dump_settings, load_settings, read_settings, setting_names
from gateway.errors import SettingsError

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("POINTSMAN")]:
        monkeypatch.delenv(name)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set variables of our prefix: `environment(PORT="1")` sets `POINTSMAN_PORT`."""

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"POINTSMAN_{name}", value)

    return set_all


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Write a settings file and name it in the environment, as `--config` does."""

    def write(text: str) -> Path:
        path = tmp_path / "pointsman.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("POINTSMAN_CONFIG", str(path))
        return path

    return write


def refusal(overrides: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(overrides)
    return refused.value.message


# ── where settings come from ─────────────────────────────────────────────────────────────────────────────────────


def test_every_setting_has_a_default_that_is_reachable_only_from_this_machine() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.admin_host, settings.admin_port) == (
        "127.0.0.1",
        8080,
        "127.0.0.1",
        8081,
    )
    assert (settings.workers, settings.redis_url, settings.insecure) == (2, None, False)


def test_the_command_line_beats_the_environment_which_beats_the_file(
    environment: Callable[..., None], file: Callable[[str], Path]
) -> None:
    file("port = 1\nadmin_port = 1\nworkers = 1\n[onnx]\npool_threads = 1\nintra_op_threads = 1")
    environment(PORT="2", ADMIN_PORT="2", ONNX__POOL_THREADS="2")
    settings = load_settings({"port": 3})
    assert (settings.port, settings.admin_port, settings.workers) == (3, 2, 1)
    assert (settings.onnx.pool_threads, settings.onnx.intra_op_threads) == (2, 1)
    assert settings.onnx.inline_below_ms == 1.0


def test_an_override_of_none_does_not_count(environment: Callable[..., None]) -> None:
    environment(PORT="2")
    assert load_settings({"port": None, "host": None}).port == 2


def test_a_group_may_be_given_as_json_and_one_setting_of_it_beside_that(environment: Callable[..., None]) -> None:
    environment(ONNX='{"pool_threads": 5, "intra_op_threads": 5}', ONNX__INTRA_OP_THREADS="6")
    onnx = load_settings().onnx
    assert (onnx.pool_threads, onnx.intra_op_threads) == (5, 6)


def test_truths_and_numbers_of_the_environment_are_read_as_such(environment: Callable[..., None]) -> None:
    environment(INSECURE="true", SHUTDOWN__DRAIN_SECONDS="2.5", LIMITS__MAX_BODY_BYTES="1000")
    settings = load_settings()
    assert (settings.insecure, settings.shutdown.drain_seconds, settings.limits.max_body_bytes) == (True, 2.5, 1000)


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1
    with pytest.raises(ValidationError, match="frozen"):
        settings.onnx.pool_threads = 1


def test_every_setting_is_described_under_its_dotted_name() -> None:
    names = setting_names()
    assert {"port", "redis_url", "onnx.pool_threads", "shutdown.drain_seconds"} <= names.keys()
    assert "onnx" not in names
    assert [name for name, description in names.items() if not description] in ([], ["log_level"])


# ── unknown keys ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("WROKERS", "did you mean POINTSMAN_WORKERS?"),
        ("ONNX__POOL_THREAD", "did you mean POINTSMAN_ONNX__POOL_THREADS?"),
        ("ONNX__POOL_THREADS__MORE", "did you mean POINTSMAN_ONNX__POOL_THREADS?"),
        ("ONNX__pool_threads", "did you mean POINTSMAN_ONNX__POOL_THREADS?"),
        ("Q", "see the README's table of settings"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known_one(
    environment: Callable[..., None], variable: str, hint: str
) -> None:
    environment(**{variable: SECRET})
    assert refusal() == f"POINTSMAN_{variable}: no such setting; {hint}"


def test_a_variable_in_lower_case_is_refused_because_it_is_so_easily_overlooked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("pointsman_port", "1")
    assert refusal() == "pointsman_port: no such setting; did you mean POINTSMAN_PORT?"


def test_variables_that_the_command_line_reads_are_no_settings_and_no_error(environment: Callable[..., None]) -> None:
    environment(ADMIN_URL="http://127.0.0.1:1", URL="", ACTOR="me")
    assert load_settings().port == 8080


def test_what_kubernetes_sets_for_a_service_of_our_name_is_refused_with_the_remedy(
    environment: Callable[..., None],
) -> None:
    environment(SERVICE_HOST="10.0.0.1", SERVICE_PORT="8080", PORT="tcp://10.0.0.1:8080")
    assert "enableServiceLinks: false" in refusal()


def test_an_empty_variable_is_refused(environment: Callable[..., None]) -> None:
    environment(REDIS_URL="", CONFIG="", ONNX="")
    assert refusal() == "; ".join(
        f"POINTSMAN_{name}: is empty; give it a value or unset it" for name in ("CONFIG", "ONNX", "REDIS_URL")
    )


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("prot = 1", "prot", "did you mean port?"),
        ("Port = 1", "Port", "did you mean port?"),
        ("[onnx]\npool_thread = 1", "onnx.pool_thread", "did you mean onnx.pool_threads?"),
        ("[onxx]\npool_threads = 1", "onxx", "see the README's table of settings"),
        ("_env_file = 'x'", "_env_file", "see the README's table of settings"),
    ],
)
def test_an_unknown_key_of_the_file_is_named_with_the_file(
    file: Callable[[str], Path], text: str, name: str, hint: str
) -> None:
    path = file(text)
    assert refusal() == f"{name}: no such setting; {hint} (set in {path})"


@pytest.mark.parametrize("name", ["prot", "PORT", "_env_file", "_env_prefix", "onnx.pool_threads"])
def test_an_unknown_override_is_named(name: str) -> None:
    assert refusal({name: "1"}).startswith(f"{name}: no such setting")


def test_an_unknown_key_in_a_group_is_named_wherever_the_group_comes_from(environment: Callable[..., None]) -> None:
    assert refusal({"onnx": {"threads": 1}}).startswith("onnx.threads: no such setting")
    environment(ONNX='{"threads": 1}')
    assert refusal().startswith("onnx.threads: no such setting")
    assert refusal().endswith("(set by POINTSMAN_ONNX)")


def test_every_mistake_is_told_at_once(environment: Callable[..., None], file: Callable[[str], Path]) -> None:
    path = file("port = 'x'\nbogus = 1")
    environment(WORKERS="many")
    assert sorted(refusal({"admin_port": -1}).split("; ")) == sorted(
        [
            "admin_port: expected at least 0",
            "workers: expected a whole number (set by POINTSMAN_WORKERS)",
            f"port: expected a whole number (set in {path})",
            "bogus: no such setting",
            f"see the README's table of settings (set in {path})",
        ]
    )


# ── wrong values ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("WORKERS", "many", "workers: expected a whole number"),
        ("WORKERS", "1.5", "workers: expected a whole number"),
        ("WORKERS", "0", "workers: expected at least 1"),
        ("WORKERS", "257", "workers: expected at most 256"),
        ("WORKERS", "true", "workers: expected a whole number"),
        ("PORT", "65536", "port: expected at most 65535"),
        ("PORT", "-1", "port: expected at least 0"),
        ("PORT", "9" * 5000, "port: expected a smaller number"),
        ("INSECURE", "maybe", "insecure: expected true or false"),
        ("LOG_LEVEL", "loud", "log_level: expected 'debug', 'info', 'warning' or 'error'"),
        ("GATEWAY", "a b", "gateway: expected 1 to 64 characters from A-Z a-z 0-9 . _ -, the first a letter or digit"),
        ("ONNX__POOL_THREADS", "x", "onnx.pool_threads: expected a whole number"),
        ("ONNX__INLINE_BELOW_MS", "x", "onnx.inline_below_ms: expected a number"),
        ("ONNX__INLINE_BELOW_MS", "nan", "onnx.inline_below_ms: expected a finite number"),
        ("SHUTDOWN__DRAIN_SECONDS", "inf", "shutdown.drain_seconds: expected a finite number"),
        (
            "REDIS_URL",
            "http://h",
            "redis_url: expected a URL that begins with redis://, rediss://, redis+sentinel://, rediss+sentinel:// "
            "or unix://",
        ),
    ],
)
def test_a_variable_of_a_wrong_value_is_refused_in_plain_words(
    environment: Callable[..., None], variable: str, value: str, message: str
) -> None:
    environment(**{variable: value})
    assert refusal() == f"{message} (set by POINTSMAN_{variable})"


@pytest.mark.parametrize("text", ["{", "[]", "3", "null", '"x"', "pool_threads=5", "[" * 100_000, "9" * 5000])
def test_a_group_in_the_environment_that_is_no_json_object_is_refused(
    environment: Callable[..., None], text: str
) -> None:
    environment(ONNX=text)
    assert refusal() == 'POINTSMAN_ONNX: expected a JSON object of settings, such as {"name": 1}'


def test_a_value_in_the_json_of_a_group_is_checked_like_any_other(environment: Callable[..., None]) -> None:
    environment(ONNX='{"pool_threads": 0, "intra_op_threads": true, "inline_below_ms": NaN}')
    assert sorted(refusal().split("; ")) == [
        "onnx.inline_below_ms: expected a finite number (set by POINTSMAN_ONNX)",
        "onnx.intra_op_threads: expected a number, not true or false (set by POINTSMAN_ONNX)",
        "onnx.pool_threads: expected at least 1 (set by POINTSMAN_ONNX)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = true", "port: expected a number, not true or false"),
        ("port = 1.5", "port: expected a whole number"),
        ("port = [1]", "port: expected a whole number"),
        ("host = 1", "host: expected a text"),
        ("data_dir = 1", "data_dir: expected the path of a folder"),
        ("insecure = 'x'", "insecure: expected true or false"),
        ("insecure = 2026-01-01", "insecure: expected true or false"),
        ("onnx = 3", "onnx: expected a group of settings"),
        ("rules = {poll_ms = {a = 1}}", "rules.poll_ms: expected a whole number"),
        ("onnx = {inline_below_ms = [1]}", "onnx.inline_below_ms: expected a number"),
    ],
)
def test_a_wrong_value_of_the_file_is_refused_in_plain_words(
    file: Callable[[str], Path], text: str, message: str
) -> None:
    path = file(text)
    assert refusal() == f"{message} (set in {path})"


def test_a_wrong_override_is_refused_without_blaming_the_variable_that_it_beats(
    environment: Callable[..., None],
) -> None:
    environment(WORKERS="3")
    assert refusal({"workers": 0}) == "workers: expected at least 1"


def test_a_wrong_variable_does_no_harm_when_the_command_line_beats_it(environment: Callable[..., None]) -> None:
    environment(WORKERS="many")
    assert load_settings({"workers": 3}).workers == 3


# ── the file ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_file_that_is_not_toml_is_refused_with_the_place(file: Callable[[str], Path]) -> None:
    path = file("port = 1\nredis_url = redis://:hunter2@h\n")
    message = refusal()
    assert message.startswith(f"the settings file {path} is not TOML: ")
    assert "line 2" in message
    assert SECRET not in message


def test_a_file_that_is_not_utf_8_or_not_there_is_refused_with_its_name(file: Callable[[str], Path]) -> None:
    path = file("")
    path.write_bytes(b"host = '\xff'")
    assert refusal().startswith(f"cannot read the settings file {path}: ")
    path.unlink()
    assert refusal().startswith(f"cannot read the settings file {path}: ")
    path.mkdir()
    assert refusal().startswith(f"cannot read the settings file {path}: ")


# ── addresses ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["host", "admin_host"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_a_loopback_address_may_be_bound(name: str, host: str) -> None:
    assert getattr(load_settings({name: host}), name) == host


@pytest.mark.parametrize("name", ["host", "admin_host"])
@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.1", "fe80::1", "gateway.example.com", "localhost.example.com", ""]
)
def test_any_other_address_is_refused_unless_insecure_is_said(name: str, host: str) -> None:
    message = refusal({name: host})
    assert message.startswith(f'{name}: "{host}" is no loopback address')
    assert "--insecure" in message
    assert getattr(load_settings({name: host, "insecure": True}), name) == host


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    settings = load_settings({"redis_url": f"redis://:{SECRET}@127.0.0.1:6379/0"})
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value().endswith(":6379/0")
    for text in (repr(settings), str(settings), repr(settings.model_dump()), settings.model_dump_json()):
        assert SECRET not in text


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REDIS_URL", f"http://:{SECRET}@h"),
        ("REDIS_ULR", f"redis://:{SECRET}@h"),
        ("WORKERS", SECRET),
        ("ONNX", f'{{"pool_threads": "{SECRET}"}}'),
        ("ONNX", f'{{"{SECRET}"'),
        ("LOG_LEVEL", SECRET),
        ("GATEWAY", f"{SECRET} "),
        ("INSECURE", SECRET),
    ],
)
def test_a_refusal_and_its_traceback_never_repeat_a_value(
    environment: Callable[..., None], variable: str, value: str
) -> None:
    environment(**{variable: value})
    with pytest.raises(SettingsError) as refused:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert SECRET not in repr(refused.value)


def test_a_wrong_secret_of_the_file_or_the_command_line_is_not_repeated(file: Callable[[str], Path]) -> None:
    assert SECRET not in refusal({"redis_url": f"http://:{SECRET}@h"})
    file(f"redis_url = ['{SECRET}']")
    assert refusal().startswith("redis_url: expected a text")
    assert SECRET not in refusal()


# ── to child processes ───────────────────────────────────────────────────────────────────────────────────────────


def test_settings_reach_a_child_process_whole_secrets_too() -> None:
    given = {"redis_url": f"redis://:{SECRET}@h", "onnx": {"pool_threads": 7}, "data_dir": Path("there")}
    settings = load_settings(given)
    handed = read_settings(dump_settings(settings))
    assert handed == settings
    assert type(handed) is Settings
    assert handed.redis_url is not None
    assert handed.redis_url.get_secret_value() == f"redis://:{SECRET}@h"


def test_a_child_process_takes_nothing_from_an_environment_or_file_that_changed_since(
    environment: Callable[..., None], file: Callable[[str], Path]
) -> None:
    path = file("port = 1")
    dumped = dump_settings(load_settings())
    path.unlink()
    environment(WORKERS="many", ONNX="{", HOST="0.0.0.0")
    handed = read_settings(dumped)
    assert (handed.port, handed.host, handed.workers) == (1, "127.0.0.1", 2)


# ── TLS ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('cert = "a"', "cert and key belong together; give both or none"),
        ('key = "a"', "cert and key belong together; give both or none"),
        ('client_ca = "a"', "client_ca needs cert and key"),
    ],
)
def test_a_certificate_without_its_key_is_refused(file: Callable[[str], Path], text: str, words: str) -> None:
    file(f"[tls]\n{text}")
    assert refusal().startswith(f"tls: {words}")


def test_the_files_of_tls_reach_another_process_as_they_were_given(environment: Callable[..., None]) -> None:
    environment(TLS__CERT="a.crt", TLS__KEY="a.key")
    tls = read_settings(dump_settings(load_settings())).tls
    assert (tls.cert, tls.key, tls.client_ca) == (Path("a.crt"), Path("a.key"), None)
