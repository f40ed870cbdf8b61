"""Manifests: what is refused and in which words, what the metadata contract asks for, and what is the same version."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalog import (
    METADATA_CONTRACT,
    Ejection,
    Health,
    Manifest,
    encode_manifest,
    parse_manifest,
    same_content,
)
from gateway.errors import InvalidDocument

SHA = "0f" * 32
ONNX = {"onnx": {"path": "model.onnx", "sha256": SHA}}
COMPLETE: dict[str, Any] = {
    "model": "fraud",
    "version": "2",
    "backend": ONNX,
    "code": {"git_commit": "9f2c1ab", "repository": "git@example.com:risk/fraud.git", "path": "train.py"},
    "data": {"version": "2026-10-01", "sha256": SHA},
    "hyperparameters": {"C": 1.0, "layers": [8, 4, {"drop": None}], "seed": 10**30, "on": True},
    "metrics": {"accuracy": 0.96, "rows": 1797},
    "owner": "risk-ml",
    "created": "2026-10-02T09:00:00Z",
    "description": "The second one.",
    "tags": {"stage": "candidate"},
}


def manifest(**fields: Any) -> Manifest:
    return parse_manifest({**COMPLETE, **fields})


def refusal(**fields: Any) -> InvalidDocument:
    """The refusal of the complete manifest with other fields, which must be the same for its text."""
    document = {**COMPLETE, **fields}
    with pytest.raises(InvalidDocument) as by_object:
        parse_manifest(document)
    with pytest.raises(InvalidDocument) as by_text:
        parse_manifest(json.dumps(document).encode())
    assert by_text.value.path == by_object.value.path
    return by_object.value


def http(*urls: Any, **fields: Any) -> dict[str, Any]:
    return {"http": {"urls": list(urls), **fields}}


def test_the_manifest_of_the_design_is_parsed_whole() -> None:
    parsed = parse_manifest(json.dumps(COMPLETE).encode())
    assert parsed == manifest()
    assert (parsed.digest, parsed.missing) == (SHA, ())
    assert parsed.hyperparameters == COMPLETE["hyperparameters"]
    assert parsed.metrics == {"accuracy": 0.96, "rows": 1797.0}


def test_a_manifest_comes_back_from_its_canonical_json() -> None:
    watched = http("http://h", ejection={"after": 0, "most_ms": 1}, health={"path": "/healthz", "interval_ms": 500})
    for backend in (ONNX, watched, http("http://10.0.0.7:8080", model="fraud-v2", version=None, timeout_ms=1000)):
        parsed = manifest(backend=backend)
        assert parse_manifest(encode_manifest(parsed)) == parsed
        assert encode_manifest(parse_manifest(encode_manifest(parsed))) == encode_manifest(parsed)


def test_nothing_is_asked_and_five_failures_eject_unless_the_manifest_says_otherwise() -> None:
    backend = manifest(backend=http("http://h", health={}, ejection={})).backend.http
    assert backend is not None
    assert backend.ejection == Ejection(after=5, for_ms=30_000, most_ms=300_000)
    assert backend.health == Health(None, 10_000, 2_000, unhealthy_after=3, healthy_after=2)
    bare = manifest(backend=http("http://h")).backend.http
    assert bare is not None
    assert (bare.ejection, bare.health) == (None, None)


def test_a_version_that_is_forwarded_has_no_digest() -> None:
    assert manifest(backend=http("http://10.0.0.7:8080")).digest is None


@pytest.mark.parametrize(
    ("fields", "missing"),
    [
        ({}, ()),
        ({"code": {}}, ("code.git_commit",)),
        ({"code": {"git_commit": None}}, ("code.git_commit",)),
        ({"data": {"sha256": SHA}}, ("data.version",)),
        ({"data": {"version": " \t"}}, ("data.version",)),
        ({"metrics": {}}, ("metrics",)),
        ({"metrics": {"accuracy": 0.0}}, ()),
        ({"owner": None}, ("owner",)),
        ({"owner": ""}, ("owner",)),
        ({"owner": "  "}, ("owner",)),
        ({"code": {}, "data": {}, "metrics": {}, "owner": None}, METADATA_CONTRACT),
    ],
)
def test_what_the_metadata_contract_misses_is_named(fields: dict[str, Any], missing: tuple[str, ...]) -> None:
    assert manifest(**fields).missing == missing


@pytest.mark.parametrize(
    ("fields", "path", "words"),
    [
        ({"version": "2 "}, "version", "expected a version name of 1 to 64 characters from A-Z a-z 0-9 . _ -"),
        ({"model": ""}, "model", "expected a model name of 1 to 128 characters"),
        ({"hyperparameter": {}}, "hyperparameter", "unknown field; did you mean hyperparameters?"),
        ({"backend": None}, "backend", 'expected {"onnx": {"path": …, "sha256": …}} or {"http": {"urls": […]}}'),
        ({"backend": {}}, "backend", "expected exactly one of onnx and http"),
        ({"backend": {"onnx": None, "http": None}}, "backend", "expected exactly one of onnx and http"),
        ({"backend": {**ONNX, **http("http://h")}}, "backend", "expected exactly one of onnx and http"),
        ({"backend": {"onxx": {}}}, "backend.onxx", "unknown field; did you mean onnx?"),
        ({"backend": {"onnx": {"sha256": SHA}}}, "backend.onnx.path", "required field is missing; expected a path"),
        ({"backend": {"onnx": {"path": "", "sha256": SHA}}}, "backend.onnx.path", "got an empty string"),
        ({"backend": {"onnx": {"path": "a\0b", "sha256": SHA}}}, "backend.onnx.path", "printable characters"),
        ({"backend": http()}, "backend.http.urls", "expected an array of 1 to 64 entries, got an empty array"),
        ({"backend": http("http://h", "http://h")}, "backend.http.urls[1]", "repeats backend.http.urls[0]"),
        ({"backend": http("http://h", timeout_ms=0)}, "backend.http.timeout_ms", "from 1 to 3600000 or null, got 0"),
        ({"backend": http("http://h", model="a b")}, "backend.http.model", "expected a model name"),
        (
            {"backend": http("http://h", ejection={"after": -1})},
            "backend.http.ejection.after",
            "from 0 to 1000, got -1",
        ),
        ({"backend": http("http://h", ejection={"for_s": 1})}, "backend.http.ejection.for_s", "did you mean for_ms?"),
        ({"backend": http("http://h", ejection=5)}, "backend.http.ejection", "expected an object or null, got 5"),
        ({"backend": http("http://h", health=True)}, "backend.http.health", "expected an object or null, got true"),
        (
            {"backend": http("http://h", health={"path": "ready"})},
            "backend.http.health.path",
            "a path that begins with /",
        ),
        ({"backend": http("http://h", health={"path": "/a?b"})}, "backend.http.health.path", "without query"),
        ({"backend": http("http://h", health={"interval_ms": 9})}, "backend.http.health.interval_ms", "from 10 to"),
        (
            {"backend": http("http://h", health={"healthy_after": 0})},
            "backend.http.health.healthy_after",
            "from 1 to 100, got 0",
        ),
        ({"code": {"git_commit": "HEAD"}}, "code.git_commit", "expected a commit of 7 to 64 lower-case hex digits"),
        ({"code": {"git_commit": "9F2C1AB"}}, "code.git_commit", "expected a commit of 7 to 64 lower-case hex digits"),
        (
            {"data": {"sha256": "0" * 63}},
            "data.sha256",
            "expected 64 lower-case hex digits or null, got a string of 63",
        ),
        ({"hyperparameters": [1]}, "hyperparameters", "expected an object, got an array"),
        ({"hyperparameters": {"lr": {"end": float("nan")}}}, 'hyperparameters["lr"]["end"]', "NaN"),
        ({"hyperparameters": {"lr": [0, float("-inf")]}}, 'hyperparameters["lr"][1]', "Infinity"),
        ({"metrics": {"auc": float("nan")}}, 'metrics["auc"]', "NaN"),
        ({"metrics": {"auc": float("inf")}}, 'metrics["auc"]', "Infinity"),
        ({"metrics": {"auc": True}}, 'metrics["auc"]', "expected a finite number, got true"),
        ({"metrics": {"auc": "0.9"}}, 'metrics["auc"]', "expected a finite number, got a string of 3 characters"),
        ({"metrics": {"auc": 10**400}}, 'metrics["auc"]', "expected a finite number, got a number of more than 24"),
        ({"created": "2026-10-02"}, "created", "expected a date and time with its zone"),
        ({"created": "2026-10-02T09:00:00"}, "created", "expected a date and time with its zone"),
        ({"tags": {"stage": 1}}, 'tags["stage"]', "expected a string of at most 1024 characters, got 1"),
        ({"owner": "x" * 1025}, "owner", "expected a string of at most 1024 characters or null, got a string of 1025"),
    ],
)
def test_a_manifest_is_refused_at_the_field_that_does_not_fit(fields: dict[str, Any], path: str, words: str) -> None:
    refused = refusal(**fields)
    assert refused.path == path
    assert words in refused.message
    assert refused.message.startswith(f"{path}: ")


@pytest.mark.parametrize("sha256", ["absent", None, "", "0" * 63, "0" * 65, "0F" * 32, "g" * 64, "0" * 64 + "\n", 0])
def test_a_sha256_that_is_missing_or_ill_formed_is_refused_with_what_it_should_be(sha256: Any) -> None:
    onnx = {"path": "model.onnx", **({} if sha256 == "absent" else {"sha256": sha256})}
    refused = refusal(backend={"onnx": onnx})
    assert refused.path == "backend.onnx.sha256"
    assert "64 lower-case hex digits" in refused.message


@pytest.mark.parametrize("field", ["model", "version", "backend"])
def test_a_required_field_that_is_missing_is_named(field: str) -> None:
    with pytest.raises(InvalidDocument, match=f"^{field}: required field is missing; expected "):
        parse_manifest({name: value for name, value in COMPLETE.items() if name != field})


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b'{"model": "fraud", "version": "1", "version": "2"}', "version"),
        (b'{"model": "m", "version": "1", "backend": {"http": {"urls": [], "urls": []}}}', "backend.http.urls"),
        (b'{"model": "m", "version": "1", "backend": {}, "metrics": {"auc": 1, "auc": 2}}', 'metrics["auc"]'),
        (b'{"model": "m", "version": "1", "backend": {}, "tags": {"a": "\\ud800"}}', 'tags["a"]'),
        (b'{"model": "m", "version": "1", "backend": {}, "metrics": {"auc": 1e999}}', 'metrics["auc"]'),
        (b"[]", ""),
        (b"{", ""),
        (b"\xff", ""),
    ],
)
def test_a_text_that_hides_something_is_refused_where_it_does(text: bytes, path: str) -> None:
    with pytest.raises(InvalidDocument) as refused:
        parse_manifest(text)
    assert refused.value.path == path


def test_an_infinity_deep_in_the_text_of_the_hyperparameters_is_refused() -> None:
    text = json.dumps(COMPLETE).encode().replace(b'"C": 1.0', b'"C": {"grid": [1, 1e999]}')
    with pytest.raises(InvalidDocument) as refused:
        parse_manifest(text)
    assert refused.value.path == 'hyperparameters["C"]["grid"][1]'


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.7:8080",
        "https://models.internal/fraud/v2/",
        "http://[::1]:8080",
        "http://fraud_2.svc.cluster.local",
        "http://h:65535",
    ],
)
def test_a_plain_url_is_taken(url: str) -> None:
    assert manifest(backend=http(url)).backend.http is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@h:8080",
        "http://hunter2@h",
        "http://user:hunter2/3@h",
        "https://user:hunter2@[::1]/x",
        "http://h/x@hunter2",
        "http://h?api_key=hunter2",
        "http://h/#hunter2",
        "ftp://h/hunter2",
        "http://hunter2:99999",
        "http://hunter2:x",
        "http://hunter2 ",
        "http://hunter2\n",
        "//hunter2",
        "hunter2",
    ],
)
def test_a_url_with_credentials_or_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    refused = refusal(backend=http("http://10.0.0.7:8080", url))
    assert refused.path == "backend.http.urls[1]"
    assert "without user name, password or query" in refused.message
    assert "hunter2" not in f"{refused!r} {refused.__cause__!r}"


@pytest.mark.parametrize(
    ("repository", "taken"),
    [
        ("git@example.com:risk/fraud.git", True),
        ("ssh://git@example.com/risk/fraud.git", True),
        ("https://example.com/risk/fraud@main", True),
        ("risk/fraud", True),
        ("https://hunter2@example.com/risk/fraud.git", False),
        ("HTTPS://ci:hunter2@example.com/risk/fraud.git", False),
        ("git+https://hunter2@example.com/risk/fraud.git", False),
        ("ssh://git:hunter2@example.com/risk/fraud.git", False),
    ],
)
def test_the_address_of_a_repository_is_refused_when_it_holds_a_secret(repository: str, taken: bool) -> None:
    code = {"git_commit": "9f2c1ab", "repository": repository}
    if taken:
        assert manifest(code=code).code.repository == repository
    else:
        refused = refusal(code=code)
        assert refused.path == "code.repository"
        assert "without password or token" in refused.message
        assert "hunter2" not in refused.message


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_hyperparameters_may_be_any_json(hyperparameters: dict[str, Any]) -> None:
    parsed = manifest(hyperparameters=hyperparameters)
    assert json.loads(encode_manifest(parsed))["hyperparameters"] == hyperparameters


@pytest.mark.parametrize("value", [{1: 2}, b"bytes", {"a", "b"}, "\ud800", {"\ud800": 1}, 10**1000])
def test_hyperparameters_that_are_no_json_are_refused(value: Any) -> None:
    with pytest.raises(InvalidDocument) as refused:
        manifest(hyperparameters={"x": value})
    assert refused.value.path.startswith('hyperparameters["x"]')


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({}, True),
        ({"backend": {"onnx": {"path": "/elsewhere/model.onnx", "sha256": SHA}}}, True),
        ({"created": "2026-10-02T11:00:00+02:00"}, True),
        ({"tags": {"stage": "candidate"}, "model": "fraud"}, True),
        ({"backend": {"onnx": {"path": "model.onnx", "sha256": "f0" * 32}}}, False),
        ({"backend": http("http://h")}, False),
        ({"created": "2026-10-02T09:00:01Z"}, False),
        ({"created": None}, False),
        ({"owner": "someone"}, False),
        ({"metrics": {"accuracy": 0.961, "rows": 1797}}, False),
        ({"hyperparameters": {"C": 1}}, False),
        ({"version": "3"}, False),
    ],
)
def test_two_manifests_are_one_version_when_all_but_the_place_of_the_artifact_is_equal(
    fields: dict[str, Any], same: bool
) -> None:
    assert same_content(manifest(), manifest(**fields)) is same
    assert same_content(manifest(**fields), manifest()) is same


def test_true_1_and_a_fractional_1_are_three_hyperparameters() -> None:
    true, one, fraction = (manifest(hyperparameters={"C": value}) for value in (True, 1, 1.0))
    assert not same_content(true, one)
    assert not same_content(one, fraction)


def test_another_place_of_a_backend_is_other_content() -> None:
    here, there = manifest(backend=http("http://h:1")), manifest(backend=http("http://h:2"))
    assert same_content(here, here)
    assert not same_content(here, there)


@pytest.mark.parametrize("written", ["9" * 1001, "[" * 70 + "]" * 70])
def test_hyperparameters_keep_their_limits_in_a_text_as_we_write_it(written: str) -> None:
    text = encode_manifest(manifest(hyperparameters={"C": "here"}))
    with pytest.raises(InvalidDocument) as refused:
        parse_manifest(text.replace(b'"here"', written.encode()))
    assert refused.value.path.startswith('hyperparameters["C"]')
