# Everything runs in .venv, which `make setup` makes and every target sees to. With
# PYTHON=python3.13 or QT=pyside6 it is another environment, beside it.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long lint docs wheel pictures bench gpu results napari \
	constraints clean

PYTHON ?=
QT ?= pyqt6
export PYTHON QT
VENV := .venv$(if $(PYTHON),-$(notdir $(PYTHON)))$(if $(filter-out pyqt6,$(QT)),-$(QT))
export VENV
BIN := $(VENV)/bin
RUN := $(VENV)/.ready-run
DEV := $(VENV)/.ready-dev
INPUTS := pyproject.toml constraints.txt scripts/setup.sh
# One process per core, up to four: each takes up to 2 GB.
PARALLEL ?= -n logical --maxprocesses 4 --dist worksteal

PROSE := README.md CHANGELOG.md CONTRIBUTING.md docs/*.md docs/cli docs/results src tests \
	scripts benchmarks

# Containers often forbid bytecode; without it, each start takes ten seconds for torch.
unexport PYTHONDONTWRITEBYTECODE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | \
		awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

$(RUN): $(INPUTS)
	scripts/setup.sh run

$(DEV): $(INPUTS)
	scripts/setup.sh dev

setup: $(DEV) ## make .venv with the package, its viewer and all tools

demo: $(RUN) ## the whole main job on a generated slide, with a report in demo/
	$(BIN)/napari-mcm demo --out demo

test: $(DEV) ## all tests, the viewer's under Xvfb; ARGS="-k grid" for some, "-n 0" for one process; PYTHON=python3.13, QT=pyside6
	QT_API=$(QT) scripts/with_display.sh $(BIN)/python -m pytest $(PARALLEL) --durations=25 $(ARGS)

test-long: $(DEV) wheel ## the long sweeps as well, and the wheel in a bare environment: an hour or two
	NAPARI_MCM_TEST_LONG=1 QT_API=$(QT) scripts/with_display.sh $(BIN)/python -m pytest \
		$(PARALLEL) --durations=25 $(ARGS)
	scripts/try_wheel.sh

wheel: $(DEV) ## the wheel in dist/
	rm -rf dist
	$(BIN)/uv build --wheel --out-dir dist

lint: $(DEV) ## style, format, docstrings, language, types and floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/numpydoc lint --config . $$(find src/napari_mcm/core -name '*.py')
	$(BIN)/python scripts/check_language.py
	$(BIN)/codespell $(PROSE)
	$(BIN)/lint-imports
	$(BIN)/mypy

docs: $(DEV) ## the documentation in docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

pictures: $(DEV) ## take the pictures of the program anew; ARGS="--only mil" for some
	scripts/with_display.sh $(BIN)/python docs/make_pictures.py $(ARGS)

bench: $(DEV) ## the measurements in benchmarks/, one after the other
	@set -e; for script in $(filter-out benchmarks/gpu.py,$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; scripts/with_display.sh $(BIN)/python $$script; \
	done

gpu: $(DEV) ## everything to be known of a GPU, in under 12 minutes; DATA=shared/data WORK=gpu
	$(BIN)/python -m benchmarks.gpu --data $(or $(DATA),../shared/data) --out $(or $(WORK),gpu)

results: $(DEV) ## the project's studies and docs/results.md; DATA= WORK= STUDIES= ARGS="--only mil"
	$(BIN)/python -m benchmarks.results --data $(or $(DATA),../shared/data) --work $(or $(WORK),results) \
		--studies $(or $(STUDIES),studies) $(ARGS)

napari: $(RUN) ## napari with the plugin; SLIDES="a.svs b.tiff" to open some
	$(BIN)/napari-mcm view $(SLIDES)

constraints: $(DEV) ## write the versions that are installed now to constraints.txt
	@echo "# The versions that the tests ran with; \`make constraints\` writes them anew." \
		> constraints.txt
	@$(BIN)/uv pip freeze --python $(BIN)/python --exclude-editable | \
		grep -E '^[A-Za-z0-9._-]+==' | grep -vE '^pip==' >> constraints.txt

clean: ## remove outputs and caches; keeps .venv
	rm -rf demo docs/_build build dist .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
