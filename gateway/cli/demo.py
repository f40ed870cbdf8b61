"""`pointsman demo`: real digits through the gateway, and what the versions made of them.

Belongs here: sending, looking the records up, and the table. Never here: the arithmetic (`tally`), or a load test.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import httpx2
import typer
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from gateway.cli import show
from gateway.cli.address import check_url, is_loopback
from gateway.cli.client import AdminClient
from gateway.cli.failures import CommandFailed, Unreachable
from gateway.cli.options import DEFAULT_URL, AdminUrl, connect, example
from gateway.cli.tally import COLUMNS, Prediction, Said, nearest_rank, tally
from gateway.examples import DigitSample, digit_samples
from routing import Route, parse_route, shadows_for

MODEL = "digits"
_CONNECTIONS = 4
_LOOK_UP_SECONDS = 15.0
_START = "Start one with the example models: pointsman serve --examples (or make run)."

T = TypeVar("T")
U = TypeVar("U")


class _Sent(Struct, frozen=True):
    """One request that was answered: by which version, under which record, after how many ms as seen from here."""

    sample: DigitSample
    record_id: str
    version: str
    label: int
    waited_ms: float


def register(app: typer.Typer) -> None:
    """Add `demo` to the command line."""
    app.command(epilog=example("pointsman demo", "pointsman demo --requests 1000 --url http://127.0.0.1:8080"))(demo)


def demo(
    context: typer.Context,
    *,
    url: Annotated[
        str, typer.Option("--url", envvar="POINTSMAN_URL", help="Address of the data port.", metavar="URL")
    ] = DEFAULT_URL,
    requests: Annotated[
        int, typer.Option("--requests", "-n", help="How many digits to send.", min=1, max=100_000)
    ] = 300,
    admin_url: AdminUrl = None,
) -> None:
    """Send a few hundred real digits, each with its own routing key, and show what the versions made of them.

    The keys are the same in every run, so a second run shows that a caller keeps its version.
    """
    data_url = check_url(url, "--url")
    with connect(context, admin_url) as admin:
        route = _route(admin)
        with _data_client(data_url) as client:
            sent, failures = _send_all(client, data_url, requests)
        deadline = time.monotonic() + _LOOK_UP_SECONDS
        found = list(_with_bar("looking up", lambda one: _look_up(admin, route, one, deadline), sent))
    predictions = [prediction for prediction in found if prediction is not None]
    _print(route, sent, predictions)
    missing = len(found) - len(predictions)
    if failures or missing:
        example_of = f", for example: {failures[0]}" if failures else ""
        raise CommandFailed(
            f"{len(failures)} of {requests} requests failed, {missing} answered ones have no record{example_of}",
            "The gateway's log has a line for every request.",
        )


def _route(admin: AdminClient) -> Route:
    try:
        reading = admin.find("routes", MODEL)
    except Unreachable as error:
        raise CommandFailed(error.message, _START) from None
    if reading is None:
        raise CommandFailed(f"the gateway at {admin.url} has no route for the model {MODEL}", _START)
    return parse_route(reading.document)


def _data_client(url: str) -> httpx2.Client:
    limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    return httpx2.Client(base_url=url, timeout=30.0, limits=limits, trust_env=not is_loopback(url))


def _send_all(client: httpx2.Client, url: str, count: int) -> tuple[list[_Sent], list[str]]:
    samples = digit_samples()
    try:
        client.get("/v2/health/live")
    except httpx2.RequestError as error:
        raise CommandFailed(f"cannot reach a gateway at {url} ({error})", f"{_START} Or pass --url.") from None
    numbered = ((index, samples[index % len(samples)]) for index in range(count))
    results = list(_with_bar("sending", lambda item: _send(client, *item), numbered))
    failures = [result for result in results if isinstance(result, str)]
    sent = [result for result in results if not isinstance(result, str)]
    if not sent:
        raise CommandFailed(f"no request to the model {MODEL} at {url} succeeded: {failures[0]}", _START)
    return sent, failures


def _send(client: httpx2.Client, index: int, sample: DigitSample) -> _Sent | str:
    """Return what came of one request: an answer, or in words why there is none."""
    started = time.perf_counter()
    try:
        response = client.post(
            f"/v2/models/{MODEL}/infer",
            content=infer_body(sample),
            headers={"content-type": "application/json", "x-routing-key": f"demo-{index}"},
        )
    except httpx2.RequestError as error:
        return str(error) or type(error).__name__
    waited_ms = (time.perf_counter() - started) * 1000
    label = label_of(response.content) if response.is_success else None
    version, record_id = response.headers.get("x-model-version"), response.headers.get("x-record-id")
    if label is None or version is None or record_id is None:
        return f"status {response.status_code}: {response.text[:200]}"
    return _Sent(sample, record_id, version, label, waited_ms)


def infer_body(sample: DigitSample) -> str:
    """Return the Open Inference Protocol request for one digit, compact and on one line."""
    pixels = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(sample.pixels)}
    return json.dumps({"inputs": [pixels]}, separators=(",", ":"))


def label_of(body: str | bytes) -> int | None:
    """Return the digit in the output `label` of an answer, or None when there is none."""
    try:
        outputs = json.loads(body)["outputs"]
        return next(int(output["data"][0]) for output in outputs if output["name"] == "label")
    except (ValueError, KeyError, IndexError, TypeError, StopIteration):
        return None


def _look_up(admin: AdminClient, route: Route, sent: _Sent, deadline: float) -> Prediction | None:
    """Return what the record of a request says, its shadows included, or None when no record appears.

    Records are there within 250 ms; a shadow runs after its primary and may take longer, or have been dropped. All
    look-ups share one `deadline` (monotonic, seconds); each looks once at least.
    """
    expected = len(shadows_for(route, sent.record_id, sent.version))
    while True:
        reading = admin.find("audit", "requests", sent.record_id)
        record = reading.document["records"][0] if reading else None
        if (record and len(record.get("shadows", [])) >= expected) or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if record is None:
        return None
    shadows = tuple(_said(copy) for copy in record.get("shadows", []) if copy.get("served"))
    return Prediction(sent.sample.label, _said(record), shadows)


def _said(record: dict[str, Any]) -> Said:
    body = record["response"].get("body")
    return Said(record["served"], label_of(body) if body else None, record["total_us"] / 1000)


def _with_bar(title: str, work: Callable[[T], U], items: Iterable[T]) -> Iterator[U]:
    """Yield `work` of every item in order, a few at once, behind a bar on standard error if that is a terminal."""
    listed = list(items)
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(_CONNECTIONS) as pool,
    ):
        try:
            yield from progress.track(pool.map(work, listed), total=len(listed), description=title)
        finally:
            pool.shutdown(cancel_futures=True)  # after a Ctrl-C nobody waits for what has not begun


def _print(route: Route, sent: list[_Sent], predictions: list[Prediction]) -> None:
    rows = [tuple(getattr(row, field) for field in row.__struct_fields__) for row in tally(route, predictions)]
    show.grid(f"{len(sent)} digits answered", COLUMNS, rows, COLUMNS[1:-1])
    waited = [one.waited_ms for one in sent]
    show.say(
        "times are the gateway's own, from its records; measured from here "
        f"p50 {nearest_rank(waited, 0.5):.2f} ms, p99 {nearest_rank(waited, 0.99):.2f} ms"
    )
