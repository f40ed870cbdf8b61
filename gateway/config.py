"""Settings: one frozen tree from a TOML file, the environment and the command line; the only reader of the environment.

Belongs here: names, types, defaults and limits of settings. Never here: anything else of ours, or a connection.

Order, strongest first: command line, environment (`POINTSMAN_PORT`, nested with two underscores:
`POINTSMAN_ONNX__INTRA_OP_THREADS`, or a whole group as a JSON object: `POINTSMAN_ONNX`), the file named by `--config`
or `POINTSMAN_CONFIG`. An unknown key is an error wherever it stands, and no complaint repeats a value.
"""

import ipaddress
import json
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from gateway.errors import SettingsError
from gateway.settings_audit import AuditSettings
from gateway.settings_kinds import Decimal, Group, Port, Whole
from gateway.settings_words import dotted, misfit, no_such

PREFIX = "POINTSMAN_"
CONFIG_VARIABLE = "POINTSMAN_CONFIG"
_READ_ELSEWHERE = frozenset({CONFIG_VARIABLE, "POINTSMAN_ADMIN_URL", "POINTSMAN_URL", "POINTSMAN_ACTOR"})
_REDIS_SCHEMES = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://", "unix://")


def _redis_address(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(_REDIS_SCHEMES):
        raise ValueError(f"expected a URL that begins with {', '.join(_REDIS_SCHEMES[:-1])} or {_REDIS_SCHEMES[-1]}")
    return url


class LimitSettings(Group):
    """What one request may ask for."""

    max_body_bytes: Annotated[Whole, Field(ge=1, description="largest request body, in bytes; above it 413")] = (
        64 * 2**20
    )
    max_headers: Annotated[Whole, Field(ge=1, description="most headers of a request; above it 431")] = 100
    max_head_bytes: Annotated[
        Whole, Field(ge=512, description="largest head of a request, target and headers, in bytes; above it 431")
    ] = 32 * 2**10
    head_seconds: Annotated[
        Decimal, Field(gt=0, description="time for the head of a request, and for a TLS handshake; then 408")
    ] = 10.0
    body_seconds: Annotated[
        Decimal, Field(gt=0, description="time that a request body may take however slow it is; then 408")
    ] = 10.0
    min_body_rate: Annotated[
        Whole, Field(ge=1, description="bytes per second that a request body must come with to get more time")
    ] = 1_024
    idle_seconds: Annotated[
        Decimal, Field(gt=0, description="how long a connection is kept that has no request under way")
    ] = 75.0
    send_seconds: Annotated[
        Decimal, Field(gt=0, description="how long a caller may take nothing of its reply before it is cut off")
    ] = 30.0
    max_connections: Annotated[
        Whole, Field(ge=1, description="connections of callers open at once, for each worker; above it 503")
    ] = 10_000


class TlsSettings(Group):
    """TLS of the data port. Certificates and keys are PEM files; they are read again when they change."""

    cert: Annotated[
        Path | None, Field(description="certificate chain of the data port; with it, the data port speaks only TLS")
    ] = None
    key: Annotated[Path | None, Field(description="key of `tls.cert`, without a passphrase")] = None
    client_ca: Annotated[
        Path | None, Field(description="CAs of client certificates; with it, callers must show one of theirs")
    ] = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together; give both or none")
        if self.client_ca is not None and self.cert is None:
            raise ValueError("client_ca needs cert and key")
        return self


class OnnxSettings(Group):
    """How ONNX versions run in each worker."""

    intra_op_threads: Annotated[Whole, Field(ge=1, le=256, description="threads inside one run")] = 1
    pool_threads: Annotated[Whole, Field(ge=1, le=256, description="runs at once that are too slow to be inline")] = 4
    queue_depth: Annotated[
        Whole, Field(ge=1, description="requests that may wait for a thread, for each version; above it 503")
    ] = 256
    inline_below_ms: Annotated[
        Decimal, Field(ge=0, description="runs expected to be faster than this stay on the event loop")
    ] = 1.0


class UpstreamSettings(Group):
    """How versions with HTTP backends are called."""

    max_connections: Annotated[
        Whole,
        Field(ge=1, description="connections per worker to each backend; shadows and probes have as many of their own"),
    ] = 256
    queue_depth: Annotated[
        Whole, Field(ge=1, description="requests that may wait for a connection, per worker and backend; above it 503")
    ] = 1_024
    keepalive_seconds: Annotated[Decimal, Field(ge=0, description="how long an idle connection is kept")] = 30.0
    connect_timeout_ms: Annotated[Whole, Field(ge=1, description="time to connect, within the request's deadline")] = (
        2_000
    )
    tls_ca: Annotated[
        Path | None,
        Field(description="PEM file of the authorities that certificates of https backends need; else the system's"),
    ] = None
    tls_cert: Annotated[
        Path | None, Field(description="PEM file of the certificate that backends are shown if they ask for one")
    ] = None
    tls_key: Annotated[
        Path | None, Field(description="PEM file of its key, if that is not in the same file; unencrypted")
    ] = None


class ShadowSettings(Group):
    """What shadows may take of each worker."""

    max_in_flight: Annotated[Whole, Field(ge=0, description="copies running at once; above it they are dropped")] = 64
    max_body_bytes: Annotated[Whole, Field(ge=0, description="larger requests are not copied")] = 2**20
    timeout_ms: Annotated[Whole, Field(ge=1, description="deadline of one copy, from when it starts")] = 5_000


class OverloadSettings(Group):
    """When a worker has too much to do, and lets go of some of it."""

    lag_ms: Annotated[
        Decimal, Field(gt=0, description="requests are shed while every turn of the event loop takes longer than this")
    ] = 50.0
    max_in_flight: Annotated[
        Whole, Field(ge=1, description="or while a worker has more requests than this in flight")
    ] = 5_000


class RulesSettings(Group):
    """How workers follow the rules."""

    poll_ms: Annotated[Whole, Field(ge=1, description="how often a worker asks Redis for the head")] = 50
    stale_after_ms: Annotated[
        Whole, Field(ge=1, description="records are marked stale when Redis was silent so long")
    ] = 1_000
    publish_wait_ms: Annotated[
        Whole, Field(ge=0, description="how long a change waits for every worker before it answers 202")
    ] = 5_000
    behind_not_ready_ms: Annotated[
        Whole, Field(ge=1, description="a worker that cannot catch up with the store for so long goes not ready")
    ] = 10_000


class ShutdownSettings(Group):
    """How the gateway stops."""

    notice_seconds: Annotated[Decimal, Field(ge=0, description="time between going not ready and closing the port")] = (
        0.5
    )
    drain_seconds: Annotated[Decimal, Field(ge=0, description="time that requests in flight have to finish")] = 6.0


def _host_name() -> str:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64].lstrip("._-")
    return name or "gateway"


