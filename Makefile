# Every target makes .venv when it is missing; nothing outside this folder is changed but pip's cache
# and the victims' cache (see `fedzo list attack`, scenario.cache_dir).
PYTHON ?= python3
BIN := .venv/bin
DEMO_OUT := runs/demo
# What Python has compiled is kept, whatever the caller's environment says: else every worker of the tests,
# and every process that they start, compiles everything again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-more test-docs test-slow check wheel-test bench house settings docs format clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[data,dev]'
	touch $@

demo: .venv/.installed  ## attack MNIST digits through ten clients that can only be queried, by three methods
	$(BIN)/python docs/examples/demo.py $(DEMO_OUT)

test: .venv/.installed  ## the default tests, a few minutes on two idle cores
	$(BIN)/pytest -n 2 --dist loadgroup

test-more: .venv/.installed  ## what CI tests besides: laws over every method, subprocesses, browsers, statistics
	$(BIN)/pytest -n 2 --dist loadgroup -m "more and not slow"

test-docs: .venv/.installed  ## every block of README.md and docs, and the examples: a few minutes
	$(BIN)/pytest -n 2 -m slow tests/test_readme.py tests/test_documents.py \
		tests/test_paper_page.py tests/test_minimize_page.py \
		tests/test_reference.py tests/scenarios/test_examples.py

test-slow: .venv/.installed  ## the tests that take longer, and the laws with five times the examples
	$(BIN)/pytest -m slow
	$(BIN)/pytest -n 2 --dist loadgroup --hypothesis-profile thorough tests/fedzo tests/laws

check: .venv/.installed  ## what CI checks before it tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

wheel-test: .venv/.installed  ## what packaging can break, tested on an installed wheel, away from the sources
	rm -rf build
	$(BIN)/python -m build --wheel --outdir build/wheel . >/dev/null
	sh .ci/wheel-test $(BIN)

bench: .venv/.installed  ## speed against the limits of docs/results/engine.md
	$(BIN)/python benchmarks/engine.py

house: .venv/.installed  ## how large the files are, and how the rooms hang together
	$(BIN)/python tools/house.py

settings: .venv/.installed  ## write down what `fedzo list` says of settings, after a change of any
	$(BIN)/python -m scenarios.cli.describe

docs: .venv/.installed  ## the documents as a site in build/site, made without network
	$(BIN)/python tools/catalogue.py
	$(BIN)/python tools/reference.py
	$(BIN)/mkdocs build --quiet --strict

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf .venv build dist runs *.egg-info
