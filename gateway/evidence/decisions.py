"""One recorded decision held against the rules of then, by the code that serves.

Belongs here: what a record must say if the rules were followed, and in words what it says instead. Never here: finding
rules or records (that is `recompute`), or a decision of its own.
"""

from collections.abc import Iterator
from typing import Literal

from msgspec import Struct

from gateway.errors import UnknownVersion, VersionNotAllowed
from gateway.record import Record
from routing import (
    Decision,
    Facts,
    Route,
    RouteRules,
    Shadow,
    VersionDenied,
    explain,
    named_versions,
    resolve,
    shadow_hit,
    unit_digest,
)

_UNIT_BYTES = 16


class Finding(Struct, frozen=True):
    """What is to be said of a record whose decision does not simply follow from the rules.

    `differs`: the rules give something else; `unchecked`: rules and record do not tell; `undecided`: the request was
    refused, or failed, before anything was decided.
    """

    kind: Literal["differs", "unchecked", "undecided"]
    words: str


class Then(Struct, frozen=True):
    """The rules that decided, and what is asked of them for every record: which versions the route names."""

    route: Route
    rules: RouteRules
    named: frozenset[str]


def then_of(rules: RouteRules) -> Then | None:
    """Return rules as records are held against them; None when the model had no route."""
    return Then(rules.route, rules, named_versions(rules.route)) if rules.route is not None else None


def judge_primary(record: Record, then: Then) -> Finding | None:
    """Return what is wrong with the decision of a primary record, or None when it follows from the rules."""
    if record.unit is None:
        return undecided(record)
    unit = _unit_of(record.unit)
    if unit is None:
        return _differs("its unit is no digest of 16 bytes, so no rule can have decided by it")
    if not record.keyed and unit != unit_digest(record.record_id):
        return _differs("it had no routing key, so its unit should be the digest of its record id, and is another")
    facts = Facts(
        unit, record.record_id, record.received_ns, record.keyed, record.asked_version, record.headers, record.braked
    )
    try:
        decision = resolve(then.route, then.rules.cohorts, facts)
    except VersionDenied:
        return None if _denied(record) else _other(record, then, facts, None)
    if record.reason is None:
        return _judge_refusal(record, then, facts, decision)
    if (
        decision.intended != record.intended
        or decision.reason != record.reason
        or decision.rule != record.rule
        or decision.cohort != record.cohort
    ):
        return _other(record, then, facts, decision)
    return _judge_serving(record, then, decision)


def judge_shadow(record: Record, then: Then, served: str | None) -> Finding | None:
    """Return what is wrong with a shadow record, or None. `served` is the version of its primary, where that is known.

    Which primary it copies says the record; the sample of the route has to take that primary.
    """
    version, primary = record.intended, record.primary_id
    if version is None or primary is None or record.reason != "shadow":
        return _differs("a shadow names its primary and its version and has the reason shadow; this one does not")
    if version == served:
        return _differs(f"it is a copy to version {version}, which served the request itself and is never its shadow")
    shadow = _shadow_of(then.route, version)
    if shadow is None:
        return _differs(f"it is a copy to version {version}, which is no shadow of the route at that revision")
    if not shadow_hit(then.route.salt, primary, version, shadow.sample):
        share = f"{shadow.sample / 100:g} %"
        return _differs(f"it is a copy to version {version}, whose sample of {share} does not take request {primary}")
    return None


def undecided(record: Record) -> Finding:
    """Return that a record holds no decision, by the error that came before it."""
    return Finding(
        "undecided", f"{record.outcome} before anything was decided ({record.error_code or 'no error code'})"
    )


def _unit_of(text: str) -> bytes | None:
    try:
        unit = bytes.fromhex(text)
    except ValueError:
        return None
    return unit if len(unit) == _UNIT_BYTES else None


def _denied(record: Record) -> bool:
    return record.reason is None and record.error_code == VersionNotAllowed.code


def _judge_refusal(record: Record, then: Then, facts: Facts, decision: Decision) -> Finding | None:
    """Judge a record without a decision, of a request about which the rules have one."""
    if record.error_code != UnknownVersion.code:
        if record.error_code == VersionNotAllowed.code:
            return _other(record, then, facts, decision)
        return Finding("unchecked", f"it {record.outcome} while it was being decided ({record.error_code})")
    if decision.version not in then.named:
        return None
    # The route alone does not tell whether the manifest of a version that it names was there.
    return Finding("unchecked", "it was refused for a version that is not registered, though the route names it")


def _judge_serving(record: Record, then: Then, decision: Decision) -> Finding | None:
    """Judge which versions were tried, and which served, after a decision that is right."""
    if decision.reason == "explicit" and decision.version not in then.named:
        return _differs(f"the caller named version {decision.version}, which the route does not name, and was served")
    attempts, served = record.attempts, record.served
    if served == decision.version and len(attempts) == 1 and attempts[0].version == served:
        return None
    allowed = (decision.version, *(then.route.fallback if decision.reason != "explicit" else ()))
    order = iter(allowed)
    stranger = next((one.version for one in attempts if one.version not in order), None)
    if stranger is None and served is not None and served not in allowed:
        stranger = served
    if stranger is not None:
        chain = ", then ".join(dict.fromkeys(allowed))
        return _differs(f"version {stranger} was tried, or served, out of turn: the route allows {chain}")
    answered = next((one.version for one in attempts[:-1] if one.error is None and (one.status or 0) < 500), None)
    if answered is not None:
        return _differs(f"version {attempts[-1].version} was tried though version {answered} had answered")
    return None


def _shadow_of(route: Route, version: str) -> Shadow | None:
    return next((one for one in route.shadows if one.version == version), None)


def _other(record: Record, then: Then, facts: Facts, decision: Decision | None) -> Finding:
    """Return in words that the rules come to something else than the record says, and why they do."""
    recorded = ", ".join(_said(record.intended, record.reason, record.rule, record.cohort))
    if record.reason is None:
        recorded = f"a refusal ({record.error_code})"
    if decision is None:
        given = "a refusal (version_not_allowed)"
    else:
        given = ", ".join(_said(decision.intended, decision.reason, decision.rule, decision.cohort))
    why = explain(then.route, then.rules.cohorts, facts).steps[-1].why
    return _differs(f"the record says {recorded}; the rules give {given}: {why}")


def _said(version: str | None, reason: str | None, rule: str | None, cohort: str | None) -> Iterator[str]:
    yield f"version {version} by {reason}"
    if rule is not None and rule != reason:
        yield f"rule {rule}"
    if cohort is not None:
        yield f"cohort {cohort}"


def _differs(words: str) -> Finding:
    return Finding("differs", words)
