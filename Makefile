# make demo: set up and run the main job.  make test: set up and run the tests.
# make test-all: also run the cases that `make test` leaves out of its covering sets.  make check: linters and types.
# make docs: build the documentation into build/site.
# make campaigns: kill whet, give it bad inputs, alter its files, run it twice at once, load it; takes an hour.
.PHONY: demo test test-all campaigns check docs clean

PYTHON ?= python3
# threads that wait asleep lose little on a quiet machine, and nearly everything is lost without on a busy one
export OMP_WAIT_POLICY ?= passive
BIN := .venv/bin
# a process that has run out of its share takes over tests that follow each other, so that they share what they make
IN_PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "whet needs Python 3.11 or newer; name one: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv || { echo "whet needs venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/ready
	$(BIN)/whet demo

test: .venv/ready
	$(BIN)/python -m pytest $(IN_PARALLEL)

test-all: .venv/ready
	$(BIN)/python -m pytest $(IN_PARALLEL) -m ''

campaigns: .venv/ready
	cd tests && for name in kills bad_inputs altered concurrency; do ../$(BIN)/python -m campaigns.$$name --keep || exit 1; done

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/docs: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

docs: .venv/docs
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/pages.py build/pages
	$(BIN)/zensical build --clean --strict

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