class Settings(BaseSettings):
    """All settings of `pointsman serve`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid", hide_input_in_errors=True
    )

    data_dir: Annotated[Path, Field(description="folder of journals, audit store, rules and sockets")] = Path(
        "pointsman-data"
    )
    host: Annotated[str, Field(description="address of the data port")] = "127.0.0.1"
    port: Annotated[Port, Field(description="data port; 0 takes a free one")] = 8080
    admin_host: Annotated[str, Field(description="address of the admin port")] = "127.0.0.1"
    admin_port: Annotated[Port, Field(description="admin port; 0 takes a free one")] = 8081
    insecure: Annotated[bool, Field(description="allow addresses other than loopback without authentication")] = False
    profile: Annotated[bool, Field(description="let profilers attach to the processes, and log how (`--profile`)")] = (
        False
    )
    workers: Annotated[Whole, Field(ge=1, le=256, description="data workers")] = 2
    redis_url: Annotated[
        Annotated[SecretStr, AfterValidator(_redis_address)] | None,
        Field(description="rules store (TLS and Sentinel: see the README); without it an embedded Valkey is started"),
    ] = None
    gateway: Annotated[
        str,
        Field(
            default_factory=_host_name,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
            description="name of this gateway in records; gateways that share a Redis need different ones",
        ),
    ]
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Field(description="debug, info, warning (then the lines of requests served are left out) or error"),
    ] = "info"
    limits: LimitSettings = LimitSettings()
    tls: TlsSettings = TlsSettings()
    onnx: OnnxSettings = OnnxSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    shadow: ShadowSettings = ShadowSettings()
    overload: OverloadSettings = OverloadSettings()
    audit: AuditSettings = AuditSettings()
    rules: RulesSettings = RulesSettings()
    shutdown: ShutdownSettings = ShutdownSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic passes both by name
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put what the caller passed above the environment; read no .env file and no secrets folder."""
        return init_settings, env_settings, _FileSource(settings_cls)


class _Handed(Settings):
    """Settings that another process has already put together: what it said counts, and nothing else is looked at."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic passes all of them by name
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read neither environment nor file: both may have changed since the gateway was started."""
        return (init_settings,)


class _FileSource(PydanticBaseSettingsSource):
    """The TOML file named by `POINTSMAN_CONFIG`, if any."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        """Not used: the file is read whole."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        name = os.environ.get(CONFIG_VARIABLE)
        if not name:
            return {}
        try:
            return tomllib.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"cannot read the settings file {name}: {error}") from None
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"the settings file {name} is not TOML: {error}") from None


