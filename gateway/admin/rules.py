"""Models, versions, routes and cohorts over HTTP: each read, and each changed alone.

Belongs here: one handler per call of the admin API's table. Never here: a rule; every yes and no is the control
plane's. Changes of many documents and going back stand in `changes`, looking back in `past`.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gateway.admin.answers import answer, extended, missing_of, outcome, stored_document, with_revision
from gateway.admin.figures import Figures, read_figures
from gateway.admin.parameters import terms_of_query, truth, whole
from gateway.admin.requests import body_of, etag, expected_revision, origin_of
from gateway.book import Book
from gateway.catalog import parse_manifest
from gateway.controlplane import ControlPlane, ModelEntry
from gateway.errors import DocumentNotFound
from gateway.ports import StoredDocument


class Rules:
    """The handlers; each is a Starlette endpoint for one method of one path."""

    def __init__(self, control: ControlPlane, book: Book) -> None:
        self._control = control
        self._book = book

    # ── models and versions ──────────────────────────────────────────────────────────────────────────────────────

    async def models(self, _: Request) -> Response:
        """List every model: its versions, its route, and figures since this control process began."""
        entries = await self._control.models()
        return await asyncio.to_thread(self._listed, entries)

    async def model(self, request: Request) -> Response:
        """Show one model with the manifests of its versions, its route, and figures."""
        model = request.path_params["model"]
        versions = await self._control.versions(model)
        try:
            route: StoredDocument | None = await self._control.route(model)
        except DocumentNotFound:
            if not versions:
                raise
            route = None
        figures = await asyncio.to_thread(self._figures)
        return answer(
            {
                "model": model,
                "route": with_revision(route) if route is not None else None,
                "versions": [
                    _manifest(stored, figures.get((model, version), {})) for version, stored in versions.items()
                ],
            }
        )

    async def version(self, request: Request) -> Response:
        """Show one version's manifest; `incomplete` names what is missing of its metadata contract."""
        stored = await self._control.version(request.path_params["model"], request.path_params["version"])
        return answer(_manifest(stored), headers={"etag": etag(stored.revision)})

    async def register(self, request: Request) -> Response:
        """Register a version; `?allow_incomplete=true` takes one without its metadata contract."""
        model = request.path_params["model"]
        allow_incomplete = truth(request, "allow_incomplete")
        origin, document = origin_of(request), await body_of(request)
        published = await self._control.register(model, document, allow_incomplete, origin)
        place = f"/admin/v1/models/{quote(model, safe='')}/versions/{quote(parse_manifest(document).version, safe='')}"
        return outcome(published, new=True, headers={"location": place})

    # ── routes ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def route(self, request: Request) -> Response:
        """Show the route of a model, of now or as of `?revision=N`; the revision that made it so is the ETag."""
        model, revision = request.path_params["model"], whole(request, "revision", 1)
        route = self._control.route(model) if revision is None else self._control.route_at(model, revision)
        return stored_document(await route)

    async def put_route(self, request: Request) -> Response:
        """Make or change the route of a model."""
        model = request.path_params["model"]
        expect = await expected_revision(request, lambda: self._control.route(model))
        origin, terms = origin_of(request), terms_of_query(request)
        published = await self._control.put_route(model, await body_of(request), expect, origin, terms)
        return outcome(published, new=not expect)

    # ── cohorts ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def cohorts(self, _: Request) -> Response:
        """List every cohort."""
        found = await self._control.cohorts()
        return answer({"cohorts": [with_revision(stored) for stored in found.values()]})

    async def cohort(self, request: Request) -> Response:
        """Show a cohort; its revision is the ETag."""
        return stored_document(await self._control.cohort(request.path_params["name"]))

    async def put_cohort(self, request: Request) -> Response:
        """Make or change a cohort."""
        name = request.path_params["name"]
        expect = await expected_revision(request, lambda: self._control.cohort(name))
        origin, terms = origin_of(request), terms_of_query(request)
        published = await self._control.put_cohort(name, await body_of(request), expect, origin, terms)
        return outcome(published, new=not expect)

    async def delete_cohort(self, request: Request) -> Response:
        """Delete a cohort that no route pins."""
        name = request.path_params["name"]
        expect = await expected_revision(request, lambda: self._control.cohort(name))
        return outcome(await self._control.delete_cohort(name, expect, origin_of(request)), new=False, tagged=False)

    def _listed(self, entries: Iterable[ModelEntry]) -> Response:
        figures = self._figures()
        return answer({"models": [_brief(entry, figures) for entry in entries]})

    def _figures(self) -> Figures:
        """Return the figures of now; with thousands of versions this takes a while, so it is for a thread."""
        return read_figures(self._book.render().decode())


def _manifest(stored: StoredDocument, figures: Mapping[str, Any] | None = None) -> orjson.Fragment:
    """Return a manifest with what stands beside it: its revision, what it lacks, and figures if they are given."""
    beside: dict[str, Any] = {"revision": stored.revision, "incomplete": missing_of(stored.json)}
    return extended(stored.json, beside if figures is None else {**beside, "figures": figures})


def _brief(entry: ModelEntry, figures: Figures) -> dict[str, Any]:
    """Return what a list of many models shows of one: of the versions only names, gaps and figures."""
    return {
        "model": entry.model,
        "route": with_revision(entry.route) if entry.route is not None else None,
        "versions": [
            {
                "version": version,
                "incomplete": missing_of(stored.json),
                "figures": figures.get((entry.model, version), {}),
            }
            for version, stored in entry.versions.items()
        ],
    }
