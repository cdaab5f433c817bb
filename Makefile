# Everything runs from a fresh checkout on a machine with Python 3.11 or newer and pip.
# `make setup` runs once, and again only when the dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Two processes of one thread each; a file's tests stay together, because they share what is slow to make.
SIDE_BY_SIDE := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile
STAMP := $(VENV)/.setup-done

.PHONY: setup demo lint test test-slow test-floors test-newest bench docs site docs-formats docs-coverage docs-theory model-names

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

# The whole job on embedded inputs; FAMILY is relu, jumprelu or topk.
demo: setup
	$(BIN)/rsae demo $(if $(FAMILY),--family $(FAMILY))
	@echo 'rsae is in $(BIN): "source $(BIN)/activate", then "rsae --help"'

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

test: setup lint
	$(SIDE_BY_SIDE) -m "not slow"

# pytest exits with 5 when no test is collected.
test-slow: setup
	$(SIDE_BY_SIDE) -m slow || test $$? -eq 5

# The core tests under the lowest versions that pyproject.toml allows, and under the newest there are; each makes an
# environment of its own.
test-floors:
	$(PYTHON) .ci/versions.py lowest

test-newest:
	$(PYTHON) .ci/versions.py newest

# The tables and the picture of docs/performance.md, about ten minutes on an idle machine.
bench: setup
	$(BIN)/rsae bench --json docs/figures/bench.json
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python docs/performance.py

# docs/demo.md and its figures, from one demo run a family; the tables of docs/results.md, from docs/data.
docs: setup $(foreach family,relu jumprelu topk,runs/demo-$(family)/report.json)
	$(BIN)/python docs/demo.py
	$(BIN)/python docs/results.py

# The documentation as a site: build/site, which any web server shows.
site: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The table of docs/formats.md, from the cases of the parity tests, half a minute.
docs-formats: setup
	$(BIN)/python docs/formats.py

# docs/coverage.md and the README's line: which SAEs of SAELens' table can be upgraded, two minutes.
docs-coverage: setup
	$(BIN)/python benchmarks/coverage.py --write

# TransformerLens' names of models, from the version that is installed.
model-names: setup
	$(BIN)/python docs/model_names.py

# The figures of docs/theory.md, about four minutes.
docs-theory: setup
	$(BIN)/rsae theory --out docs/figures --overwrite

runs/demo-%/report.json: | setup
	$(BIN)/rsae demo --family $* --out runs/demo-$*
