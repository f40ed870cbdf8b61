"""Health checks of the URLs of a version: each is asked again and again whether it is well.

Belongs here: when to ask, and after how many answers to believe them. Never here: the question itself, or what follows
from an answer.

A URL is taken for healthy until it has failed as often in a row as the manifest says, so that a version serves at once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic_ns

from gateway.catalog import Health
from gateway.executors.http_endpoints import Endpoint, Endpoints
from gateway.tasks import Tasks

Ask = Callable[[str, str | None, int], Awaitable[str]]
"""Asks a URL at a path (None: the usual one) until a deadline (monotonic, ns); gives what is wrong, or nothing."""


class HealthChecks:
    """The checks of one version, whose `name` their tasks have."""

    def __init__(self, name: str, check: Health, endpoints: Endpoints, ask: Ask) -> None:
        self._name = name
        self._check = check
        self._endpoints = endpoints
        self._ask = ask
        self._tasks = Tasks()

    def start(self) -> None:
        """Begin with every URL."""
        for endpoint in self._endpoints.all:
            self._tasks.start(f"health {self._name} {endpoint.url}", self._watch(endpoint))

    async def stop(self) -> None:
        """End at once."""
        await self._tasks.cancel()

    async def _watch(self, endpoint: Endpoint) -> None:
        check = self._check
        in_a_row = 0
        await self._pause(0.0, 1.0)  # thousands of versions may begin in the same moment
        while True:
            why = await self._ask(endpoint.url, check.path, monotonic_ns() + check.timeout_ms * 1_000_000)
            if endpoint.healthy == (not why):
                in_a_row = 0
            else:
                in_a_row += 1
                if in_a_row >= (check.unhealthy_after if why else check.healthy_after):
                    in_a_row = 0
                    self._endpoints.checked(endpoint, not why, why)
            await self._pause(0.9, 1.1)

    async def _pause(self, least: float, most: float) -> None:
        part = random.uniform(least, most)  # noqa: S311 - keeps checks apart; nobody gains by guessing it
        await asyncio.sleep(self._check.interval_ms / 1e3 * part)
