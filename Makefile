# make demo and make test need nothing but Python 3.10 or later (with venv) and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

PACKAGE := pyproject.toml constraints.txt entry_points.txt llamakit/_version.py
REFERENCE := $(shell grep -rl --include='*.md' '\[\[\[cog' docs)
COG := $(BIN)/cog -I docs
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs --quiet

.PHONY: help demo test lint fix docs pictures bench soak clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## from nothing to an answer of the embedded model
	$(BIN)/llamakit demo

test: lint ## what has to pass: lint, then every test but the soak runs
	$(BIN)/python -m pytest -m "not soak" -n 2 --dist worksteal

lint: $(VENV)/installed-test ## format, style, types, import directions, generated docs, the site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(COG) --check $(REFERENCE)
	$(MKDOCS) build --strict

fix: $(VENV)/installed-test ## mend what ruff can mend; write the generated docs anew
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(COG) -r $(REFERENCE)

docs: $(VENV)/installed-test ## write the generated docs anew and build the site into site/
	$(COG) -r $(REFERENCE)
	$(MKDOCS) build --strict

pictures: $(VENV)/installed-test ## take the pictures of the server's page, with Chromium
	LLAMAKIT_PICTURES=docs/images $(BIN)/python -m pytest tests/serve/page/test_page_pictures.py

bench: $(VENV)/installed ## run every benchmark; docs/benchmarks.md keeps dated results
	@set -e; for file in benchmarks/*.py; do echo "$$file"; $(BIN)/python "$$file"; done

soak: $(VENV)/installed-test ## the long kill and load runs
	$(BIN)/python -m pytest -m soak

clean: ## remove the environment and what was built
	rm -rf $(VENV) build dist site *.egg-info

# The stamps are written last: an installation that was cut short is done again.

$(VENV)/installed: $(PACKAGE)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/installed-test: $(PACKAGE)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt -e ".[test]"
	@touch $@ $(VENV)/installed
