# The verbs of the project; `make help` lists them. The first use of any of them sets up .venv, later uses find it ready.
#   PYTHON=python3.12       another interpreter, 3.11 or newer
#   TORCH="torch==2.11.0"   another torch: a version, a range, a file
#   PIP_ARGS="..."          more options for pip, such as another index
# NAME and TORCH are values: they reach commands through the environment, as they are, and never as text of the shell or of make.
# ARGS, PIP_ARGS and PYTHON are words of your shell: ARGS="--only 'geat-*'".

PYTHON ?= python3
NAME ?= quickstart
ARGS ?=
TORCH ?=
PIP_ARGS ?=

override NAME := $(value NAME)
override TORCH := $(value TORCH)
export NAME TORCH

BIN := .venv/bin
STAMP := .venv/.ready
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
VERBS := help study plan status evaluate figures report tune scale dashboard test lint setup
.PHONY: $(VERBS)
MAKEFLAGS += --no-print-directory

help:  ## list the verbs
	@echo "usage: make VERB [NAME=study] [ARGS=\"options of sapis\"]"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-16s %s\n", $$1, $$2}'
	@echo
	@echo "examples: make study NAME=quickstart"
	@echo "          make plan NAME=rmd17-ethanol ARGS=\"--set train.steps=500\""
	@echo "          make study NAME=quickstart ARGS=\"--retry-failed\""

study: $(STAMP)  ## run the study studies/NAME.yaml to its report, or continue it
	@$(BIN)/sapis study run "$$NAME" $(ARGS)

plan: $(STAMP)  ## print every point with N, D, FLOPs, time and disk; spends nothing
	@$(BIN)/sapis study plan "$$NAME" $(ARGS)

status: $(STAMP)  ## print how far a study has come
	@$(BIN)/sapis study status "$$NAME" $(ARGS)

evaluate: $(STAMP)  ## measure more of the points that are done, as the study's evaluate: says
	@$(BIN)/sapis evaluate "$$NAME" $(ARGS)

figures: $(STAMP)  ## draw the figures again from results/NAME; trains nothing
	@$(BIN)/sapis figures "$$NAME" $(ARGS)

report: $(STAMP)  ## write the report again from results/NAME; trains nothing
	@$(BIN)/sapis report "$$NAME" $(ARGS)

tune: $(STAMP)  ## search for good settings of the study, as its tune: section says, or continue
	@$(BIN)/sapis tune "$$NAME" $(ARGS)

scale: $(STAMP)  ## scale a model by itself, as the study's scale: section says, or continue
	@$(BIN)/sapis scale "$$NAME" $(ARGS)

dashboard: $(STAMP)  ## look at the trials of a tuning in a browser (needs the extra dash)
	@$(BIN)/sapis dashboard "$$NAME" $(ARGS)

test: lint  ## check style and pass all tests
	@$(BIN)/python -m pytest -q -n 2 $(ARGS)

lint: $(STAMP)  ## check style, format and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { echo "error: files are not formatted; run $(BIN)/ruff format"; exit 1; }
	@$(BIN)/mypy --no-error-summary

setup: $(STAMP)  ## set up .venv; every other verb does it by itself

# A change of torch is a change of the environment: the choice is remembered beside the stamp.
ifneq ($(TORCH),$(file <.venv/.torch))
ifneq ($(TORCH),)
$(STAMP): .torch-changed
.PHONY: .torch-changed
.torch-changed:
endif
endif

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: $(PYTHON) is $$($(PYTHON) --version 2> /dev/null | head -1 | grep . || echo missing); sapis_lab needs Python 3.11 or newer."; \
	  echo "       Name another one: make $(firstword $(filter $(VERBS),$(MAKECMDGOALS)) VERB) PYTHON=python3.12"; exit 2; }
	@echo "setting up .venv (the first time takes a few minutes; log in .venv/setup.log)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv .venv || { echo "error: $(PYTHON) cannot make a virtual environment; install its venv package"; exit 2; }
	@$(call install) > .venv/setup.log 2>&1 || { tail -20 .venv/setup.log; echo "error: the set-up failed; see .venv/setup.log, and run make again to continue"; exit 2; }
	@printf '%s' "$$TORCH" > .venv/.torch
	@touch $@
	@echo "ready: $$($(BIN)/python -c 'import sys, importlib.metadata as m; print("Python", sys.version.split()[0] + ", torch", m.version("torch"))')"

ifeq ($(TORCH),)
install = $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[xtb,dev]'
else
install = grep -v -e '^torch==' -e '^triton==' constraints.txt > .venv/constraints.txt && $(BIN)/python -m pip install --disable-pip-version-check $(PIP_ARGS) -c .venv/constraints.txt "$$TORCH" -e '.[xtb,dev]'
endif
