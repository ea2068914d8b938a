# Two commands do all the set-up: `make run` and `make test`.
.DEFAULT_GOAL := help
.PHONY: help run fleet test lint format bench tune lock screenshots clean

PYTHON ?= python3
BIN := .venv/bin

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

# The import first: what is wrong with a setting is then said in one line.
run: .venv/runtime ## Serve on 127.0.0.1:8000 (PORT=... for another port)
	@$(BIN)/python -c 'import wsgi'
	@HASHER_HOST=$${HASHER_HOST:-127.0.0.1} exec $(BIN)/gunicorn wsgi:app

fleet: .venv/runtime ## Serve through nginx from three instances and Redis, all on this machine
	@exec $(BIN)/python -m deploy.fleet

test: .venv/development .venv/bench ## Run the whole test suite
	@$(BIN)/python -m pytest

lint: .venv/development ## Check style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: .venv/development ## Rewrite the code in the project's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# How long to measure. `make bench ROUNDS=1 STORED=10000 RESULTS=/tmp/bench` shows in two minutes that
# it works, and leaves the kept figures as they are. MOST=5000000 fills SQLite further, which takes
# five minutes more; BEFORE=<commit> measures that commit's hasher in the same run.
SECONDS ?= 1
ROUNDS ?= 5
STORED ?= 1000000
MOST ?= 0
BEFORE ?=
RESULTS ?= bench/results

bench: .venv/bench ## Compare hasher with what else one could use (ten minutes)
	@$(BIN)/python -m bench --results $(RESULTS) compare \
		--seconds $(SECONDS) --rounds $(ROUNDS) --stored $(STORED) --most $(MOST) --before "$(BEFORE)"

# For instance STORE=sqlite FOR="latency 20", LOAD=reads, or TUNE="--replay access.log --write FILE".
STORE ?= memory
LOAD ?= mixed
FOR ?= throughput
TUNED ?= .tuned

tune: .venv/runtime ## Find the settings that serve the most on this machine (three minutes)
	@$(BIN)/python -m hasher tune --results $(TUNED) \
		--store $(STORE) --load $(LOAD) --for $(FOR) $(TUNE)

lock: .venv/development ## Pin the newest versions of what pyproject.toml asks for
	@$(BIN)/uv pip compile pyproject.toml --all-extras --upgrade --output-file requirements.txt $(LOCK)
	@$(BIN)/uv pip compile --group dev --upgrade --constraint requirements.txt \
		--output-file requirements-dev.txt $(LOCK)
	@$(BIN)/uv pip compile --group bench --upgrade --constraint requirements-dev.txt \
		--constraint requirements.txt --output-file requirements-bench.txt $(LOCK)

# One lock for every platform and every Python from the oldest that is supported.
LOCK := --universal --generate-hashes --quiet --no-annotate --custom-compile-command "make lock"

screenshots: .venv/development ## Take the pictures in docs/ anew
	@$(BIN)/python -m tests.browser.screenshots

clean: ## Remove everything that these commands made
	rm -rf .fleet .tuned .venv .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A file in .venv says which list is installed; a newer list is installed again.
.venv/runtime: requirements.txt | .venv/bin/pip
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/development: requirements-dev.txt .venv/runtime
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

.venv/bench: requirements-bench.txt .venv/runtime
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-bench.txt
	@touch $@

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"hasher needs Python 3.11 or newer: make PYTHON=python3.12, say.")'
	@$(PYTHON) -m venv .venv
