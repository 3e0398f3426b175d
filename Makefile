# Set-up is part of every target: `make demo` needs python3 (3.11 or newer) and pip, nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(shell test -x $(BIN)/pip && echo $(BIN)/python -m pip || echo $(PYTHON) -m pip --python $(BIN)/python)

.PHONY: demo demo-kbuild docs test dist deb sbom schema kernels boot corpus-full bench faults sabotage mutations check clean
.DEFAULT_GOAL := test

demo: $(VENV)/installed
	@sh tools/demo.sh $(BIN)/ftpatch

demo-kbuild: $(VENV)/installed
	@$(BIN)/python -m tools.demo_kbuild

# Kernels and tools are fetched before the workers start, and ftpatch is compiled once for all the programs that the tests
# start: they write no bytecode. Files come in the order that tests/conftest.py puts them in, those with boots first.
# What sends signals runs in a process of its own beside the workers, which have threads; its output follows in one piece.
test: $(VENV)/tests
	@if [ "$$CI" = true ] || [ "$$KERNELS" = 1 ]; then $(BIN)/python -m tools.kernels --tools --modules; fi
	@$(BIN)/python -m compileall -q ftpatch tools
	@$(MAKE) --no-print-directory -j2 test/workers test/alone

.PHONY: test/workers test/alone
test/workers:
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not alone" $(PYTEST)
test/alone:
	@$(BIN)/python -m pytest -m alone $(shell grep -l 'mark[.]alone' tests/test_*.py) $(PYTEST) >$(VENV)/alone.log 2>&1; \
	 code=$$?; cat $(VENV)/alone.log; exit $$code

kernels: $(VENV)/installed
	@$(BIN)/python -m tools.kernels --tools

boot: $(VENV)/tests
	@KERNELS=1 $(BIN)/python -m pytest -m boot $(PYTEST)

corpus-full: $(VENV)/tests
	@KERNELS=1 CORPUS=full $(BIN)/python -m pytest -m corpus $(PYTEST)

mutations: $(VENV)/installed
	@$(BIN)/python -m tools.mutations

faults: $(VENV)/installed
	@$(BIN)/python -m tools.faults $(FAULTS)

sabotage: $(VENV)/tests
	@$(BIN)/python -m tools.sabotage

schema: $(VENV)/installed
	@$(BIN)/python -m ftpatch.document.schema

bench: $(VENV)/installed
	@$(BIN)/python -m tools.bench $(if $(AGAINST),--against $(AGAINST))

fuzz: $(VENV)/fuzz
	@$(BIN)/python -m tools.fuzz $(FUZZ)

hostile: $(VENV)/tests
	@$(BIN)/python -m tools.hostile $(HOSTILE)

# The documentation as a site, in build/site: index.html there opens without a server. Strict: a bad link is an error.
docs: $(VENV)/docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "build/site/index.html"

# The pages of docs/reference that are made from the program; the lines of findings in them take half a minute.
reference: $(VENV)/tests
	@PYTHONPATH=. $(BIN)/python tests/rule_examples.py
	@$(BIN)/python -m tools.reference
	@PYTHONPATH=. $(BIN)/python tests/pages.py

check: $(VENV)/checks
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# Sdist and wheel in dist/, the same bytes wherever and whenever they are built: dates are the changelog's.
dist: $(VENV)/dist
	@SOURCE_DATE_EPOCH=$$($(BIN)/python -m tools.changelog) PIP_CONSTRAINT=$(CURDIR)/packaging/build-constraints.txt \
	 $(BIN)/python -m build --outdir dist
	@$(BIN)/python -m twine check --strict dist/ftpatch-$$($(BIN)/python -c 'import ftpatch; print(ftpatch.__version__)')[.-]*

# The Debian package, built from that sdist, without a complaint of lintian's.
deb: dist
	@$(BIN)/python -m tools.debian dist/ftpatch-$$($(BIN)/python -c 'import ftpatch; print(ftpatch.__version__)').tar.gz

# What an installation of that wheel holds.
sbom: dist
	@$(BIN)/python -m tools.sbom dist/ftpatch-$$($(BIN)/python -c 'import ftpatch; print(ftpatch.__version__)')-py3-none-any.whl \
	 -o dist/ftpatch.cdx.json

clean:
	rm -rf $(VENV) build dist

# A machine without ensurepip (Debian's python3 without python3-venv) gets a venv that the outer pip fills.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ftpatch needs Python 3.11 or newer: make PYTHON=python3.x")'
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	@$(MAKE) --no-print-directory install EXTRAS= STAMP=$@
$(VENV)/tests: $(VENV)/installed
	@$(MAKE) --no-print-directory install EXTRAS='[test]' STAMP=$@
$(VENV)/checks: $(VENV)/tests
	@$(MAKE) --no-print-directory install EXTRAS='[test,check]' STAMP=$@
$(VENV)/docs: $(VENV)/installed
	@$(MAKE) --no-print-directory install EXTRAS='[docs]' STAMP=$@

$(VENV)/dist: $(VENV)/installed
	@$(MAKE) --no-print-directory install EXTRAS='[dist]' STAMP=$@

$(VENV)/fuzz: $(VENV)/installed
	@$(MAKE) --no-print-directory install EXTRAS='[fuzz]' STAMP=$@

.PHONY: install fuzz hostile
install:
	@echo "installing ftpatch$(EXTRAS) into $(VENV) ..."
	@$(PIP) install --quiet --disable-pip-version-check -e '.$(EXTRAS)'
	@touch $(STAMP)
