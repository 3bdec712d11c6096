# `make audit` and `make test` do all set-up themselves; they need Python 3.11 or newer and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= runs/audit-organism
ARGS ?=
MODEL ?= qwen
SELECT ?= real
STAMP := $(VENV)/.installed

.PHONY: audit test test-all real lint types check docs docs-fast figures setup clean

audit: $(STAMP)
	$(BIN)/tamperlens audit organism --out $(OUT) --resume $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal

test-all: $(STAMP)
	$(BIN)/python -m pytest -q -n auto --dist worksteal -m ""

real: $(STAMP)  # every measure on a real model: TAMPERLENS_REAL=FOLDER make real [MODEL=smollm2] [SELECT='real and not slow']
	@test -d "$$TAMPERLENS_REAL" || { echo "TAMPERLENS_REAL names no folder of real models"; exit 2; }
	TAMPERLENS_REAL_MODEL=$(MODEL) $(BIN)/python -m pytest -q -m "$(SELECT)" --durations=0 -s tests/real

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell src hooks analyses benchmarks tests docs README.md CONTRIBUTING.md
	$(BIN)/lint-imports

types: $(STAMP)
	$(BIN)/mypy

check: lint types test docs-fast

docs: $(STAMP)  # tutorials are executed (minutes) unless build/tutorials has them
	$(BIN)/python docs/tools/run_tutorial.py --missing docs/tutorials/*.py build/tutorials
	$(BIN)/python docs/tools/notebooks.py
	$(BIN)/python docs/tools/site.py build/docs
	$(BIN)/zensical build --strict
	$(BIN)/python docs/tools/links.py build/site

docs-fast: $(STAMP)  # the site alone
	$(BIN)/python docs/tools/notebooks.py
	$(BIN)/python docs/tools/site.py build/docs
	$(BIN)/zensical build --strict
	$(BIN)/python docs/tools/links.py build/site

figures: $(STAMP)  # every published figure on the organism, with a manifest (forty minutes of one core)
	$(BIN)/python analyses/all_figures.py --out results

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt $(wildcard .git/refs/tags)  # a new tag is a new version
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .cache build dist results .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
