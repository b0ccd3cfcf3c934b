# `make demo` and `make test` do everything on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test floors soak screenshots bench lint style golden build clean

demo: $(VENV)/demo
	$(BIN)/python demo.py

test: $(VENV)/dev  ## in two processes, file by file; ARGS="-n 0 tests/test_crf.py" for one
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

comma := ,
EXTRAS ?= demo,train,dev
# Old packages use what newer ones beside them deprecate, and PyTorch 2.10 warns of what it loads itself.
floors: $(VENV)/dev  ## the tests with the oldest versions allowed; EXTRAS=demo,train,dev,onnx for those of the export
	$(PYTHON) -m venv --clear $(VENV)/floors
	$(BIN)/python -m tests.floors $(subst $(comma), ,$(EXTRAS)) >$(VENV)/floors/constraints.txt
	$(VENV)/floors/bin/python -m pip install --quiet --disable-pip-version-check -c $(VENV)/floors/constraints.txt -e ".[$(EXTRAS)]"
	$(VENV)/floors/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -W ignore::DeprecationWarning -W "ignore:The given buffer is not writable" $(ARGS)

soak: $(VENV)/dev  ## twenty visitors for two minutes, on each runtime
	$(BIN)/python -m pytest -m slow -s tests/test_soak.py

screenshots: $(VENV)/dev  ## of the running page, for the README; needs Debian's chromium
	$(BIN)/python -m tests.screenshots

bench: $(VENV)/dev $(VENV)/oracle  ## needs a C++ compiler and the machine to itself
	$(BIN)/python -m training.bench_crf
	$(BIN)/python -m training.bench_refine
	$(BIN)/python -m training.bench_page
	$(BIN)/python -m training.bench_load
	$(BIN)/python -m training.bench_models

lint: $(VENV)/dev  ## checks, never edits
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/dev  ## edits
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/dev  ## rewrites the golden label maps; read the difference before keeping it
	$(BIN)/python -m tests.golden.regenerate

build: $(VENV)/dev  ## from nothing: build/ keeps modules that were deleted since
	rm -rf build
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) build dist *.egg-info

# Stamps: installed again only when the dependencies change.
$(VENV)/demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[demo]"
	touch $@

$(VENV)/dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[demo,train,onnx,dev]"
	touch $@

$(VENV)/oracle: pyproject.toml | $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[oracle]"
	touch $@

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
