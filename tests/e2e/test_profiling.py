"""`--profile`: the processes that do the work say how to sample them, and let it be done."""

import os
from pathlib import Path

from tests.e2e.running_gateway import RunningGateway


def test_every_process_says_how_to_sample_it_when_asked_to_and_only_then(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path, "--workers", "1", "--profile")
    try:
        told = gateway.log("profile_this_process")
        assert sorted(line["worker"] for line in told) == ["control", "w0"]
        for line in told:
            assert Path(f"/proc/{line['pid']}").exists()
            assert all(str(line["pid"]) in way for way in line["ways"])
            assert line["pid"] != os.getpid()
    finally:
        gateway.close()


def test_nothing_is_permitted_by_default(tmp_path: Path) -> None:
    gateway = RunningGateway(tmp_path, "--workers", "1")
    try:
        assert gateway.log("profile_this_process") == []
    finally:
        gateway.close()
