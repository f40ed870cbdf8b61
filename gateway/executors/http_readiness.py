"""Asking several backends at once whether they are ready.

Belongs here: whose answer counts. Never here: the question.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from gateway.messages import Readiness
from gateway.tasks import Tasks


async def first_ready(asked: Mapping[str, Coroutine[Any, Any, Readiness]], refusals: Sequence[str]) -> Readiness:
    """Return the first answer of those asked, by URL, that is ready; else what all of them say, after `refusals`."""
    said = list(refusals)
    asking = Tasks()
    answers = [asking.start(f"ready {base}", question) for base, question in asked.items()]
    try:
        for answer in asyncio.as_completed(answers):
            readiness: Readiness = await answer
            if readiness.ready:
                return readiness
            said.append(readiness.why)
    finally:
        await asking.cancel()
    return Readiness(False, "; ".join(said))
