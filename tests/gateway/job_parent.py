"""A process that has a job run, prints its process id and then only waits.

`python -m tests.gateway.job_parent SETTINGS-FILE`
"""

import asyncio
import sys
from pathlib import Path

from gateway.admin.job_runner import JobRunner
from gateway.evidence.asked import ExportAsked


async def main(settings: bytes) -> None:
    runner = JobRunner((sys.executable, "-m", "gateway.jobs"), settings)
    job = await runner.start("export", ExportAsked())
    print(job.pid, flush=True)  # noqa: T201 - it is what the test reads
    await asyncio.Event().wait()


asyncio.run(main(Path(sys.argv[1]).read_bytes()))
