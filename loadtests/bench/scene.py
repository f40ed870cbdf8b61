"""One performance of a scenario: its place, its marks, and the verdict with which it ends.

Belongs here: options, marks, exit code. Never here: calling (callers may be locust's or asyncio's).
"""

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from loadtests.bench.programs import ProgramFailed, end_in_order, two_cores


class Scene:
    """One performance: where its files are, its cores, how long, and the marks that it was held against."""

    def __init__(self, folder: Path, cores: tuple[int, int], seconds: float) -> None:
        self.folder, self.cores, self.seconds = folder, cores, seconds
        self._marks: list[tuple[bool, str]] = []

    def mark(self, passed: bool, words: str) -> None:
        """Hold one finding against its bound; `words` name both."""
        self._marks.append((passed, words))
        print(f"{'pass' if passed else 'FAIL'}  {words}", flush=True)

    def note(self, words: str) -> None:
        """Say something that is no mark."""
        print(f"      {words}", flush=True)

    @property
    def passed(self) -> bool:
        """Whether there was a mark and all are met."""
        return bool(self._marks) and all(passed for passed, _ in self._marks)


def perform(what: str | None, scene: Callable[[Scene], None], seconds: float) -> None:
    """Run a scenario from the command line: read its options, play it, print the verdict, exit with 1 if it missed."""
    parser = argparse.ArgumentParser(description=what, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=seconds, help="of the whole trouble")
    perform_with(parser.parse_args().seconds, scene)


def perform_with(seconds: float, scene: Callable[[Scene], None]) -> None:
    """Play a scenario whose options have been read, as `perform`."""
    end_in_order()
    allow_many_files()
    cores = two_cores()
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="scenario-") as name:
        performance = Scene(Path(name), cores, seconds)
        try:
            scene(performance)
        except ProgramFailed as error:
            performance.mark(False, f"broke off: {error}")
    print("passed" if performance.passed else "MISSED", flush=True)
    sys.exit(0 if performance.passed else 1)


def allow_many_files() -> None:
    """Let this process and what it starts open as many files as the system allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
