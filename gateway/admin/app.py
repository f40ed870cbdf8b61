"""The admin port: its whole table of paths, and what every call has in common.

Belongs here: the table, read from top to bottom, and the one place where errors become problems. Never here: what a
call does.

Whether a call is allowed is decided from the row of the table that it matched, never from the text of its path.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.admin.audit import Audit
from gateway.admin.probes import Probes
from gateway.admin.problems import problem
from gateway.admin.rules import Rules
from gateway.book import Book
from gateway.controlplane import ControlPlane, shown
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, UnknownPath
from gateway.logs import logger
from gateway.ports import AuditStore
from gateway.recorder import Recorder

Handler = Callable[[Request], Awaitable[Response]]


def _nothing() -> Collection[str]:
    return ()


def build_admin(
    control: ControlPlane,
    audit: AuditStore,
    recorder: Recorder,
    book: Book,
    troubles: Callable[[], Collection[str]] = _nothing,
) -> Starlette:
    """Return the ASGI application of the admin port.

    `troubles` returns why the process is not ready (`/readyz`), nothing when it is.
    """
    rules, look_ups, probes = Rules(control, book), Audit(control, audit, recorder), Probes(book, recorder, troubles)
    table: Mapping[str, Mapping[str, Handler]] = {
        "/admin/v1/models": {"GET": rules.models},
        "/admin/v1/models/{model}": {"GET": rules.model},
        "/admin/v1/models/{model}/versions": {"POST": rules.register},
        "/admin/v1/models/{model}/versions/{version}": {"GET": rules.version},
        "/admin/v1/routes/{model}": {"GET": rules.route, "PUT": rules.put_route},
        "/admin/v1/routes/{model}/explain": {"POST": rules.explain},
        "/admin/v1/cohorts": {"GET": rules.cohorts},
        "/admin/v1/cohorts/{name}": {"GET": rules.cohort, "PUT": rules.put_cohort, "DELETE": rules.delete_cohort},
        "/admin/v1/audit/requests/{id:path}": {"GET": look_ups.request},
        "/metrics": {"GET": probes.metrics},
        "/healthz": {"GET": probes.live},
        "/readyz": {"GET": probes.ready},
    }
    application = Starlette(
        routes=[Route(path, _endpoint(methods), methods=list(methods)) for path, methods in table.items()],
        exception_handlers={404: _unknown_path, 405: _method_not_allowed},
    )
    application.router.redirect_slashes = False
    return application


def _endpoint(methods: Mapping[str, Handler]) -> Handler:
    """Return the endpoint of a path: the method's handler, with every error answered as a problem."""

    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        try:
            return await methods[method](request)
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
