"""Changing one field of a route: read, change, write with compare-and-set, and what to do when somebody was faster.

Belongs here: the loop, and each edit as a pure function of the field. Never here: reading the command line.
"""

from collections.abc import Callable
from typing import Any

from gateway.cli.answers import Outcome, Reading
from gateway.cli.client import AdminClient
from gateway.cli.failures import Refusal
from gateway.cli.terms import UNCONDITIONAL, Terms

_ATTEMPTS = 5
Fields = list[dict[str, Any]]


def edit_field(
    client: AdminClient,
    model: str,
    field: str,
    change: Callable[[Any], Any],
    *,
    expect: int | None = None,
    terms: Terms = UNCONDITIONAL,
) -> Outcome:
    """Write the route of `model` with `field` changed, and everything else as it is, on these terms.

    When another change comes first, the edit is made again on what is there now, but only if that change left this
    field alone: an operator who sets weights has the split in mind that stood there before.

    Raises:
        Refusal: no such route, the field was changed meanwhile, `expect` is not the revision, or the API says no.
    """
    first = present = client.read("routes", model)
    for _ in range(_ATTEMPTS):
        require_revision(model, present, expect)
        document = {**present.document, field: change(present.document.get(field))}
        try:
            return client.put("routes", model, document=document, expect=present.revision, terms=terms)
        except Refusal as refusal:
            if refusal.code != "revision_conflict":
                raise
        present = client.read("routes", model)
        if present.document.get(field) != first.document.get(field):
            raise Refusal(
                f"{field}: somebody else changed the {field} of {model} meanwhile (now revision {present.revision}); "
                "nothing was changed",
                f"Look with: pointsman routes show {model}. Then run the command again if it is still right.",
                code="revision_conflict",
                revision=present.revision,
            )
    raise Refusal(
        f"{model}: other changes came first {_ATTEMPTS} times; nothing was changed",
        "Run the command again.",
        code="revision_conflict",
        revision=present.revision,
    )


def require_revision(name: str, present: Reading | None, expect: int | None) -> None:
    """Hold a change back unless the document is at the revision that the operator named.

    Raises:
        Refusal: it has another revision, or does not exist.
    """
    revision = present.revision if present else None
    if expect is None or expect == revision:
        return
    found = f"is at revision {revision}" if present else "does not exist"
    raise Refusal(
        f"--if-revision {expect}: {name} {found}; nothing was changed",
        "Look at what changed, then run the command again with the present revision.",
        code="revision_conflict",
        revision=revision,
    )


def with_pin(pins: Fields | None, pin: dict[str, Any], *, first: bool) -> Fields:
    """Return pins with `pin` in the place of its cohort's first pin, or at the front, or (a new cohort) at the end."""
    present = pins or []
    places = [index for index, other in enumerate(present) if other["cohort"] == pin["cohort"]]
    others = without_pin(present, pin["cohort"])
    # Before the place of the cohort's first pin there are only pins of others, so the index still fits.
    place = 0 if first else places[0] if places else len(others)
    return [*others[:place], pin, *others[place:]]


def without_pin(pins: Fields | None, cohort: str) -> Fields:
    """Return pins without those of a cohort."""
    return [pin for pin in pins or [] if pin["cohort"] != cohort]


def with_shadow(shadows: Fields | None, version: str, sample: int) -> Fields:
    """Return shadows with this sample (basis points) for `version`, in its place or at the end."""
    present = shadows or []
    shadow = {"version": version, "sample": sample}
    if all(other["version"] != version for other in present):
        return [*present, shadow]
    return [shadow if other["version"] == version else other for other in present]


def without_shadow(shadows: Fields | None, version: str) -> Fields:
    """Return shadows without that of a version."""
    return [shadow for shadow in shadows or [] if shadow["version"] != version]
