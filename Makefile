# make book   sets up, runs what changed, builds the book:  make book ARGS='-p num_experts=64'
#             the published run, shown without computing it:  make book RUN=reference
# make test   sets up, runs the tests
# make bench  sets up, measures the speed of the strategies and of the network engine
# make test-long   the adapter on the older transformers of the GPU machine, installed beside the pinned one
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
BIN := $(CURDIR)/$(VENV)/bin

.PHONY: book test test-long bench corpus clean

book: $(READY)
	@$(BIN)/python -m lib run $(if $(RUN),--name '$(RUN)') $(ARGS)

test: $(READY)
	@$(BIN)/python -m pytest -q $(ARGS)

bench: $(READY)
	@$(BIN)/python -m pytest -o addopts= -q -s tests/bench_strategies.py tests/bench_network.py $(ARGS)
OLDER := _build/transformers-5.17.0
test-long: $(READY) $(OLDER)
	@PYTHONPATH=$(OLDER) $(BIN)/python -m pytest -q tests/test_adapter.py tests/test_rule.py tests/test_families.py $(ARGS)

$(OLDER): | $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@.part transformers==5.17.0 \
	  huggingface-hub==1.33.0 && mv $@.part $@

# the text in one file, for a machine whose installed packages differ; STRIDES="4 25": of the training text that part
corpus: $(READY)
	@mkdir -p _build
	@$(BIN)/python -m lib.model.corpus _build/corpus.xz $(STRIDES)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'make: Python %d.%d: must be 3.11 or newer (make PYTHON=…)' % sys.version_info[:2])"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.txt into $(VENV) (a few minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.txt 2>&1 \
	  | awk '/^Collecting/ { printf "\r  %d packages", ++n; fflush() } /^Installing/ { printf ", installing"; fflush() } \
	         /^ERROR/ { print } END { print "" }'
	@touch $(READY)

clean:
	rm -rf _build $(VENV)
