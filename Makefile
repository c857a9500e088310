# Tenure's commands. `make` alone lists them. Nothing needs to be activated: everything runs from .venv, which they make.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help binaries postgresql setup demo test check lint fmt proto crds k8s k8s-down e2e bench sim sim-fresh soak soak-turns models clean

BIN := .venv/bin
# The first Python on the PATH that is new enough and can make environments; PYTHON=… chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
SEEDS ?= 200
SIM_SEEDS ?= 10000

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.dev ## make .venv with the project, its tests' and its linters' needs

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later with venv on the PATH (Debian: python3 python3-venv). PYTHON=… names one." >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.project: pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[all]'
	@touch $@

.venv/.dev: .venv/.project
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: .venv/.project ## three servers and three hosts on this machine; one loses its power (ONCE=1: then end)
	$(BIN)/python -m tenure_cli.demo $(if $(ONCE),--once)

binaries: ## build etcd, the API server and the rest of Kubernetes from source, once (6 to 10 minutes; cached)
	@$(PYTHON) -m tools.k8s binaries

postgresql: setup
	@$(BIN)/python tests/support/postgres_server.py

test: setup binaries postgresql ## every test but e2e
	$(BIN)/pytest -m 'not e2e'
	$(MAKE) --no-print-directory sim-fresh

check: lint binaries postgresql ## format, lint, types, layers, generated code, fast tests
	$(BIN)/pytest -m 'not e2e and not cluster'

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --strict tools/k8s
	$(BIN)/mypy --strict models
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python tools/genproto.py --check
	$(BIN)/python tools/gencrds.py --check

fmt: setup ## format, and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: setup ## generate proto/gen from proto/tenure
	$(BIN)/python tools/genproto.py

crds: setup ## generate crds/ from the API types
	$(BIN)/python tools/gencrds.py

k8s: .venv/.project ## a Kubernetes cluster with Tenure: by kind where Docker works, else by tools/k8s
	$(BIN)/python -m tools.k8s deploy

k8s-down: .venv/.project ## remove that cluster
	$(BIN)/python -m tools.k8s undeploy

e2e: setup ## every promise on a real multi-node Kubernetes
	$(BIN)/pytest tests/e2e -m e2e -s

bench: .venv/.project ## failover, calls, creation, measured on a local cluster
	$(BIN)/python -m bench.failover
	$(BIN)/python -m bench.calls
	$(BIN)/python -m bench.create
	$(BIN)/python -m bench.placement

sim: setup ## the seeded simulations on fresh seeds (SEEDS=200)
	$(BIN)/python -m tools.sim --seeds $(SEEDS)

sim-fresh: setup ## as many fresh seeds as fit into 190 s, 600 at most; part of `test`
	$(BIN)/python -m tools.sim --kind cluster --seeds 300 --seconds 100
	$(BIN)/python -m tools.sim --kind consensus --seeds 200 --seconds 40
	$(BIN)/python -m tools.sim --kind stories --seeds 100 --seconds 20
	$(BIN)/python -m tools.sim --kind signals --seeds 100 --seconds 30

models: setup ## explore the protocol models: every configuration, every guard left out once (long; niced)
	nice -n 10 $(BIN)/python -m models.explore

soak: setup ## real servers killed, frozen and without power, for half an hour (SOAK="--minutes 5"; docs/soak.md)
	$(BIN)/python -m tools.soak $(SOAK)
	nice -n 10 $(BIN)/python -m tools.sim --kind cluster --seeds $(SIM_SEEDS)

soak-turns: setup ## agents that count and send while processes die and hang; every id is checked (SOAK="--turns 20000")
	$(BIN)/python -m tools.soak turns $(SOAK)

clean: ## remove what was built here, and the harness's caches
	-$(PYTHON) -m tools.k8s clean
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
