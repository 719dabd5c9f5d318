# Two commands matter: `make demo` and `make test`. Both set up everything they need, in .venv and .cache.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A strict editable install is a real tree of links, which type checkers can follow; it knows the files that were there.
SOURCES := pyproject.toml $(wildcard schemas/rust/Cargo.* schemas/rust/src/*.rs client/*.py schemas/*.py schemas/*/* shipper/*.py ingestor/*.py explorer/*.py explorer/*/*.py cli/*.py)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# What Cargo compiles, where there is one, stays beside its sources, and has to be linked into that tree.
define install_editable
@rm -rf build/__editable__.*
@$(PIP) install --config-settings editable_mode=strict --editable '.[$(1)]'
@for compiled in $(CURDIR)/schemas/_lines*.so; do \
  if [ -e "$$compiled" ]; then ln -sf "$$compiled" build/__editable__.*/tailrace/schemas/; fi; done
endef

AUDITORS := .cache/auditors
BUILDERS := .cache/builders
COMPILE := $(AUDITORS)/bin/uv pip compile --quiet --python-version 3.13 --python-platform linux --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links

.PHONY: audit-dependencies sbom lock help demo test lint format kafka install bench bench-quick soak wheels clean

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/.runtime ## A sample service, the whole pipeline on embedded ClickHouse, a slice: in under a minute
	@$(BIN)/tailrace demo

test: lint kafka ## Everything: format, types, tests against real Kafka, real ClickHouse and the real raymon client
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install ## Put the code into its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

kafka: install ## Fetch Apache Kafka from Maven Central, and Java and Maven where that is possible
	@cd tests && ../$(BIN)/python -m support.kafka

install: $(VENV)/.development ## Everything for development, in .venv

bench: install kafka ## Everything measured beside its peers, in a quarter of an hour; FLUENT_BIT names that peer's binary
	@cd tests && ../$(BIN)/python -m benchmarks

bench-quick: install kafka ## The same with so few lines that it takes two minutes, and says little
	@cd tests && ../$(BIN)/python -m benchmarks --quick

soak: install kafka ## The long runs
	$(BIN)/python -m pytest -m soak

lock: $(AUDITORS)/.installed ## What the image is made of, newest versions with their hashes, as deploy/*.lock
	$(COMPILE) --upgrade --extra shipper --extra ingestor --extra explorer --extra otel --output-file deploy/requirements.lock pyproject.toml
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' | $(COMPILE) --upgrade --no-annotate --output-file deploy/build.lock -

audit-dependencies: $(AUDITORS)/.installed ## Known vulnerabilities of the image and of tailrace[all]; asks PyPI
	$(COMPILE) --extra all --output-file .cache/all.lock pyproject.toml
	@$(AUDITORS)/bin/pip-audit --strict --progress-spinner off --disable-pip --require-hashes \
	    -r deploy/requirements.lock -r .cache/all.lock \
	  || { echo "Not all is well: either a vulnerability is named above, or PyPI's service for them cannot be asked from here (it says" \
	            "'could not be audited' or 'connection' then), and nothing was looked at."; exit 1; }

# Without validation: it fetches schemas, and waits for ever where it cannot.
sbom: $(AUDITORS)/.installed ## What the image holds, as .cache/sbom.json (CycloneDX); asks nobody
	$(AUDITORS)/bin/cyclonedx-py requirements --no-validate --output-reproducible --pyproject pyproject.toml \
	    --output-file .cache/sbom.json deploy/requirements.lock

wheels: $(BUILDERS)/.installed ## dist/: wheels with the compiled decoder, and one without it for all other machines
	deploy/wheels.sh $(CURDIR)/$(BUILDERS)/bin/python $(CURDIR)/dist

clean: ## Remove what was set up
	rm -rf $(VENV) .cache build dist *.egg-info schemas/_lines*.so schemas/rust/target .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tailrace needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && echo "installing python3-venv" && apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null \
	       && $(PYTHON) -m venv --clear $(VENV); } \
	  || { rm -rf $(VENV); echo "python3 cannot make virtual environments: apt-get install python3-venv"; exit 1; }

# They have dependencies of their own, which are no part of what is looked at.
$(AUDITORS)/.installed: Makefile | $(VENV)/bin/python
	@$(BIN)/python -m venv --clear $(AUDITORS)
	@$(AUDITORS)/bin/python -m pip --disable-pip-version-check --quiet install 'pip-audit>=2.7,<3' 'cyclonedx-bom>=5,<8' 'uv>=0.5,<1'
	@touch $@

$(BUILDERS)/.installed: | $(VENV)/bin/python
	@$(BIN)/python -m venv --clear $(BUILDERS)
	@$(BUILDERS)/bin/python -m pip --disable-pip-version-check --quiet install 'build>=1.2,<2' 'ziglang>=0.13,<1' 'auditwheel>=6,<7'
	@touch $@

$(VENV)/.runtime: $(VENV)/bin/python $(SOURCES)
	@echo "installing Tailrace into $(VENV) (the first time this takes a minute)"
	$(call install_editable,all)
	@touch $@

$(VENV)/.development: $(VENV)/bin/python $(SOURCES)
	@echo "installing Tailrace for development into $(VENV) (the first time this takes a minute)"
	$(call install_editable,dev)
	@touch $@ $(VENV)/.runtime
