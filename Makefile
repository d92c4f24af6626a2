# make book   sets up, runs what changed, builds the book:  make book ARGS='-p num_experts=64'
#             the published run, shown without computing it:  make book RUN=reference
# make pdf    prints the published book to _build/runs/reference/book.pdf (needs Chromium; another run: RUN=NAME)
# make test   sets up, runs the tests
# make published  recomputes what needs no GPU of the published run, confirms what is unchanged, names the rest
# make times  what chapters and test files last took, beside their budgets
# make bench  sets up, measures the speed of the strategies and of the network engine
# make test-long   the adapter on the older transformers of the GPU machine, installed beside the pinned one; chapters as
#             jobs of a Slurm of one node (Debian: slurm-wlm, munge); mutants of the checks of input; twenty kills and all
#             bad inputs, whose tables are written to data/faults
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
TESTED := $(VENV)/.tested
SLURM := notebooks/profiles/slurm/requirements.txt
BIN := $(VENV)/bin

.PHONY: book pdf published times test test-long bench corpus clean

book: $(READY)
	@$(BIN)/python -m lib run $(if $(RUN),--name '$(RUN)') $(ARGS)

pdf: $(READY)
	@$(BIN)/python -m lib pdf $(if $(RUN),--name '$(RUN)') $(ARGS)

published: $(READY)
	@$(BIN)/python -m lib renew

times: $(READY)
	@$(BIN)/python -m lib times $(ARGS)

# whole files, the longest first, to one process more than a machine has cores, three at most: many tests wait
PROCESSES ?= $(shell n=$$(nproc); echo $$(( n < 2 ? 2 : 3 )))
test: $(TESTED)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

bench: $(TESTED)
	@$(BIN)/python -m pytest -o addopts= -q -s tests/bench_strategies.py tests/bench_network.py $(ARGS)

OLDER := _build/transformers-5.17.0
test-long: $(VENV)/.slurm $(OLDER)
	@PYTHONPATH=$(OLDER) $(BIN)/python -m pytest -q tests/test_adapter.py tests/test_rule.py tests/test_families.py $(ARGS)
	@$(BIN)/python -m pytest -q tests/long_slurm.py $(ARGS)
	@$(BIN)/python tests/mutants.py
	@$(BIN)/python tests/faults.py
	@$(BIN)/python data/inventory.py

$(OLDER): | $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $@.part transformers==5.17.0 \
	  huggingface-hub==1.33.0 && mv $@.part $@

# the text in one file, for a machine whose installed packages differ; STRIDES="4 25": of the training text that part
corpus: $(READY)
	@mkdir -p _build
	@$(BIN)/python -m lib.model.corpus _build/corpus.xz $(STRIDES)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) .ci/environment.py $@ requirements.txt

$(TESTED): $(READY) tests/requirements.txt
	@$(PYTHON) .ci/environment.py $@ requirements.txt tests/requirements.txt

$(VENV)/.slurm: $(TESTED) $(SLURM)
	@$(PYTHON) .ci/environment.py $@ requirements.txt tests/requirements.txt $(SLURM)

clean:
	rm -rf _build $(VENV)
