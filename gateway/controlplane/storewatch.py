"""Whether the rules store can take changes, looked at once a second; and its beginning, when it is new.

Belongs here: why changes are impossible now. Never here: which rules are right; a store that lost them is a person's
decision.
"""

import asyncio
from logging import ERROR, INFO
from pathlib import Path

from gateway.errors import RulesUnavailable
from gateway.logs import logger
from gateway.ports import RulesStore
from gateway.snapshot import last_known_revision

_LOOK_SECONDS = 1.0


class StoreWatch:
    """Begins the rules store if it is new, and knows its troubles. `rules_folder` has the last good rules."""

    def __init__(self, store: RulesStore, rules_folder: Path) -> None:
        self._store = store
        self._folder = rules_folder
        self._troubles = ["the rules store has not answered yet"]

    def troubles(self) -> list[str]:
        """Return why changes are impossible, in words; nothing when they are possible."""
        return self._troubles

    async def run(self) -> None:
        """Look for ever, and log every change of what is seen."""
        while True:
            found = await self._look()
            if found != self._troubles:
                logger().log(ERROR if found else INFO, "control_not_ready" if found else "control_ready", why=found)
            self._troubles = found
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> list[str]:
        try:
            if await self._store.head() is not None:
                return []
            if await asyncio.to_thread(last_known_revision, self._folder) > 0:
                # Rules were in force here, so this store lost them; beginning anew would make that look right.
                return ["the rules store is empty, but rules were in force here before; restore it or decide by hand"]
            await self._store.initialise()
        except RulesUnavailable as error:
            return [error.message]
        return []
