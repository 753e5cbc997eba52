# Everything runs from this folder; `.venv` is made and filled as needed.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo digits test test-fast check format lock clean

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

# Set up again only when the pinned versions have changed.
$(VENV)/.installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	@touch $@

setup: $(VENV)/.installed ## The environment: .venv with the versions of requirements.lock

# A search that was begun goes on, one that has ended shows its result again.
again = $(if $(ARGS),,$(if $(wildcard results/$(1)/experiment.json),--resume))

demo: setup ## Search on demonstration data: chest-film phantoms, 20 trials of 3 folds, two minutes
	$(BIN)/python -m search covid --demo $(call again,covid-demo) $(ARGS)

digits: setup ## Search on real images that come with scikit-learn
	$(BIN)/python -m search digits $(call again,digits) $(ARGS)

test: setup ## All tests
	$(BIN)/python -m pytest $(ARGS)

test-fast: setup ## Tests, less those that take more than ten seconds each
	$(BIN)/python -m pytest -m "not slow" $(ARGS)

check: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Put the code into its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Resolve the dependencies of pyproject.toml anew into requirements.lock
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade pip
	.venv-lock/bin/python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print('\n'.join(p['project']['dependencies'] + p['dependency-groups']['dev']))" > .venv-lock/wanted
	.venv-lock/bin/python -m pip install --quiet -r .venv-lock/wanted
	.venv-lock/bin/python -m pip freeze --all --exclude pip > requirements.lock
	rm -rf .venv-lock

clean: ## Remove the environment and caches; results stay
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
