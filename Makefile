# Everything one needs to run, stop and check the project. Recipes are short: what they do stands in the package.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DEFAULT_GOAL := help
.PHONY: help run stop test test-all lint bench env
.DELETE_ON_ERROR:

help: ## show this list
	@echo "make TARGET, one of:"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'
	@echo "Ports: REFUND_PORT_POSTGRES, REFUND_PORT_S3, REFUND_PORT_AIRFLOW. Interpreter: make PYTHON=/path/to/python3.11 run"

run: $(STAMP) ## install, start the local stack, run one night and print its report
	@$(BIN)/refund run

stop: ## stop the local stack; photos and database stay in .refund/
	@if [ -x $(BIN)/refund ]; then $(BIN)/refund down; else echo "nothing to stop: the project is not installed here"; fi

test: $(DEV_STAMP) ## all tests but the slow ones
	@$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope

test-all: $(DEV_STAMP) ## the slow and heavy tests
	@$(BIN)/python -m pytest -m "slow and not live" -n 2 --dist loadscope
	@$(BIN)/python -m pytest -m "slow and live"

lint: $(DEV_STAMP) ## style, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: $(STAMP) $(BENCH_STAMP) ## measure what a night costs on this machine, and how often drift is told wrongly
	@$(BIN)/python -m benchmarks
	@$(BIN)/python -m benchmarks drift

env: ## write .env and a local certificate authority for docker compose; ARGS=--help
	@if [ -x $(BIN)/python ]; then $(BIN)/python deploy/make_env.py $(ARGS); \
	elif command -v docker > /dev/null 2>&1; then \
	  docker run --rm --user "$$(id -u):0" --entrypoint python --volume "$(CURDIR):/project" --workdir /project \
	    "$${REFUND_IMAGE:-refund:$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}" deploy/make_env.py $(ARGS); \
	else echo "make: neither $(BIN)/ nor docker is here; one of both runs deploy/make_env.py: see docs/deployment.md" >&2; exit 1; fi

# A step says what it does and how long it took; its output is shown only when it fails.
define step
	@started=$$(date +%s); printf '%s ... ' "$(1)"; \
	if $(2) > $(VENV)/.install.log 2>&1; then echo "$$(( $$(date +%s) - started )) s"; \
	else echo "failed"; tail -n 25 $(VENV)/.install.log; exit 1; fi
endef

$(STAMP): requirements.txt pyproject.toml
	@rm -f $(STAMP)
	@command -v $(PYTHON) > /dev/null 2>&1 || { \
	  echo "make: $(PYTHON) was not found; the project needs Python 3.11. Install it, or name it: make PYTHON=/path/to/python3.11 run" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "make: $(PYTHON) is Python $$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo '?'), the project needs 3.11; name one: make PYTHON=/path/to/python3.11 run" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "make: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3.11-venv" >&2; exit 1; }
	@[ -x $(BIN)/python ] && $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info[:2] != (3, 11))' 2> /dev/null || { rm -rf $(VENV) && mkdir -p $(VENV); }
	$(call step,making the virtual environment,$(PYTHON) -m venv $(VENV))
	$(call step,installing the locked requirements (some minutes the first time),$(PIP) install --require-hashes -r requirements.txt)
	$(call step,installing the project,$(PIP) install --no-deps --no-build-isolation -e .)
	@touch $@

$(DEV_STAMP): $(STAMP) requirements-dev.txt
	$(call step,installing what tests and checks need,$(PIP) install --require-hashes -r requirements-dev.txt)
	@touch $@

# What one would write instead runs in an environment of its own: neither side's libraries bend to the other's.
$(BENCH_STAMP): benchmarks/requirements.txt | $(STAMP)
	$(call step,making the virtual environment of the benchmark,$(BIN)/python -m venv $(BENCH_VENV))
	$(call step,installing what the benchmark compares with (some minutes the first time),$(BENCH_VENV)/bin/python -m pip --disable-pip-version-check --no-input install --require-hashes -r benchmarks/requirements.txt)
	@touch $@
