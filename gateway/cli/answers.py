"""The answers of the admin API as the command line reads them: documents, outcomes of changes, and refusals in words.

Belongs here: one answer, taken apart, and what to do about each refusal. Never here: sending requests, or printing.
"""

from typing import Any

import httpx2
from msgspec import Struct

from gateway.cli.failures import Refusal, Unreachable

_ADVICE = {
    "revision_required": "Another change made it meanwhile: look at it, then run the command again.",
    "revision_conflict": "Somebody else changed it first: look at it, then run the command again.",
    "version_exists": "Versions are immutable: register the new content under a new version name.",
    "incomplete_manifest": "Fill it in, or register with --allow-incomplete; every listing then shows the gap.",
    "cohort_in_use": "Remove the pins first: pointsman routes unpin MODEL COHORT.",
    "unconfirmed_change": "While a change is unconfirmed, no other one may touch its documents.",
    "too_many_moves": "Look with --preview who they are; a larger --max-moves would allow it.",
    "rules_in_doubt": "Look with: pointsman status. Then: pointsman rules republish, or pointsman rules accept.",
    "rules_unavailable": "The rules in force stay in force. Try again when the rules store answers.",
    "invalid_document": "Correct that field and run the command again; nothing was changed.",
}
_WHERE_TO_LOOK = {
    "routes": "`pointsman versions list` names the models; `pointsman routes apply FILE` makes a route.",
    "models": "`pointsman versions list` names the models there are.",
    "cohorts": "`pointsman cohorts list` names the cohorts there are.",
    "history": "`pointsman routes history MODEL` lists its revisions.",
    "confirm": "`pointsman status` shows what waits to be confirmed.",
    "audit": "Take the X-Request-Id or X-Record-Id of an answer, or the id of the body that was sent.",
}


class Reading(Struct, frozen=True):
    """What a read returned: the decoded JSON, the same as it came, and the revision of its ETag (None without one)."""

    document: dict[str, Any]
    raw: str
    revision: int | None


class Outcome(Struct, frozen=True):
    """What a write came to. `in_force` is False when some worker has not got it; `laggards` says which and why."""

    answer: dict[str, Any]
    raw: str
    created: bool
    in_force: bool
    admin_url: str = ""

    @property
    def revision(self) -> int | None:
        """The revision that the change made, or the present one when it changed nothing."""
        return self.answer.get("revision")

    @property
    def changed(self) -> bool:
        """Whether the change made a new revision."""
        return bool(self.answer.get("changed", True))

    @property
    def laggards(self) -> dict[str, str]:
        """Why the change is not in force yet, by worker."""
        return dict(self.answer.get("laggards", {}))

    @property
    def documents(self) -> list[dict[str, Any]]:
        """The documents of the change: `kind`, `name`, `outcome`, and the revision that each had (`was`)."""
        return list(self.answer.get("documents", []))

    @property
    def preview(self) -> dict[str, Any] | None:
        """Whom the change moves, if that was worked out."""
        return self.answer.get("preview")

    @property
    def dry_run(self) -> bool:
        """Whether it was only asked what would change."""
        return bool(self.answer.get("dry_run", False))

    @property
    def confirm_within_s(self) -> float | None:
        """In how many seconds the change must be confirmed, or it is taken back; None for one that stands."""
        within = self.answer.get("confirm_within_ms")
        return within / 1000 if within is not None else None


def problem_of(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the problem details of an answer, or None when it has none of ours."""
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and "code" in problem else None


def refusal_of(problem: dict[str, Any], status: int, path: str) -> Refusal:
    """Return problem details as a refusal in words; `path` is what was asked, from below `/admin/v1/`."""
    code, field, detail = (str(problem.get(name) or "") for name in ("code", "path", "detail"))
    # Our errors begin with the field already; a detail without it would leave the reader searching.
    message = f"{field}: {detail}" if field and field not in detail else detail
    revision = problem.get("revision")
    advice = _where_to_look(path, detail) if code == "not_found" else _advice(path, code)
    return Refusal(
        message or f"refused with status {status}",
        advice,
        code=code,
        revision=revision if isinstance(revision, int) else None,
    )


def _where_to_look(path: str, detail: str) -> str:
    room, call = path.partition("/")[0], path.rpartition("/")[2]
    if room == "routes" and " revision " in detail:
        return _WHERE_TO_LOOK["history"]
    return _WHERE_TO_LOOK.get("confirm" if call == "confirm" else room, "")


def _advice(path: str, code: str) -> str:
    # A store that is not in doubt has nothing to decide, and nobody was faster.
    return "" if path.startswith("rules/") and code == "revision_conflict" else _ADVICE.get(code, "")


def reading_of(response: httpx2.Response) -> Reading:
    """Return an answer that is JSON. Raises `Unreachable` when it is something else."""
    try:
        document = response.json() if response.content else {}
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise Unreachable(
            f"{response.url} does not answer in the admin API's JSON", "Check --admin-url: it is the admin port."
        )
    tag = response.headers.get("etag", "").removeprefix("W/").strip('"')
    return Reading(document, response.text, int(tag) if tag.isascii() and tag.isdigit() else None)
