# Two commands for a stranger: `make run` and `make test`. The rest is for those who stay.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Files of tests run side by side; more than two cores' worth, since tests mostly wait for processes and sockets.
SIDE_BY_SIDE ?= 3
# In this order: the longest files are among the first, so that none of them is left alone at the end.
TESTS  := tests/e2e $(filter-out tests/e2e tests/routing tests/__pycache__,$(sort $(patsubst %/,%,$(wildcard tests/*/ tests/test_*.py))))
PYTEST := $(BIN)/python -m pytest -n $(SIDE_BY_SIDE) --dist loadfile --no-loadscope-reorder

.PHONY: help run test check e2e demo compiled test-compiled compare ratios scenarios clean
.DEFAULT_GOAL := help

help:
	@echo "make run    start the gateway with example models and print curl lines"
	@echo "make demo   send a few hundred real digits through a running gateway"
	@echo "make test   the whole fast suite"
	@echo "make check  lint, types, import contracts, coverage of the decision"
	@echo "make e2e    the suite in full: third-party clients, 20 000 requests, 1 000 mutations, long trouble with Redis and disks"
	@echo "make compiled   the build for production: the path of requests compiled by mypyc (a minute and a half; needs gcc), as a wheel"
	@echo "make compare    what a request costs beside Envoy, nginx, MLServer, KServe, LiteLLM … (half an hour; table and plot)"
	@echo "make ratios     the promises that are ratios, each judged (an hour); make scenarios: load with trouble in it"

$(VENV)/ready: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Pointsman needs Python 3.11 or newer; name one with: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(VENV)/ready
	@exec $(BIN)/pointsman serve --examples

demo: $(VENV)/ready
	@exec $(BIN)/pointsman demo

test: $(VENV)/ready
	$(PYTEST) $(TESTS) tests/routing

check: $(VENV)/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/coverage run -m pytest -q tests/routing
	$(BIN)/coverage report

# KServe's and Triton's clients want other versions of shared libraries, so they live in an environment of their own.
$(VENV)-clients/ready: requirements/clients.txt
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/clients.txt
	@touch $@

# All of `make test`, with the numbers that we promise and with the clients that it leaves out.
e2e: $(VENV)/ready $(VENV)-clients/ready
	FULL_COUNT=1 TEST_CLIENTS_PYTHON=$(abspath $(VENV)-clients/bin/python) $(PYTEST) $(TESTS) tests/routing

# A copy of the source with the path of requests compiled, and a wheel of it; needs a C compiler and Python's headers.
compiled: $(VENV)/ready
	@$(BIN)/python -m compiling

# The tests of what is compiled, on a build that is made faster and runs slower than that.
TESTED_COMPILED := tests/gateway/wire tests/gateway/streaming tests/gateway/executors tests/gateway/protocols \
  tests/gateway/test_arrival.py tests/gateway/test_dataplane.py tests/gateway/test_dataplane_guards.py \
  tests/gateway/test_log_lines.py tests/gateway/test_journal_appending.py tests/gateway/test_capture.py \
  tests/gateway/test_journal_reading.py tests/gateway/test_journal_segment_format.py tests/gateway/test_recorder.py \
  tests/gateway/test_metrics_book.py tests/gateway/test_sealing.py tests/gateway/evidence/sealed/test_checkpointing.py tests/gateway/test_columns.py \
  $(wildcard tests/gateway/stores/test_audit_sqlite*.py) \
  tests/contracts/test_executor_contract.py tests/routing/test_vectors.py tests/routing/test_brake.py \
  tests/e2e/test_forwarding.py tests/e2e/test_wire.py tests/e2e/test_streaming.py tests/e2e/test_brake.py
test-compiled: $(VENV)/ready
	$(BIN)/python -m compiling --quickly --into build/tested
	cd build/tested && PYTHONPATH=$(CURDIR)/build/tested $(abspath $(BIN))/python -m pytest -q -p no:cacheprovider \
	  -n $(SIDE_BY_SIDE) --dist loadfile $(TESTED_COMPILED)

# Half an hour; the programs it compares with are installed outside the repository. More: python -m loadtests.compare --help.
compare: compiled
	$(BIN)/python -m loadtests.compare

ratios: compiled
	$(BIN)/python -m loadtests.ratios

# Locust brings many packages that nothing else here needs, so the scenarios have an environment of their own.
$(VENV)-load/ready: requirements/run.txt requirements/load.txt
	$(PYTHON) -m venv $(VENV)-load
	$(VENV)-load/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/run.txt -r requirements/load.txt
	@touch $@

# Each is bounded, prints its marks and ends with 1 when it missed one; all are played before this does.
SCENARIOS := steady ramp_weights shadow_storm redis_down backend_flaps overload
scenarios: $(VENV)-load/ready $(VENV)/ready
	@missed=; for name in $(SCENARIOS); do \
	  echo "== $$name"; $(VENV)-load/bin/python -m loadtests.scenarios.$$name || missed="$$missed $$name"; \
	done; \
	echo "== hang_ups"; $(BIN)/python -m loadtests.hang_ups || missed="$$missed hang_ups"; \
	test -z "$$missed" || { echo "missed:$$missed" >&2; exit 1; }

clean:
	rm -rf $(VENV) $(VENV)-clients $(VENV)-load pointsman-data build dist *.egg-info
