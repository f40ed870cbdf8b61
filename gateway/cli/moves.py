"""A preview for people: how many callers move, from which version to which, and how far to trust it.

Belongs here: the layout and the words of a preview. Never here: asking for one, or counting.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli import show

_CALLERS_SHOWN = 20


def print_preview(preview: Mapping[str, Any]) -> None:
    """Print what a change would move, model by model."""
    if not preview["models"]:
        show.say("no model is touched, so no caller would move")
    for model in preview["models"]:
        _print_model(model)


def totals(preview: Mapping[str, Any]) -> str:
    """Return in a few words how many callers and requests a change moves, of those that were looked at."""
    seen = sum(model["sample"]["callers"] for model in preview["models"])
    return f"{preview['callers_moved']} of {seen} callers seen, {preview['requests_moved']} requests"


def _print_model(model: Mapping[str, Any]) -> None:
    sample = model["sample"]
    show.heading(f"preview of {model['model']}")
    show.facts(
        [
            ("callers that would move", f"{model['callers_moved']} of {sample['callers']}"),
            (
                "requests that would move",
                f"{model['requests_moved']} of {sample['requests']} ({_share(model['share_of_requests_moved'])})",
            ),
            ("pins", ", ".join(f"{count} {what}" for what, count in model["pins"].items() if count)),
            ("looked at", _source(sample)),
        ]
    )
    rows = (
        (_version(move["before"]), _version(move["after"]), move["callers"], move["requests"])
        for move in model["moves"]
    )
    show.grid("moves", ("from version", "to version", "callers", "requests"), rows, ("callers", "requests"))
    named = [caller for caller in model["moved"] if caller.get("key") is not None]
    show.grid(
        "callers that would move",
        ("routing key", "from version", "to version"),
        ((one["key"], _version(one["before"]), _version(one["after"])) for one in named[:_CALLERS_SHOWN]),
    )
    if (more := len(named) - _CALLERS_SHOWN + model["moved_left_out"]) > 0 and named:
        show.say(f"and {more} more (--json lists up to 1000)")
    for warning in _warnings(sample):
        show.say(f"warning: {warning}")


def _source(sample: Mapping[str, Any]) -> str:
    if sample["source"] == "keys":
        return f"{sample['callers']} routing keys that were given"
    since = f" since {sample['since']}" if sample.get("since") else ""
    return f"{sample['requests']} recorded requests{since}, {sample['keyed_requests']} of them with a routing key"


def _warnings(sample: Mapping[str, Any]) -> Iterator[str]:
    if not sample["requests"]:
        yield "no request was recorded in that time, so this says nothing about who would move"
    if sample.get("limited"):
        yield f"there were more requests; only the newest {sample['requests']} were looked at"
    if undecidable := sample.get("undecidable_requests"):
        headers = ", ".join(sample.get("unknown_headers", ()))
        yield (
            f"{undecidable} requests could not be decided: the new rules look at headers that the records do not have "
            f"({headers})"
        )


def _version(version: str | None) -> str:
    return version if version is not None else "none"


def _share(share: float) -> str:
    return f"{100 * share:.1f} %"
