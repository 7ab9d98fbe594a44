# make demo and make test need nothing but Python 3.10 or later (with venv) and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

PACKAGE := pyproject.toml setup.py constraints.txt $(wildcard locks/*) entry_points.txt llamakit/_distribution.py
REFERENCE := $(shell grep -rl --include='*.md' '\[\[\[cog' docs)
COG := $(BIN)/cog -I docs
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet

# Where it is set, each process of a test run compiles the package and the tests again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test pytest lint fix docs pictures bench soak clients ray matrix audit mutants pins clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## from nothing to an answer of the bundled demo model
	$(BIN)/llamakit demo

test: $(VENV)/installed-test ## what has to pass: lint, and beside it every test but the soak runs
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed-test ## format, style, types, import directions, generated docs, the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(COG) --check $(REFERENCE)
	$(MKDOCS) build --strict

fix: $(VENV)/installed-test ## fix what ruff can fix; regenerate the docs
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(COG) -r $(REFERENCE)

docs: $(VENV)/installed-test ## regenerate the docs and build the site into site/
	$(COG) -r $(REFERENCE)
	$(MKDOCS) build --strict

pictures: $(VENV)/installed-test ## the pictures of the docs; those of the server's page with Chromium
	$(BIN)/python tools/architecture_picture.py
	$(BIN)/python tools/recording.py
	LLAMAKIT_PICTURES=docs/images $(BIN)/python -m pytest -m "soak or not soak" tests/serve/page/test_page_pictures.py

WITH_PEER = $(patsubst %, benchmarks/%.py, compressed_tensors engines merge replicas) # each says what it needs
bench: $(VENV)/installed ## run every benchmark that needs no peer's environment; docs/benchmarks.md keeps dated results
	@set -e; for file in $(filter-out $(WITH_PEER), $(wildcard benchmarks/*.py)); do echo "$$file"; $(BIN)/python "$$file"; done

soak: $(VENV)/installed-test .ray/installed ## the long kill and load runs (LLAMAKIT_SOAK_MINUTES: of the cluster's, 120)
	$(BIN)/python -m pytest -m soak
	cd packages/llamakit-ray && ../../.ray/bin/python -m pytest -m soak

ray: .ray/installed ## batches on a simulated Ray cluster, with kills (downloads 110 MB beside torch)
	cd packages/llamakit-ray && ../../.ray/bin/python -m pytest

.ray/installed: $(PACKAGE) packages/llamakit-ray/pyproject.toml packages/llamakit-ray/tests/cluster/requirements.txt
	$(PYTHON) -m venv .ray
	.ray/bin/python -m pip --disable-pip-version-check install --quiet -r packages/llamakit-ray/tests/cluster/requirements.txt
	.ray/bin/python -m pip --disable-pip-version-check install --quiet -r locks/build.txt --no-deps
	.ray/bin/python -m pip --disable-pip-version-check install --quiet -c constraints.txt --no-build-isolation -e . -e packages/llamakit-ray
	@touch $@

clients: $(VENV)/installed .clients/installed ## real clients (LangChain, pydantic-ai, …) against the bundled model (RECORD=1: new fixtures)
	LLAMAKIT_PYTHON=$(abspath $(BIN))/python LLAMAKIT_RECORD=$(RECORD) .clients/bin/python -m pytest tests/clients

.clients/installed: tests/clients/requirements.txt $(wildcard tests/clients/node/package*.json)
	$(PYTHON) -m venv .clients
	.clients/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r tests/clients/requirements.txt
	cp tests/clients/node/package*.json .clients/
	if command -v npm >/dev/null; then npm ci --prefix .clients --silent --ignore-scripts; \
		else echo "No npm: the clients of Node are left out"; fi
	@touch $@

clean: ## remove the environment and what was built
	rm -rf $(VENV) .audit .clients .matrix .mutants .ray build dist site *.egg-info

matrix: ## the tests that need no torch, on each Python from 3.10 on (VERSIONS=3.13: on one)
	$(PYTHON) tools/matrix.py $(VERSIONS)

mutants: $(VENV)/installed-test ## change the code at 200 seeded places: which changes no test notices
	$(PYTHON) -m venv .mutants/venv
	.mutants/venv/bin/python -m pip --disable-pip-version-check install --quiet cosmic-ray==8.7.0
	.mutants/venv/bin/python tools/mutants.py $(ONLY)

audit: .audit/installed ## known holes in what is pinned, and bandit over the package (needs a network)
	.audit/bin/bandit --quiet --recursive --configfile pyproject.toml llamakit
	.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt
	.audit/bin/pip-audit --strict --require-hashes --disable-pip -r locks/build.txt -r locks/audit.txt

.audit/installed: locks/audit.txt
	$(PYTHON) -m venv .audit
	.audit/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r locks/audit.txt
	@touch $@

pins: .audit/installed ## write constraints.txt and locks/ (UPGRADE=--upgrade: the newest versions)
	.audit/bin/python tools/pins.py $(UPGRADE)

# $(call install,LOCK,WHAT,SIZE,OPTIONS): hashed packages first, then torch, whose hash depends on the build;
# both without build isolation, so that the pinned setuptools builds them. The last line sees that
# nothing is missing. The stamps are written last: an installation that was interrupted is done again.

define install
	$(PYTHON) -m venv $(VENV)
	@echo "Downloading $$(grep -c '^[a-z].*==' $(1)) $(2), about $(3) MB"
	$(PIP) install --quiet --require-hashes --no-deps -r locks/build.txt
	$(PIP) install --quiet --require-hashes --no-deps --no-build-isolation $(4) -r $(1)
	@echo "Downloading torch: 200 MB for the CPU alone; PyPI's build for Linux brings 3 GB of CUDA" \
		"(see Install in README.md)"
	$(PIP) install $(4) -c constraints.txt torch
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
endef

$(VENV)/installed: $(PACKAGE)
	$(call install,locks/run.txt,packages,40)
	@touch $@

# What the tests import is compiled then: a fraction of what pip would compile.
$(VENV)/installed-test: $(PACKAGE)
	$(call install,locks/test.txt,packages (those of the tests too),250,--no-compile)
	@touch $@ $(VENV)/installed
