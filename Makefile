# make demo          score the embedded demo: environment, four dimensions, correlation, a table
# make test          style, types, imports, and all tests
# make fast          the same without the tests that need torch for more than a moment (two minutes)
# make golden        record the output of every command in GOLDEN (default: build/golden), or compare with the record there
# make docs          docs/cli.md from --help, and the pages as a site in build/docs
# make fuzz          damaged inputs of every kind for SECONDS (default: 1800)
# make train-check   trainings that are ended and resumed, sharded, on two machines, with every loss (half an hour)
# make chaos         runs that are killed and resumed, KILLS times (default: 200)
# make setup         only the environment
# make fresh         install the package in a new environment and run the demo with it (minutes, 1.5 to 5 GB)
# make lock          requirements.lock and sbom.cdx.json from requirements.txt
# make demo-bundle   rebuild the demo's pictures and checkpoints from scratch (four to five hours)
# VENV=DIR chooses the environment, PYTHON=... the interpreter to create it, JOBS=N the number of test files run in parallel.
VENV ?= .venv
PYTHON ?= python3
RUN = "$(VENV)/bin/python"
INSTALL = $(RUN) -m pip install --quiet --disable-pip-version-check

# Test files run in parallel.
JOBS ?= 2
SIDE_BY_SIDE = -n $(JOBS) --dist loadfile --no-loadscope-reorder

SECONDS ?= 1800
KILLS ?= 200
GOLDEN ?= build/golden
FAST = $(addprefix tests/,cli evaluate preferences files/test_records.py files/test_stores.py project/test_supply_chain.py ground/test_scoring.py)

.PHONY: setup demo test lint checks fast golden docs fuzz train-check chaos lock fresh figures demo-bundle

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	test -x $(RUN) || $(PYTHON) -m venv "$(VENV)"
	$(INSTALL) -r requirements.txt
	touch "$@"

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(INSTALL) -r requirements-dev.txt
	touch "$@"

$(VENV)/transformers4: requirements-transformers4.txt $(VENV)/.installed
	$(INSTALL) --upgrade --no-deps --target "$@" -r requirements-transformers4.txt
	touch "$@"

$(VENV)/.installed-demo: requirements-demo.txt $(VENV)/.installed
	$(INSTALL) -r requirements-demo.txt
	touch "$@"

demo: setup
	$(RUN) tools/infer.py --demo
	$(RUN) tools/evaluate_correlation.py --demo

test: lint $(VENV)/transformers4
	$(RUN) -m pytest $(SIDE_BY_SIDE)

lint: $(VENV)/.installed-dev checks

checks:
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	PYTHONPATH=tools "$(VENV)/bin/lint-imports" --no-cache
	$(RUN) -m mypy
	$(RUN) -m codespell_lib

# READY=1: the environment is used as it is.
fast: $(if $(READY),,lint)
	$(if $(READY),$(MAKE) --no-print-directory checks VENV="$(VENV)")
	$(RUN) -m pytest $(SIDE_BY_SIDE) -m "not slow" $(FAST)

golden: $(VENV)/.installed-dev
	$(RUN) tests/golden.py $(if $(wildcard $(GOLDEN)/golden.json),compare,record) "$(GOLDEN)"

docs: $(VENV)/.installed-dev
	$(RUN) docs/make_cli.py
	$(RUN) -m mkdocs build --strict --quiet

fuzz: $(VENV)/.installed-dev
	$(RUN) tests/fuzz.py --seconds $(SECONDS)

# Needs uv and cyclonedx-bom; tests check that the three files agree.
lock:
	head -3 requirements.lock > requirements.lock.new
	uv pip compile requirements.txt --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --quiet \
		>> requirements.lock.new
	mv requirements.lock.new requirements.lock
	cyclonedx-py requirements requirements.lock --output-reproducible --of JSON -o sbom.cdx.json

# A new environment, only the package, the demo in an empty folder; then prints the size and the time.
fresh:
	bash tests/fresh_install.sh "$(PYTHON)"

train-check: $(VENV)/.installed-dev
	$(RUN) -m pytest tests/training/check_training.py

chaos: $(VENV)/.installed-dev
	$(RUN) tests/chaos.py --kills $(KILLS)

# The tables and pictures of the README, from the results of `make demo`.
figures: $(VENV)/.installed-demo
	PYTHONPATH=tools:demo $(RUN) -m make.learn.figures

demo-bundle: $(VENV)/.installed-demo
	PYTHON="$(abspath $(VENV))/bin/python" bash demo/make/build.sh
