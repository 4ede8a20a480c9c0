# make book [SCALE=smoke|laptop|paper]   the book, in _build/html
# make test                              unit tests, then every chapter as a notebook, at smoke scale
# make units                             the unit tests alone
# make lint                              ruff, over code and tests
# make records [SCALE=…]                 only the recorded experiments; resumes where it stopped
# make bench                             how long the parts take, on an idle machine
# make finding                           README's figure and lines anew from the records
# make site-check                        read the built book in Chromium and list what is wrong
# make pdf                               the built book as one PDF, in _build/dnabook.pdf (needs Chromium)
# make pairs                             rewrite book/*.ipynb from book/*.md
# make address [REPO=owner/name]         show, or set everywhere, the repository's address
# make clean                             remove what was built and recorded at smoke scale
PYTHON ?= python3
SCALE ?= $(or $(DNABOOK_SCALE),laptop)
OPTIONS ?=
SPREAD ?= -n auto --maxprocesses 4
BIN := .venv/bin
# At smoke scale the chapters' own cells train on few images and attack in few steps: the kernels read this first.
FEW := PYTHONSTARTUP="$(CURDIR)/tests/few_images.py"
PAGES := book/intro.md $(wildcard book/[0-9]*.md) book/conclusion.md book/scoreboard.md book/errata.md book/status.md book/costs.md

.PHONY: book test units lint records site-check pdf pairs address bench finding clean

book: records
	DNABOOK_SCALE=$(SCALE) TQDM_DISABLE=1 $(if $(filter smoke,$(SCALE)),$(FEW)) $(BIN)/jupyter-book build . --all $(OPTIONS)
	@echo
	@echo "The book is built: open $(CURDIR)/_build/html/index.html"

records: .venv/.ok
	DNABOOK_SCALE=$(SCALE) $(BIN)/python -m dnabook run all

units: .venv/.ok
	DNABOOK_SCALE=smoke TQDM_DISABLE=1 $(SMOKE_RECORDS) $(BIN)/python -m pytest -q $(SPREAD) --dist loadfile --no-loadscope-reorder

# Records of an earlier state of the code would hide what is broken in this one, so they go first; what the unit
# tests recorded comes in their place. Notebooks run beside each other, with a thread each: with more they would
# wait for each other at every step.
test:
	rm -f book/results/*-smoke.*
	$(MAKE) units SMOKE_RECORDS=SMOKE_RECORDS="$(CURDIR)/book/results"
	DNABOOK_SCALE=smoke TQDM_DISABLE=1 $(BIN)/python -m dnabook run all
	OMP_NUM_THREADS=1 DNABOOK_SCALE=smoke TQDM_DISABLE=1 $(FEW) $(BIN)/python -m pytest -q $(SPREAD) --maxschedchunk 1 \
		--nbmake --nbmake-timeout=600 -o timeout=1200 book

lint: .venv/.ok
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

site-check: .venv/.ok
	$(BIN)/python tools/site_check.py

pdf: .venv/.ok
	$(BIN)/python tools/pdf.py

address: .venv/.ok
	$(BIN)/python tools/address.py $(REPO)

pairs: .venv/.ok
	$(BIN)/jupytext --quiet --update --to ipynb $(PAGES)

# torchattacks pins an old `requests` that it does not need here, so it comes without its dependencies.
# An environment that is there and works is added to, never deleted; pip comes into it where it is missing.
.venv/.ok: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "dnabook needs Python 3.10 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv; this takes a few minutes the first time"
	@$(BIN)/python -c '' > /dev/null 2>&1 || { rm -rf .venv && if command -v uv > /dev/null; \
		then uv venv --quiet --seed --python "$$(command -v $(PYTHON))" .venv; else $(PYTHON) -m venv .venv; fi; }
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@if command -v uv > /dev/null; then install="uv pip install --quiet --python $(BIN)/python"; \
		else install="$(BIN)/python -m pip install --quiet --disable-pip-version-check"; fi && \
		$$install -r requirements.txt -e . && $$install --no-deps "torchattacks>=3.5"
	@touch $@

clean:
	rm -rf _build .pytest_cache .hypothesis book/results/*-smoke.* book/results/.*.lock

bench: .venv/.ok
	$(BIN)/python benchmarks/speed.py

# README's figure and the lines that say what was found, from the largest recorded scales.
finding: .venv/.ok
	$(BIN)/python tools/finding.py
