"""Every vector of `cases/`, and the hashing ones also against a computation written straight from DESIGN §4.

Other languages run the same files: see `cases/README.md`.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

from routing import (
    Decision,
    DocumentError,
    Facts,
    VersionDenied,
    explain,
    parse_cohort,
    parse_route,
    resolve,
    routing_key,
    shadow_hit,
    shadows_for,
    unit_digest,
)
from routing.hashing import score, scores, smallest, winner

CASES = Path(__file__).parent / "cases"


def cases_of(file: str, part: str) -> list[Any]:
    document = json.loads((CASES / file).read_text(encoding="utf-8"))
    assert document["format"] == 1
    return [pytest.param(case, id=case.get("name")) for case in document[part]]


def h_by_the_design(salt: str, unit: str, version: str) -> int:
    digest = hashlib.blake2b(unit.encode(), digest_size=16).digest()
    text = b"".join([salt.encode(), b"\x1f", digest, b"\x1f", version.encode()])
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


@pytest.mark.parametrize("case", cases_of("hash.json", "units"))
def test_a_unit_has_the_digest_of_the_vector(case: dict[str, Any]) -> None:
    assert hashlib.blake2b(case["unit"].encode(), digest_size=16).hexdigest() == case["digest"]
    assert unit_digest(case["unit"]).hex() == case["digest"]


@pytest.mark.parametrize("case", cases_of("hash.json", "splits"))
def test_the_vector_of_a_split_follows_from_the_design_alone(case: dict[str, Any]) -> None:
    worked_out = {}
    for version, weight in case["split"].items():
        if weight > 0:
            h = h_by_the_design(case["salt"], case["unit"], version)
            assert f"{h:016x}" == case["versions"][version]["h"]
            worked_out[version] = -math.log((h + 0.5) / 2**64) / weight
            assert worked_out[version] == pytest.approx(float(case["versions"][version]["score"]), rel=1e-12)
    assert worked_out.keys() == case["versions"].keys()
    assert sorted(worked_out, key=lambda version: (worked_out[version], version))[0] == case["chosen"]


@pytest.mark.parametrize("case", cases_of("hash.json", "splits"))
def test_a_split_scores_and_chooses_as_the_vector_says(case: dict[str, Any]) -> None:
    scored = dict(scores(case["salt"], unit_digest(case["unit"]), case["split"]))
    expected = {version: float(vector["score"]) for version, vector in case["versions"].items()}
    assert scored == pytest.approx(expected, rel=1e-12)
    assert winner(case["salt"], unit_digest(case["unit"]), case["split"]) == case["chosen"]


@pytest.mark.parametrize("case", cases_of("hash.json", "scores"))
def test_a_hash_has_the_score_of_the_vector(case: dict[str, Any]) -> None:
    h = int(case["h"], 16)
    assert -math.log((h + 0.5) / 2**64) / case["weight"] == pytest.approx(float(case["score"]), rel=1e-12)
    assert score(h, case["weight"]) == pytest.approx(float(case["score"]), rel=1e-12)


@pytest.mark.parametrize("case", cases_of("hash.json", "ties"))
def test_a_tie_goes_to_the_smaller_name(case: dict[str, Any]) -> None:
    assert smallest(case["scores"].items()) == case["chosen"]
    assert smallest(reversed(case["scores"].items())) == case["chosen"]


@pytest.mark.parametrize("case", cases_of("decisions.json", "cases"))
def test_a_request_is_decided_as_the_vector_says(case: dict[str, Any]) -> None:
    route = parse_route(case["route"])
    cohorts = {document["name"]: parse_cohort(document) for document in case["cohorts"]}
    request = case["request"]
    key = routing_key(route, request["headers"])
    facts = Facts(
        unit=unit_digest(key if key is not None else request["record_id"]),
        record_id=request["record_id"],
        received_ns=int(request["received_ns"]),
        keyed=key is not None,
        asked_version=request["asked_version"],
        headers=request["headers"],
        braked=tuple(request.get("braked", ())),
    )
    assert (facts.unit.hex(), facts.keyed) == (case["unit"], case["keyed"])
    if "refused" in case:
        assert case["refused"] == "version_denied"
        with pytest.raises(VersionDenied):
            resolve(route, cohorts, facts)
        assert explain(route, cohorts, facts).decision is None
    else:
        decision = Decision(**case["decision"])
        assert resolve(route, cohorts, facts) == decision
        assert explain(route, cohorts, facts).decision == decision


@pytest.mark.parametrize("case", cases_of("shadows.json", "samples"))
def test_a_shadow_is_sampled_as_the_vector_says(case: dict[str, Any]) -> None:
    parts = [case["salt"].encode(), b"shadow", case["record_id"].encode(), case["version"].encode()]
    h = hashlib.blake2b(b"\x1f".join(parts), digest_size=8).digest()
    assert (h.hex(), int.from_bytes(h, "big") % 10_000) == (case["h"], case["remainder"])
    for taken in case["taken"]:
        sample = taken["sample"]
        assert shadow_hit(case["salt"], case["record_id"], case["version"], sample) is taken["taken"]


@pytest.mark.parametrize("case", cases_of("shadows.json", "routes"))
def test_a_route_copies_to_the_shadows_of_the_vector(case: dict[str, Any]) -> None:
    document = {"model": "m", "salt": case["salt"], "split": {"1": 10_000}, "shadows": case["shadows"]}
    taken = shadows_for(parse_route(document), case["record_id"], case["served"])
    assert [shadow.version for shadow in taken] == case["taken"]


@pytest.mark.parametrize("case", cases_of("refusals.json", "cases"))
def test_a_document_is_refused_at_the_path_of_the_vector(case: dict[str, Any]) -> None:
    parse = {"route": parse_route, "cohort": parse_cohort}[case["kind"]]
    text = case["text"].encode() if "text" in case else json.dumps(case["document"]).encode()
    with pytest.raises(DocumentError) as refused:
        parse(text)
    assert (refused.value.path, refused.value.message) == (case["path"], case.get("message", refused.value.message))
    if "document" in case:
        with pytest.raises(DocumentError) as refused_decoded:
            parse(case["document"])
        assert str(refused_decoded.value) == str(refused.value)
