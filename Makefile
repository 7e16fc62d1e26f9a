.DEFAULT_GOAL := help
.NOTPARALLEL:

# The first Python that is new enough; a shim that only says "not found" does not count.
PYTHON ?= $(firstword $(foreach python,python3.11 python3.12 python3.13 python3,$(shell \
	$(python) -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 </dev/null && echo $(python))))
UV := $(shell command -v uv 2>/dev/null)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: help install demo test test-browser test-cluster test-vllm test-all record-hpa check bench bench-packing bench-replay bench-policy bench-breadth bench-kinds bench-ablation bench-robustness crds docs clean parts

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(INSTALLED) ## .venv with everything that development and the demo need

$(INSTALLED): pyproject.toml
	@[ -n "$(PYTHON)" ] || { echo "no Python >= 3.11 found: install one, or name it: make PYTHON=/path/to/python3.11"; exit 2; }
ifdef UV
	$(UV) venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	$(UV) pip install --quiet --python $(BIN)/python -e '.[dev,sim]'
else
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,sim]'
endif
	@touch $@

demo: $(INSTALLED) ## an hour of traffic under three autoscalers: a table, and demo/report.html
	$(BIN)/preheat demo

test: $(INSTALLED) ## all that needs Python alone
	$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal

test-cluster: $(INSTALLED) parts ## against a real control plane and Prometheus (built once, 8 to 25 minutes)
	$(BIN)/pytest -m cluster

test-vllm: $(INSTALLED) parts ## against a real vLLM server, on the CPU (installed once, 2.4 GB)
	$(BIN)/python -m tests.parts.vllm.install
	$(BIN)/pytest -m vllm

test-browser: $(INSTALLED) ## the reports in a real browser; without one, by what an HTML parser sees
	$(BIN)/pytest -m browser tests/browser

test-all: test test-browser test-cluster test-vllm ## every suite

record-hpa: $(INSTALLED) parts ## the real HPA controller's decisions anew, into tests/data/hpa (5 minutes)
	$(BIN)/python -m tests.real.hpa.record

# Kubernetes, etcd, kwok and Prometheus in a cache outside the checkout; a second time this only looks.
parts: $(INSTALLED)
	@$(BIN)/python -m tests.parts.build >/dev/null

check: $(INSTALLED) ## format, lint, strict types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# As in the image.
bench: export MALLOC_ARENA_MAX := 1
bench: $(INSTALLED) ## what benchmarks/ measures on this machine, packing aside (4 minutes)
	@set -e; for program in $(filter-out benchmarks/packing.py,$(wildcard benchmarks/[a-z]*.py)); do echo "== $$program"; PYTHONPATH=. $(BIN)/python $$program; done

bench-packing: $(INSTALLED) ## how much of a fleet our placement puts to right use, beside five others (2 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/packing.py

bench-replay: $(INSTALLED) ## every policy on days of traffic, into docs/benchmarks.md (half an hour; TRACES=DIR)
	PYTHONPATH=. $(BIN)/python benchmarks/long/frontier.py $(or $(TRACES),traces)

bench-policy: $(INSTALLED) ## ours beside what could be foreseen and the best in hindsight, likewise (an hour; TRACES=DIR)
	PYTHONPATH=. $(BIN)/python benchmarks/long/policy.py $(or $(TRACES),traces)

bench-breadth: $(INSTALLED) ## ours under other engines, objectives, ticks and sizes, likewise (20 minutes; TRACES=DIR)
	PYTHONPATH=. $(BIN)/python benchmarks/long/breadth.py $(or $(TRACES),traces)

bench-kinds: $(INSTALLED) ## ours on kinds of traffic that were never recorded, likewise (15 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/long/kinds.py

bench-ablation: $(INSTALLED) ## what each ingredient and constant of ours is worth, likewise (an hour; TRACES=DIR)
	PYTHONPATH=. $(BIN)/python benchmarks/long/ablation.py $(or $(TRACES),traces)

bench-robustness: $(INSTALLED) ## ours beside two reactive laws when something happens that no day before has shown (12 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/long/robustness.py

crds: $(INSTALLED) ## manifests/crds anew from the model that reads the resource
	$(BIN)/preheat crd >manifests/crds/vllmautoscalers.yaml

docs: $(INSTALLED) ## that every link, command and setting that the documents show is there
	$(BIN)/pytest -q tests/test_docs.py

clean: ## away with .venv, caches and reports (built parts stay in ~/.cache/preheat)
	rm -rf $(VENV) demo dist .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
