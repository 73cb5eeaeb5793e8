# One verb a target. Each makes what it needs: `make demo` and `make test` work on a bare machine with Python 3.11.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test check fix clean

demo: $(STAMP)  ## run the whole MAS job on real data with ten device processes (under 3 minutes)
	$(BIN)/mas-edge demo --out demo-out --json demo-out/result.json $(DEMO_ARGS)

test: $(STAMP)  ## the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)  ## style, types, arrows between rooms, dead code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vulture

fix: $(STAMP)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An editable install: the sources need no re-install, so a second run starts at once.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

clean:  ## remove everything that was made here
	rm -rf $(VENV) demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
