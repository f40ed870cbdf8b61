"""Health checks: what is asked, what follows when it is answered badly, and that it ends with the version."""

import asyncio
from collections.abc import Awaitable

import pytest

from tests.conftest import until
from tests.gateway.executors.http_parts import Reply, backend, closed_url, execute, executor, http, never, run

FAST = {"interval_ms": 10, "timeout_ms": 300, "unhealthy_after": 2, "healthy_after": 2}


class Patient:
    """A backend that can be made ill (what its checks get) and to fail (its predictions); it keeps all paths."""

    def __init__(self, illness: Reply | None = None) -> None:
        self.illness = illness
        self.fails = False
        self.asked: list[str] = []

    def __call__(self, first: str, lines: list[str], body: bytes) -> bytes | Awaitable[bytes]:
        self.asked.append(first.split()[1])
        if self.illness is not None and first.startswith("GET"):
            return self.illness(first, lines, body)
        if self.fails and first.startswith("POST"):
            return http(b"", "503 No")
        return http()

    @property
    def predictions(self) -> int:
        return sum(path.endswith("/infer") for path in self.asked)


ILLNESSES: dict[str, Reply] = {
    "503": lambda *_: http(b"", "503 No"),
    "404": lambda *_: http(b"", "404 No"),
    "a body that says no": lambda *_: http(b'{"ready": false}'),
    "no HTTP": lambda *_: b"nonsense\r\n\r\n",
    "cut off": lambda *_: b"",
    "hangs": lambda *_: never(),
}


@pytest.mark.parametrize("illness", ILLNESSES)
def test_url_gets_no_traffic_while_its_checks_fail_and_gets_it_again_when_they_pass(illness: str) -> None:
    async def test() -> None:
        ill, well = Patient(ILLNESSES[illness]), Patient()
        async with backend(ill) as one, backend(well) as two, executor(one, two, health=FAST) as version:
            first, _ = version._endpoints.all
            await until(lambda: not first.healthy)
            for _ in range(6):
                await execute(version)
            assert (ill.predictions, well.predictions) == (0, 6)
            ill.illness = None
            await until(lambda: first.healthy)
            for _ in range(6):
                await execute(version)
            assert (ill.predictions, well.predictions) == (3, 9)

    run(test())


def test_url_gets_no_traffic_when_nobody_listens_there() -> None:
    async def test() -> None:
        async with backend(Patient()) as url, executor(closed_url(), url, health=FAST) as version:
            await until(lambda: not version._endpoints.all[0].healthy)
            assert {(await execute(version)).backend for _ in range(4)} == {url}

    run(test())


@pytest.mark.parametrize(
    ("more", "path"), [({}, "/base/v2/models/fraud/ready"), ({"path": "/healthz/x"}, "/base/healthz/x")]
)
def test_the_models_readiness_is_asked_for_unless_the_manifest_has_a_path(more: dict[str, str], path: str) -> None:
    async def test() -> None:
        patient = Patient()
        async with backend(patient) as url, executor(f"{url}/base/", health={**FAST, **more}):
            await until(lambda: len(patient.asked) >= 3)
        assert set(patient.asked) == {path}

    run(test())


def test_one_bad_answer_between_good_ones_changes_nothing() -> None:
    async def test() -> None:
        answered = 0

        def reply(*_: object) -> bytes:
            nonlocal answered
            answered += 1
            return http(b"", "503 No") if answered % 2 else http()

        async with backend(reply) as url, executor(url, closed_url(), health=FAST) as version:
            await until(lambda: answered >= 9)
            assert version._endpoints.all[0].healthy

    run(test())


def test_all_get_traffic_when_all_are_unhealthy_and_the_version_says_that_it_is_not_ready() -> None:
    async def test() -> None:
        one, two = Patient(ILLNESSES["503"]), Patient(ILLNESSES["503"])
        async with backend(one) as first, backend(two) as second, executor(first, second, health=FAST) as version:
            await until(lambda: not any(endpoint.healthy for endpoint in version._endpoints.all))
            assert {(await execute(version)).backend for _ in range(4)} == {first, second}
            readiness = await version.ready()
            assert not readiness.ready
            assert f"{first} fails its health checks: answered 503" in readiness.why

    run(test())


def test_readiness_does_not_ask_a_url_that_is_known_to_be_unhealthy() -> None:
    async def test() -> None:
        ill, well = Patient(ILLNESSES["hangs"]), Patient(lambda *_: http(b"{}"))
        async with (
            backend(ill) as one,
            backend(well) as two,
            executor(one, two, health={**FAST, "path": "/alive"}) as version,
        ):
            await until(lambda: not version._endpoints.all[0].healthy)
            assert (await version.ready()).ready
            assert set(ill.asked) == {"/alive"}

    run(test())


def test_nothing_is_asked_when_the_manifest_does_not_ask_for_it_or_the_version_is_released() -> None:
    async def test() -> None:
        patient = Patient()
        async with (
            backend(patient) as url,
            executor(url) as version,
        ):
            assert (await execute(version)).rendered.status == 200
            assert len(patient.asked) == 1
            before = asyncio.all_tasks()
            async with executor(url, health=FAST) as checked:
                names = {task.get_name() for task in asyncio.all_tasks() - before}
                assert f"health fraud/2 {url}" in names
                await until(lambda: len(patient.asked) > 3)
                await checked.release()
                assert not any(task.get_name().startswith("health") for task in asyncio.all_tasks())

    run(test())


def test_an_ejection_ends_early_when_the_checks_saw_the_backend_ill_and_well_again() -> None:
    async def test() -> None:
        patient = Patient()
        patient.fails = True
        ejection = {"after": 2, "for_ms": 3_600_000}
        async with (
            backend(patient) as ill,
            backend(Patient()) as well,
            executor(ill, well, health=FAST, ejection=ejection) as version,
        ):
            endpoint, _ = version._endpoints.all
            for _ in range(4):
                await execute(version)
            assert endpoint.ejected
            checked = len(patient.asked)
            await until(lambda: len(patient.asked) > checked + 4)
            assert endpoint.ejected, "checks that passed all along cannot see what fails"
            patient.illness = ILLNESSES["503"]
            await until(lambda: not endpoint.healthy)
            patient.illness, patient.fails = None, False
            await until(lambda: endpoint.standing)
            assert endpoint.on_probation
            for _ in range(4):
                await execute(version)
            assert (patient.predictions, endpoint.on_probation) == (4, False)

    run(test())
