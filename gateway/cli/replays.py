"""What came of replays, for people: one record side by side, or the sums of many.

Belongs here: the look of both. Never here: comparing anything.
"""

from collections.abc import Mapping
from typing import Any

from gateway.cli import show
from gateway.times import moment

_OUTPUTS = ("output", "datatype", "elements", "differing", "largest difference", "at", "recorded", "replayed", "flips")


def print_replay(result: Mapping[str, Any]) -> None:
    """Print the replay of one record."""
    recorded, again, other = result["recorded"], result["again"], result["other"]
    show.facts(
        (
            ("record", result["record_id"]),
            ("request", result["request_id"]),
            ("received", moment(result["received_ns"])),
            ("model", result["model"]),
            ("recorded", _run(recorded)),
            ("the same again", _again(again)),
            *((("another version", _other(other)),) if other is not None else ()),
        )
    )
    for title, replay in (("the same again", again), ("another version", other)):
        if replay is not None:
            _print_outputs(f"{title}: version {replay['version']}", replay)


def _run(replay: Mapping[str, Any]) -> str:
    digest = f", sha256 {replay['digest']}" if replay["digest"] else ""
    answer = f"{replay['status']} ({replay['error_code']})" if replay["error_code"] else str(replay["status"])
    return f"version {replay['version']}{digest}: {answer} in {replay['infer_us'] / 1000:.3f} ms"


def _again(replay: Mapping[str, Any]) -> str:
    if replay["status"] is None:
        return f"not run: {replay['why']}"
    if replay["identical"]:
        by = "bytes of the same SHA-256" if replay["by_digest"] else "identical bytes"
        return f"{by}, in {replay['infer_us'] / 1000:.3f} ms"
    return f"{_run(replay)}; {_verdict(replay)}"


def _other(replay: Mapping[str, Any]) -> str:
    return f"{_run(replay)}; {_verdict(replay)}"


def _verdict(replay: Mapping[str, Any]) -> str:
    if replay["why"]:
        return str(replay["why"])
    return f"it flips: {replay['flips']}" if replay["flips"] else "it agrees"


def _print_outputs(title: str, replay: Mapping[str, Any]) -> None:
    rows = [
        (
            one["name"],
            one["datatype"],
            one["elements"],
            one["differing"],
            one["largest"],
            _place(one["position"]),
            one["one"],
            one["other"],
            one["flips"],
        )
        for one in replay["outputs"]
    ]
    show.grid(title, _OUTPUTS, rows, _OUTPUTS[2:5])


def _place(position: list[int] | None) -> str | None:
    return f"[{','.join(map(str, position))}]" if position is not None else None


def print_trial(result: Mapping[str, Any]) -> None:
    """Print what came of many replays."""
    versions = ", ".join(f"{count} by version {version}" for version, count in result["by_version"].items())
    show.say(
        f"{result['sampled']} of {result['primaries']} requests of {result['model']} replayed ({versions or 'none'})"
    )
    for why, count in result["passed_over"].items():
        show.say(f"  {count} could not be: {why}")
    agreement = result["agreement"]
    share = f"{agreement * 100:.2f} %" if agreement is not None else "nothing to compare"
    show.say(
        f"version {result['version']} agrees: {share} "
        f"({result['agreed']} agree, {result['flipped']} flip, {result['failed']} failed)"
    )
    for why, count in result["uncompared"].items():
        show.say(f"  {count} could not be compared: {why}")
    show.say(f"the versions that had served: identical bytes {result['identical']}, others {result['not_identical']}")
    for why, count in result["not_again"].items():
        show.say(f"  {count} were not run again: {why}")
    _print_tables(result)


def _print_tables(result: Mapping[str, Any]) -> None:
    times = (
        ("as recorded", result["recorded"]),
        ("the same again", result["again"]),
        (f"version {result['version']}", result["candidate"]),
    )
    show.grid(
        "time inside the version",
        ("which", "runs", "p50 ms", "p99 ms"),
        ((name, one["runs"], one["p50_us"] / 1000, one["p99_us"] / 1000) for name, one in times if one is not None),
        ("runs", "p50 ms", "p99 ms"),
    )
    show.grid(
        "outputs",
        ("output", "flips", "largest difference", "in record"),
        ((one["name"], one["flips"], one["largest"], one["record_id"]) for one in result["outputs"]),
        ("flips", "largest difference"),
    )
    show.grid(
        "flips and failures",
        ("record", "request", "had served", "what"),
        ((one["record_id"], one["request_id"], one["version"], one["why"]) for one in result["flips"]),
    )
    if result["left_out"]:
        show.say(f"and {result['left_out']} more")
