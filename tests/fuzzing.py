"""How long tests go on that make up their input: a moment in the suite, and as long as it is told in `loadtests.fuzz`.

In the suite the same input comes each time, so that a commit is judged by what it changes. With FUZZ_TIMES=N it is N
times as many examples, and others each time.
"""

import os

from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("FUZZ_TIMES", "0"))


def fuzzed(examples: int) -> settings:
    """Return the settings of a test that tries so many examples in the suite."""
    return settings(
        max_examples=examples * max(1, TIMES),
        derandomize=not TIMES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
