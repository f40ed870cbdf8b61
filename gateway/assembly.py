"""Parts that several processes of a gateway are built from: which implementation stands behind which port.

Belongs here: choosing by settings. Never here: running anything, request logic, or reading the environment.
"""

import asyncio
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path

from gateway.catalog import Manifest
from gateway.config import Settings
from gateway.errors import ArtifactInvalid, SettingsError
from gateway.executors.http import HttpExecutor
from gateway.ports import AuditStore, Executor, ExecutorFactory, UpstreamClient
from gateway.standings import Standings
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.wire.client import PooledClient
from gateway.wire.trust import trust

try:
    from gateway.executors.onnx import OnnxExecutor
    from gateway.executors.onnx_inline import InlineRuns
except ModuleNotFoundError:  # the extra `onnx` is not installed; versions that need it are refused with words
    OnnxExecutor = None  # type: ignore[assignment,misc]

_SQLITE = "sqlite:///"


def redis_url(settings: Settings) -> str:
    """Return the URL of the rules store; the supervisor has put the embedded one there if there was none."""
    if settings.redis_url is None:
        raise SettingsError("redis_url: missing; start the gateway with `pointsman serve`")
    return settings.redis_url.get_secret_value()


def audit_store(settings: Settings, *, read_only: bool = False) -> AuditStore:
    """Return the audit store that the settings name.

    Raises:
        SettingsError: PostgreSQL is named and its library is not installed.
        AuditUnavailable: it cannot be opened.
    """
    url = settings.audit.url.get_secret_value() if settings.audit.url is not None else ""
    if not url:
        return SqliteAudit(settings.data_dir / "audit", read_only=read_only)
    if url.startswith(_SQLITE):
        return SqliteAudit(Path("/" + url.removeprefix(_SQLITE).lstrip("/")), read_only=read_only)
    try:
        from gateway.stores.audit_postgres import PostgresAudit  # noqa: PLC0415 - an extra, for those who name it
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"audit.url: PostgreSQL needs psycopg ({error}): pip install 'pointsman[postgres]'"
        ) from None
    return PostgresAudit(url, read_only=read_only)


def upstream_client(settings: Settings) -> UpstreamClient:
    """Return the client for HTTP backends."""
    upstream = settings.upstream
    return PooledClient(
        max_connections=upstream.max_connections,
        queue_depth=upstream.queue_depth,
        keepalive_seconds=upstream.keepalive_seconds,
        connect_timeout_ms=upstream.connect_timeout_ms,
        tls=trust(upstream.tls_ca, upstream.tls_cert, upstream.tls_key),
    )


def executor_factory(
    settings: Settings, client: UpstreamClient, stack: AsyncExitStack, standings: Standings | None = None
) -> ExecutorFactory:
    """Return what makes the executor of a version; its thread pools end with `stack`.

    `standings` are told of backends in trouble.
    """
    pools = {
        lane: ThreadPoolExecutor(settings.onnx.pool_threads, thread_name_prefix=f"onnx-{lane}")
        for lane in ("primary", "shadow")
    }
    for pool in pools.values():
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

    inline = InlineRuns() if OnnxExecutor is not None else None

    def make(manifest: Manifest) -> Executor:
        if manifest.backend.http is not None:
            return HttpExecutor(manifest, client, standings)
        if OnnxExecutor is None:
            raise ArtifactInvalid("ONNX versions need onnxruntime: pip install 'pointsman[onnx]'")
        return OnnxExecutor(manifest, settings.onnx, pools, inline)

    return make


def on_sigterm(act: Callable[[], None]) -> None:
    """Call `act` in the running loop when SIGTERM arrives. SIGINT is the supervisor's business."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, act)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
