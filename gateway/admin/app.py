"""The admin port: its whole table of paths, and what every call has in common.

Belongs here: the table, read from top to bottom, and the one place where errors become problems. Never here: what a
call does.

Whether a call is allowed is decided from the row of the table that it matched, never from the text of its path.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.audit import LISTING, Audit
from gateway.admin.audit_parts import AuditParts
from gateway.admin.changes import Changes
from gateway.admin.evidence import DAYS, REPLAY, STRETCH, Evidence
from gateway.admin.parameters import TERMS, check_parameters
from gateway.admin.past import Past
from gateway.admin.privacy import Privacy
from gateway.admin.probes import Probes
from gateway.admin.problems import problem
from gateway.admin.proofs import Proofs
from gateway.admin.rules import Rules
from gateway.admin.state import State
from gateway.book import Book
from gateway.controlplane import ControlPlane, shown
from gateway.errors import (
    DocumentNotFound,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    RevisionConflict,
    UnknownPath,
)
from gateway.logs import logger

Handler = Callable[[Request], Awaitable[Response]]


class Call(NamedTuple):
    """What answers a method of a path, and the parameters that its query may have (None: whatever a scraper sends)."""

    handler: Handler
    parameters: tuple[str, ...] | None = ()


def _nothing() -> Collection[str]:
    return ()


def build_admin(
    control: ControlPlane,
    audit: AuditParts,
    book: Book,
    troubles: Callable[[], Collection[str]] = _nothing,
) -> Starlette:
    """Return the ASGI application of the admin port.

    `troubles` returns why the process is not ready (`/readyz`), nothing when it is.
    """
    rules, changes, past, state = Rules(control, book), Changes(control), Past(control), State(control)
    look_ups, privacy, probes = Audit(control, audit), Privacy(audit), Probes(book, audit, troubles)
    evidence, proofs = Evidence(control, audit), Proofs(audit)
    table: Mapping[str, Mapping[str, Call]] = {
        "/admin/v1/models": {"GET": Call(rules.models)},
        "/admin/v1/models/{model}": {"GET": Call(rules.model)},
        "/admin/v1/models/{model}/versions": {"POST": Call(rules.register, ("allow_incomplete",))},
        "/admin/v1/models/{model}/versions/{version}": {"GET": Call(rules.version)},
        "/admin/v1/routes/{model}": {"GET": Call(rules.route, ("revision",)), "PUT": Call(rules.put_route, TERMS)},
        "/admin/v1/routes/{model}/history": {"GET": Call(past.history, ("before", "limit"))},
        "/admin/v1/routes/{model}/diff": {"GET": Call(past.diff, ("from", "to"))},
        "/admin/v1/routes/{model}/explain": {"POST": Call(past.explain)},
        "/admin/v1/routes/{model}/preview": {"POST": Call(changes.preview_route)},
        "/admin/v1/routes/{model}/rollback": {"POST": Call(changes.rollback)},
        "/admin/v1/routes/{model}/confirm": {"POST": Call(changes.confirm)},
        "/admin/v1/cohorts": {"GET": Call(rules.cohorts)},
        "/admin/v1/cohorts/{name}": {
            "GET": Call(rules.cohort),
            "PUT": Call(rules.put_cohort, TERMS),
            "DELETE": Call(rules.delete_cohort),
        },
        "/admin/v1/changes": {"GET": Call(past.changes, ("before", "limit")), "POST": Call(changes.change)},
        "/admin/v1/changes/preview": {"POST": Call(changes.preview)},
        "/admin/v1/changes/{revision}": {"GET": Call(past.change)},
        "/admin/v1/status": {"GET": Call(state.status)},
        "/admin/v1/rules/republish": {"POST": Call(state.republish)},
        "/admin/v1/rules/accept": {"POST": Call(state.accept)},
        "/admin/v1/audit/requests/{id:path}": {"GET": Call(look_ups.request)},
        "/admin/v1/audit/completeness": {"GET": Call(proofs.completeness, DAYS)},
        "/admin/v1/audit/receipts/{id}": {"GET": Call(proofs.receipt)},
        "/admin/v1/audit/key": {"GET": Call(proofs.key)},
        "/admin/v1/audit/records": {"GET": Call(look_ups.records, LISTING)},
        "/admin/v1/audit/verify": {"POST": Call(evidence.verify, DAYS)},
        "/admin/v1/audit/recompute": {"POST": Call(evidence.recompute, STRETCH)},
        "/admin/v1/audit/replay": {"POST": Call(evidence.replay, REPLAY)},
        "/admin/v1/audit/export": {"GET": Call(evidence.export, STRETCH)},
        "/admin/v1/audit/erase": {"POST": Call(privacy.erase)},
        "/admin/v1/audit/prune": {"POST": Call(privacy.prune)},
        "/metrics": {"GET": Call(probes.metrics, None)},
        "/healthz": {"GET": Call(probes.live, None)},
        "/readyz": {"GET": Call(probes.ready, None)},
    }
    application = Starlette(
        routes=[Route(path, _endpoint(methods, troubles), methods=list(methods)) for path, methods in table.items()],
        exception_handlers={404: _unknown_path, 405: _method_not_allowed},
    )
    application.router.redirect_slashes = False
    return application


def _endpoint(methods: Mapping[str, Call], troubles: Callable[[], Collection[str]]) -> Handler:
    """Return the endpoint of a path: the method's handler, with every error answered as a problem."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            call = methods[method]
            if call.parameters is not None:
                check_parameters(request, call.parameters)
            return await call.handler(request)
        except (DocumentNotFound, RevisionConflict) as error:
            # A store that lost rules has no documents to find, which alone would send the reader astray.
            return problem(error, troubles())
        except GatewayError as error:
            return problem(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a problem and no stack trace
            logger().error("admin_failed", method=method, path=request.url.path, exc_info=error)
            return problem(InternalError("a defect of the gateway; its log has the details"))

    return endpoint


async def _unknown_path(request: Request, _: Exception) -> Response:
    return problem(UnknownPath(f"the admin port has no path {shown(request.url.path)}; the README lists those it has"))


async def _method_not_allowed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    allowed = tuple(sorted((error.headers or {}).get("Allow", "").split(", ")))
    return problem(MethodNotAllowed(f"{request.method} is not possible here; {', '.join(allowed)} is", allowed))
