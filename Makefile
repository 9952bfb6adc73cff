PYTHON ?= python3.11
BIN = .venv/bin
# One thread for each of two processes: twice as fast as two threads in one.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: demo docs lint test test-fast test-long test-all clean

demo: .venv/.installed
	$(BIN)/python examples/demo.py

# the site, in docs/_build/html; a warning is an error, and it needs no network.
# SPHINX="-D plot_gallery=0" leaves out the examples, which the tests execute.
docs: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html $(SPHINX) docs docs/_build/html

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the inner loop: no lint, nothing that takes seconds
test-fast: .venv/.installed
	$(PYTEST) -m "not slow and not long" tests

test: lint
	$(PYTEST) -m "not long"
	# the same mathematics without compiled loops
	NUMBA_DISABLE_JIT=1 $(PYTEST) -m "not long and not slow" tests/nn tests/models

# what `test` leaves out: real cohorts, every method in scikit-learn's battery, long fuzzing
test-long: .venv/.installed
	$(PYTEST) -m long
	NUMBA_DISABLE_JIT=1 $(PYTEST) -m "slow and not long" tests/training tests/estimators

test-all: test test-long

# prints the share of lines that all tests together run
coverage: .venv/.installed
	$(PYTEST) --cov=sk_momkd --cov-report=term:skip-covered

# torch first and pinned, so that the small CPU build is taken where there is one
.venv/.installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo_output build dist *.egg-info .coverage docs/_build docs/_extra docs/api \
	  docs/auto_examples docs/sg_execution_times.rst