def load_settings(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings in force; `overrides` (from the command line) win, None values among them do not count.

    Raises:
        SettingsError: naming every key that is unknown or wrong, or an address that needs `--insecure`.
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    # Not left to pydantic, which takes some unknown names (such as _env_file) for instructions to itself.
    if unknown := sorted(given.keys() - Settings.model_fields.keys()):
        raise SettingsError("; ".join(f"{name}: {no_such(name, setting_names())}" for name in unknown))
    _refuse_wrong_variables()
    try:
        settings = Settings(**given)
    except ValidationError as error:
        names = [(dotted(details), misfit(details, setting_names())) for details in error.errors(include_input=False)]
        raise SettingsError("; ".join(f"{name}: {words}{_origin(name, given)}" for name, words in names)) from None
    for name in ("host", "admin_host"):
        _refuse_open_address(name, getattr(settings, name), settings.insecure)
    return settings


def dump_settings(settings: Settings) -> bytes:
    """Return settings as JSON for a child process, secrets in clear: hand it over a pipe, write it nowhere."""
    tree = settings.model_dump(mode="json")
    if settings.redis_url is not None:
        tree["redis_url"] = settings.redis_url.get_secret_value()
    for name in ("url", "checkpoint_url"):
        secret: SecretStr | None = getattr(settings.audit, name)
        if secret is not None:
            tree["audit"][name] = secret.get_secret_value()
    return json.dumps(tree).encode()


def read_settings(dumped: bytes) -> Settings:
    """Return the settings that `dump_settings` wrote; environment and file no longer count."""
    handed = _Handed(**json.loads(dumped))
    return Settings.model_construct(**{name: getattr(handed, name) for name in Settings.model_fields})


def setting_names() -> dict[str, str]:
    """Return every setting by its dotted name with its description, in the order of the tree."""
    names: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        if name in _groups():
            names |= {f"{name}.{inner}": f.description or "" for inner, f in _groups()[name].model_fields.items()}
        else:
            names[name] = field.description or ""
    return names


def _groups() -> dict[str, type[Group]]:
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Group)}


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def _origin(name: str, given: Mapping[str, Any]) -> str:
    group = name.partition(".")[0]
    if group in given:
        return ""
    parts = name.split(".")
    above = [_variable(".".join(parts[:length])) for length in range(len(parts), 0, -1)]
    below = sorted(variable for variable in os.environ if variable.startswith(f"{_variable(name)}__"))
    variable = next((variable for variable in above if variable in os.environ), ", ".join(below))
    return f" (set by {variable})" if variable else f" (set in {os.environ.get(CONFIG_VARIABLE)})"


def _refuse_wrong_variables() -> None:
    """Refuse variables of our prefix that set nothing (misspelt, in lower case, empty), and groups that are no JSON.

    Empty is refused because it is most often a variable that was to be filled from another, and serving from an
    embedded Valkey because `POINTSMAN_REDIS_URL` came out empty is no default that anybody wants.
    """
    if f"{PREFIX}SERVICE_HOST" in os.environ:
        raise SettingsError(
            f"{PREFIX}SERVICE_HOST: Kubernetes sets this, {PREFIX}PORT and others for a Service named pointsman; "
            "say enableServiceLinks: false in the pod, or name the Service otherwise"
        )
    groups = {_variable(name) for name in _groups()}
    known = {_variable(name) for name in setting_names()} | groups
    complaints = []
    for name in sorted(name for name in os.environ if name.upper().startswith(PREFIX)):
        if name not in known | _READ_ELSEWHERE:
            near = no_such(name.upper().removeprefix(PREFIX), [full.removeprefix(PREFIX) for full in known], PREFIX)
            complaints.append(f"{name}: {near}")
        elif not os.environ[name] and (name in known or name == CONFIG_VARIABLE):
            complaints.append(f"{name}: is empty; give it a value or unset it")
        elif name in groups and not _is_json_object(os.environ[name]):
            complaints.append(f'{name}: expected a JSON object of settings, such as {{"name": 1}}')
    if complaints:
        raise SettingsError("; ".join(complaints))


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _refuse_open_address(name: str, host: str, insecure: bool) -> None:
    if insecure or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass  # a name, which may mean any address by the time it is bound
    raise SettingsError(
        f"{name}: {json.dumps(host)} is no loopback address: other machines may reach it, and this gateway has no "
        "authentication yet; bind 127.0.0.1 or ::1, or pass --insecure if something in front of it keeps strangers out"
    )
