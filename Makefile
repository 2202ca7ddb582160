# make demo: speak one sentence from a bare machine. make test: every check. make serve: the server in the foreground.
# make test-gpu: what only a GPU shows.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo cuda || echo cpu)
MODEL_DIR ?=
ARGS ?=
MODEL := $(if $(MODEL_DIR),--model_dir $(MODEL_DIR))

GPU_TESTS := tests/gpu/test_server.py tests/gpu $(addprefix tests/test_,packed_flow.py packed_dit_flow.py packed_vocoder.py \
	token_draw_kernel.py fused_decode.py prompt_step.py placement.py vllm_contract.py scheduler.py)

.PHONY: demo serve test pytest test-gpu browser lint env clean

demo: env
	$(BIN)/python -m server.demo $(MODEL) --output demo.wav

serve: env
	$(BIN)/python -m server $(MODEL) $(ARGS)

test: env browser
	$(MAKE) --jobs=2 lint pytest

pytest: env
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-gpu: env
	@nvidia-smi -L >/dev/null 2>&1 || { echo "make test-gpu needs a GPU, and nvidia-smi finds none"; exit 1; }
	$(BIN)/python -m pytest -v -n 3 --dist loadfile --no-loadscope-reorder $(GPU_TESTS)

browser:  # the playground's tests need it; they are skipped where it can't be had
	-@command -v chromedriver >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium chromium-driver; }

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

env: $(VENV)/$(DEVICE).installed

$(VENV)/$(DEVICE).installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --editable '.[$(DEVICE),test]' \
		$(if $(filter cpu,$(DEVICE)),--override <(echo torch==2.13.0))
	touch $@

clean:
	rm -rf $(VENV) demo.wav
