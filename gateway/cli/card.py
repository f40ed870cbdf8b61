"""The card of a record: one request, which version served it and why, from what code and data, and its shadows.

Belongs here: the order and the words of a card. Never here: fetching records, or working anything out about them.
"""

from collections.abc import Mapping
from typing import Any

from gateway.cli import show
from gateway.cli.versions import manifest_facts

_SHORT = 160
_SHORT_IN_TABLE = 60
_PAYLOAD_FLAGS = ("truncated", "redacted", "encoding")


def print_card(record: Mapping[str, Any], *, full: bool) -> None:
    """Print one primary record of the look-up with everything that belongs to it."""
    show.say(_headline(record))
    show.facts(_what_happened(record))
    attempts = record["attempts"]
    if len(attempts) > 1 or any(attempt["error"] for attempt in attempts):
        columns = ("version", "backend", "status", "error")
        show.grid("attempts", columns, ([attempt[column] for column in columns] for attempt in attempts))
    if version := record.get("version"):
        show.heading(f"made from (manifest of version {version['version']})")
        show.facts(pair for pair in manifest_facts(version) if pair[0] not in ("model", "version"))
    show.heading("bodies")
    show.facts(line for side in ("request", "response") for line in _payload(side, record[side], full))
    show.grid(
        "shadows, whose answers nobody got",
        ("version", "outcome", "status", "ms", "record", "said"),
        (_shadow(copy, full) for copy in record["shadows"]),
        ("status", "ms"),
    )


def _headline(record: Mapping[str, Any]) -> str:
    name = f"request {record['request_id']}"
    match record["outcome"]:
        case "served":
            return f"{name}: served by version {record['served']} of {record['model']}"
        case "failed":
            tried = f" (version {record['intended']} of {record['model']})" if record["intended"] else ""
            return f"{name}: failed{tried}"
        case other:
            return f"{name}: {other}"


def _what_happened(record: Mapping[str, Any]) -> list[tuple[str, object]]:
    decision = record["decision"]
    rule = f"{decision['rule']} of route revision {decision['revision']}" if decision["rule"] else None
    consulted = ", ".join(f"{name}: {value}" for name, value in sorted(record["headers"].items()))
    swapped = record["intended"] if record["served"] and record["intended"] != record["served"] else None
    return [
        ("why", decision["explained"]),
        ("rule", rule),
        ("cohort", _cohort(record)),
        ("intended version", swapped),
        ("caller asked for", record["asked_version"]),
        ("received", record["received"]),
        ("status", record["status"]),
        ("streamed", _streamed(record)),
        ("error", ": ".join(part for part in (record["error_code"], record["error"]) if part)),
        ("latency", _latency(record)),
        ("client", record["client"]),
        ("record id", record["record_id"]),
        ("id in the body", record["oip_id"]),
        ("trace", record["trace_id"]),
        ("routing key digest", record["unit"] if record["keyed"] else None),
        ("consulted headers", consulted),
        ("rules revision", record["rules_revision"]),
        ("rules", "the last known ones: the rules store did not answer" if record["stale"] else None),
        ("erased by", f"control record {record['erasure']}" if record.get("erasure") else None),
        ("journal", f"{record['journal']}, record {record['sequence']}, chain {record['chain'][:16]}…"),
        ("worker", "/".join(part for part in (record["gateway"], record["worker"]) if part)),
        ("protocol", record["protocol"]),
    ]


def _cohort(record: Mapping[str, Any]) -> str | None:
    if record["cohort"] is None:
        return None
    return f"{record['cohort']} (newest cohort revision of the route: {record['cohort_revision']})"


def _latency(record: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{part} {record[f'{part}_us'] / 1000:.3f}" for part in ("route", "queue", "infer"))
    return f"{record['total_us'] / 1000:.3f} ms ({parts})"


def _streamed(record: Mapping[str, Any]) -> str | None:
    match record.get("streamed"):
        case None:
            return None
        case "complete":
            how = "complete"
        case _:
            how = f"broken off after {record['response']['size']} bytes"
    return f"{how}; its head came after {record['head_us'] / 1000:.3f} ms of infer"


def _payload(side: str, payload: Mapping[str, Any], full: bool) -> list[tuple[str, object]]:
    if payload.get("erased"):
        return [(side, f"{payload['size']} bytes; the contents were erased for good")]
    flags = ", ".join(payload[flag] if flag == "encoding" else flag for flag in _PAYLOAD_FLAGS if payload.get(flag))
    digest = f", sha256 {payload['sha256']}" if payload["sha256"] else ""
    size = f"{payload['size']} bytes{digest}" + (f" ({flags})" if flags else "")
    return [(side, size), (f"{side} body", _shortened(payload.get("body"), full))]


def _shadow(copy: Mapping[str, Any], full: bool) -> tuple[object, ...]:
    body = copy["response"].get("body")
    said = _shortened(body, full, _SHORT_IN_TABLE) if copy["outcome"] == "served" else copy["error"]
    version = copy["served"] or copy["intended"]
    return version, copy["outcome"], copy["status"], f"{copy['total_us'] / 1000:.3f}", copy["record_id"], said


def _shortened(body: str | None, full: bool, limit: int = _SHORT) -> str | None:
    if body is None or full or len(body) <= limit:
        return body
    return f"{body[:limit]}… ({len(body) - limit} more; --full shows them)"
