"""Scenarios: a gateway of its own, callers, a trouble, and the mark that must be met; each file is one.

    .venv-load/bin/python -m loadtests.scenarios.steady [--seconds 60]

(`make .venv-load/ready` makes that environment.) Each starts what it needs, is bounded in time, prints what it found
beside its marks, ends everything that it started, and exits with 1 when a mark is missed.

Belongs here: one trouble a file, with its marks. Never here: a bound that can be set from outside.
"""

import locust  # noqa: F401 - has gevent replace sockets and sleeping, which must come before anything else imports them
