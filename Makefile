# make book [SCALE=smoke|laptop|paper]   the book, in _build/html
# make test                              unit tests, then every chapter as a notebook, at smoke scale
# make records [SCALE=…]                 only the recorded experiments; resumes where it stopped
# make bench                             how long the parts take, on an idle machine
# make pairs                             rewrite book/*.ipynb from book/*.md
PYTHON ?= python3
SCALE ?= laptop
OPTIONS ?=
BIN := .venv/bin
PAGES := book/intro.md $(wildcard book/[0-9]*.md) book/scoreboard.md book/errata.md book/status.md book/costs.md

.PHONY: book test records pairs bench finding clean

book: records
	DNABOOK_SCALE=$(SCALE) TQDM_DISABLE=1 $(BIN)/jupyter-book build . --all $(OPTIONS)
	@echo
	@echo "The book is built: open $(CURDIR)/_build/html/index.html"

records: .venv/.ok
	DNABOOK_SCALE=$(SCALE) $(BIN)/python -m dnabook run all

test: .venv/.ok
	DNABOOK_SCALE=smoke TQDM_DISABLE=1 $(BIN)/python -m pytest -q
	DNABOOK_SCALE=smoke TQDM_DISABLE=1 $(BIN)/python -m pytest -q --nbmake --nbmake-timeout=600 -o timeout=1200 book

pairs: .venv/.ok
	$(BIN)/jupytext --quiet --update --to ipynb $(PAGES)

# torchattacks pins an old `requests` that it does not need here, so it comes without its dependencies.
.venv/.ok: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "dnabook needs Python 3.10 or newer; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@echo "Installing into .venv; this takes a few minutes the first time"
	rm -rf .venv
	@if command -v uv > /dev/null; then \
		uv venv --quiet --seed --python "$$(command -v $(PYTHON))" .venv && \
		uv pip install --quiet --python $(BIN)/python -r requirements.txt -e . && \
		uv pip install --quiet --python $(BIN)/python --no-deps "torchattacks>=3.5"; \
	else \
		$(PYTHON) -m venv .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e . && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "torchattacks>=3.5"; \
	fi
	@touch $@

clean:
	rm -rf _build .pytest_cache .hypothesis book/results/*-smoke.*

bench: .venv/.ok
	$(BIN)/python benchmarks/speed.py

# The README's figure, from the largest recorded scale.
finding: .venv/.ok
	$(BIN)/python -c "from dnabook import figures, records; \
		figures.transfer(records.best('transfer')).savefig('book/static/finding.png')"
