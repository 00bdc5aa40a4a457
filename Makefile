# PGO Crash Lab. `make report` and `make test` need git, make, Python 3.11 or later with
# venv, libc headers and crt files, and network; everything else they install themselves.

PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/python -m
STAMP := .venv/.installed
# The notebooks are compared in copies that have the solutions of their exercises, too.
SOLVED = $(RUN) tests.support.solved build/solved
NBVAL = PGO_LAB_QUIET=1 $(RUN) pytest -n auto --dist loadscope --nbval --nbval-current-env \
	--nbval-cell-timeout=300 --nbval-sanitize-with tests/notebooks/sanitize.cfg -p no:assertion -p tests.notebooks.brief build/solved

# `make test` leaves out the slow ones, and those of what only `make report-all` does.
# tests/conftest.py says which files come first.
MARKED := -m 'not slow and not whole and not network'
PYTEST = $(RUN) pytest -n auto --dist loadfile --no-loadscope-reorder --durations=15 $(MARKED)

# What a recipe says when something of the system is missing: what, and four ways to get it.
missing = { printf '%s\n' "make: missing: $(1)" "  Debian, Ubuntu: apt-get install $(2)" \
	"  Fedora:         dnf install $(3)" "  macOS:          $(4)" >&2; exit 1; }

define need_python
@command -v $(PYTHON) >/dev/null || \
$(call missing,$(PYTHON),python3 python3-venv,python3,brew install python)
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
$(call missing,Python 3.11 or later ($$($(PYTHON) --version) is too old; make PYTHON=python3.12 takes another),python3.11-venv,python3.12,brew install python)
@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
$(call missing,Python venv,python3-venv,python3,brew install python)
endef

# Modules stay compiled, whatever the caller's environment says: a report starts some forty Pythons,
# and each would compile pandas anew, in 1.5 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help report report-all site test test-all quick lint pytest nbval bench fuzz wheel dist lab refresh record lock clean install toolchains again

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

# 1: claims changed, which is news and in the report; 3: a notebook failed.
run = code=0; $(BIN)/pgo-lab run $(1) -o build/run --site build/site || code=$$?; \
	if test $$code -ne 1; then exit $$code; fi

report: toolchains ## Run the notebooks, build the site, print where it is and the verdict
	@$(call run)

test: lint pytest nbval ## Check style and types, run the tests, then the notebooks (nbval)

quick: lint toolchains ## The same of what changed since the last commit only: in 90 s, before a commit
	@tests=$$($(RUN) tests.support.changed tests) || exit; \
	notebooks=$$($(RUN) tests.support.changed notebooks) || exit; set -e; \
	test -z "$$tests" || $(PYTEST) $$tests; \
	test -z "$$notebooks" || { $(SOLVED) $$notebooks; $(NBVAL); }

test-all: MARKED := -m 'not network'
test-all: test ## The same, and the tests that take longer

report-all: toolchains ## The same with all that takes long: each allocator, orjson, each rustc
	@$(call run,-p scope=whole)

site: install ## Build the site of the last run (build/run), or of the recorded one
	@$(BIN)/pgo-lab report $(if $(wildcard build/run/manifest.json),build/run,recorded) -o build/site

lint: install ## Check style, types, floors and unused code only
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(BIN)/lint-imports --no-logo
	$(RUN) tests.support.unused
	$(BIN)/shellcheck data/build_pgo.sh .ci/run

pytest: toolchains ## Run the tests only
	$(PYTEST)

nbval: toolchains ## Compare the committed notebooks with a fresh execution only
	$(SOLVED)
	$(NBVAL)

bench: toolchains ## Measure what the project promises to be fast at
	@$(BIN)/pgo-lab toolchains --install all >/dev/null
	$(BIN)/python -m tests.bench

fuzz: SECONDS ?= 600
fuzz: toolchains ## Fuzz the readers of profiles and object files (Linux; SECONDS=600 each)
	$(RUN) uv pip install -q --target build/fuzz/lib --require-hashes -r tests/support/fuzz.lock
	PYTHONPATH=build/fuzz/lib $(BIN)/python -m tests.support.fuzz $(SECONDS)

