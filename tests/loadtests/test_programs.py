import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadtests.bench.proctree import cpu_us, resident_bytes, tree
from loadtests.bench.programs import Program, ProgramFailed

CORES = sorted(os.sched_getaffinity(0))[:1]
# A parent that ends at once when it is asked to, and leaves behind a child that does not listen.
LEAVES_A_CHILD = """
import signal, subprocess, sys, time
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child], process_group=0)
time.sleep(60)
"""
BURNS = """
import subprocess, sys, time
subprocess.run([sys.executable, "-c", "sum(range(20_000_000))"])
print("burnt", flush=True)
time.sleep(60)
"""


def _started(script: str, folder: Path) -> Program:
    return Program([sys.executable, "-c", script], log=folder / "log", cores=CORES)


def _says(program: Program, word: str) -> None:
    program.wait_until(lambda: word in program.log.read_text(), f"it says {word}", 20)


def test_a_program_is_ended_with_all_that_it_started_when_its_child_is_deaf_and_outlives_it(tmp_path: Path) -> None:
    with _started(LEAVES_A_CHILD, tmp_path) as program:
        _says(program, "deaf")
        members = program.processes()
        assert len(members) == 2
    assert not [process for process in members if process.is_running()]


def test_cpu_time_counts_children_that_have_ended(tmp_path: Path) -> None:
    with _started(BURNS, tmp_path) as program:
        _says(program, "burnt")
        assert len(program.processes()) == 1
        assert cpu_us(program.processes()) > 50_000
        assert resident_bytes(program.pid) > 2**20


def test_waiting_says_what_a_program_wrote_last_when_it_ends(tmp_path: Path) -> None:
    with (
        _started("print('no such port'); raise SystemExit(3)", tmp_path) as program,
        pytest.raises(ProgramFailed, match="ended with 3: no such port"),
    ):
        program.wait_until(lambda: False, "it answers", 20)


def test_a_program_runs_on_its_cores_only(tmp_path: Path) -> None:
    with _started(
        "import os, time; print(sorted(os.sched_getaffinity(0)), flush=True); time.sleep(60)", tmp_path
    ) as one:
        _says(one, str(CORES))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_measurement_is_interrupted(tmp_path: Path, number: int) -> None:
    script = (
        "import sys, time; from pathlib import Path; from loadtests.bench.programs import *; end_in_order()\n"
        "sleeper = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        f"with Program(sleeper, log=Path(sys.argv[1]), cores={CORES}) as p:\n"
        "    print(p.pid, flush=True); time.sleep(60)"
    )
    measurement = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert measurement.stdout is not None
    program = int(measurement.stdout.readline())
    (started,) = tree(program)
    measurement.send_signal(number)
    measurement.wait(20)
    measurement.stdout.close()
    deadline = time.monotonic() + 20
    while started.is_running():
        assert time.monotonic() < deadline, "the program goes on"
        time.sleep(0.01)