wheel: ## Build the wheel, which `uvx --from dist/*.whl pgo-lab audit target/` runs anywhere
	$(need_python)
	@$(PYTHON) -m venv --clear build/packaging
	@build/packaging/bin/python -m pip install -q --disable-pip-version-check --no-deps \
		--require-hashes -r .github/base.lock
	build/packaging/bin/python -m hatchling build $(or $(FORMATS),-t wheel) -d dist

dist: FORMATS = -t wheel -t sdist
dist: wheel ## Build the wheel and the source package

lab: toolchains ## Open JupyterLab on the notebooks (this machine only, with a token)
	@$(BIN)/jupyter-trust notebooks/*.ipynb >/dev/null  # else their pictures show only when run
	JUPYTER_CONFIG_PATH=$(CURDIR)/data/jupyter$${JUPYTER_CONFIG_PATH:+:$$JUPYTER_CONFIG_PATH} \
		$(RUN) jupyterlab --ip=127.0.0.1 --notebook-dir=notebooks \
		$(if $(filter 0,$(shell id -u)),--allow-root)

refresh: toolchains ## Execute the committed notebooks again, and normalize them
	$(BIN)/pgo-lab dev refresh notebooks

record: report-all ## Make this machine's run the recorded one (data/recorded)
	$(BIN)/pgo-lab dev record build/run

# rfc3987-syntax: an optional check of JSON schemas, that takes a second of every process
# with notebooks in it (it builds 38 grammars when imported).
lock: install ## Resolve requirements.lock again (UPGRADE=--upgrade for newer versions)
	echo 'rfc3987-syntax ; python_version < "3"' | $(RUN) uv pip compile pyproject.toml \
		--all-extras --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --override /dev/stdin $(UPGRADE) -q -o requirements.lock
	$(RUN) uv pip compile pyproject.toml --extra build --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-header --constraint requirements.lock -q -o .github/base.lock

clean: ## Remove what was made here; LLVMs stay (pgo-lab toolchains --prune removes them)
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find nbsupport tests -name __pycache__ -exec rm -rf {} +

toolchains: install
	@test "$$(uname)" = Darwin && xcode-select -p >/dev/null 2>&1 || \
	{ ls /usr/include/stdio.h && ls /usr/lib/*/crt1.o /usr/lib64/crt1.o /usr/lib/crt1.o | grep -q .; } \
		>/dev/null 2>&1 || \
	$(call missing,libc headers and crt files,libc6-dev,glibc-devel,xcode-select --install)
	@$(BIN)/pgo-lab toolchains --install report >/dev/null

install: $(STAMP)
	@:

# The stamp says from where it was installed: a checkout that was moved, or whose Python
# is gone, is installed again.
ifneq ($(shell $(BIN)/python -c '' 2>/dev/null && cat $(STAMP) 2>/dev/null),$(CURDIR))
$(STAMP): again
endif

# Each step of uv twice at most: seldom, uv crashes at its very end (seen with 0.13.9).
# An environment without its stamp was interrupted: from nothing again. With it, only what
# changed in the lock.
$(STAMP): requirements.lock pyproject.toml
	$(need_python)
	@start=$$(date +%s); set -e; \
	if ! { test "$$(cat $(STAMP) 2>/dev/null)" = '$(CURDIR)' && $(BIN)/python -m uv -V; } >/dev/null 2>&1; then \
		echo "installing into .venv: $$(grep -c == requirements.lock) packages, about 300 MB to download, 850 MB on disk" >&2; \
		$(PYTHON) -m venv --clear .venv; \
		sed -n '/^uv==/,/[^\\]$$/p' requirements.lock >.venv/uv.txt; \
		$(RUN) pip install -q --disable-pip-version-check --no-deps --require-hashes -r .venv/uv.txt; \
	fi; \
	rm -f $(STAMP); \
	sync="$(RUN) uv pip sync -q --python $(BIN)/python --require-hashes requirements.lock"; \
	mine="$(RUN) uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e ."; \
	$$sync || $$sync; \
	$$mine || $$mine; \
	echo '$(CURDIR)' >$(STAMP); \
	echo "installed in $$(($$(date +%s) - start)) s" >&2
