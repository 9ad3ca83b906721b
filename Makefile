PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Most tests wait for something, so that more run at once than there are cores.
PROCESSES ?= 3

.DEFAULT_GOAL := help

$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it with: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "The venv module is needed; on Debian: apt-get install python3-venv"; exit 1; }
	@$(PIP) --require-hashes -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

.PHONY: help
help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(READY) ## Issue and verify certificates against a simulator on this machine
	@$(BIN)/sectigo-async demo

.PHONY: test
test: $(READY) ## Run the tests
	@$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile

.PHONY: keyring
keyring: $(READY) ## Run the tests that need a real keyring (gnome-keyring, dbus, libsecret-tools)
	@SECTIGO_TEST_REQUIRE=keyring $(BIN)/python -m pytest -m keyring

.PHONY: long
long: $(READY) ## Run the property tests with ten thousand examples and more
	@$(BIN)/python -m pytest -m long

.PHONY: soak
soak: $(READY) ## Run the tests that take minutes of real time
	@$(BIN)/python -m pytest -m soak -s

.PHONY: chaos
chaos: $(READY) ## Kill bulk runs at every point and at random, and count what was ordered
	@$(BIN)/python -m pytest -m chaos -s

.PHONY: bench
bench: $(READY) ## Measure every figure beside its peer, and print the table
	@$(BIN)/python -m benchmarks.bench

.PHONY: reference
reference: $(READY) ## Write docs/cli.md from the commands, and the pictures in docs/images
	@$(BIN)/python docs/cli.py
	@$(BIN)/python docs/house.py
	@$(BIN)/python docs/pictures.py

.PHONY: docs
docs: $(READY) ## Build the documentation into site/; a broken link fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Of one commit come the same files anywhere and at any time: the second pair is built from what is committed alone.
.PHONY: dist
dist: $(READY) ## Build wheel and source distribution, twice, and compare
	@rm -rf dist build
	@mkdir -p build/again
	@git archive HEAD | (umask 077 && tar -x -C build/again)
	@export SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct); for place in . build/again; do \
		$(BIN)/python -m build --no-isolation --outdir $$place/dist $$place >build/log 2>&1 || { cat build/log; exit 1; }; \
	done
	@cd dist && sha256sum * | tee ../build/SHA256SUMS
	@cd build/again/dist && sha256sum --check --quiet ../../SHA256SUMS || \
		{ echo "What is built here is not what is committed"; exit 1; }

.PHONY: wheel
wheel: dist ## Test the wheel without extras and with all, on this Python, with pinned versions
	@$(BIN)/nox -s wheel -k 'pinned and (none or all)' -p $$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.PHONY: wheels
wheels: dist ## Test the wheel on every Python at hand, with every extra, lowest and newest versions
	@$(BIN)/nox --no-error-on-missing-interpreters -s wheel -t lowest newest

.PHONY: sbom
sbom: dist ## Write the bill of materials of the wheel to dist/
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/nox -s sbom

.PHONY: lock
lock: $(READY) ## Renew requirements/ and constraints.txt from pyproject.toml; UPGRADE=1 takes the newest versions
	@$(BIN)/nox -s lock -- $(if $(UPGRADE),--upgrade)

.PHONY: check
check: $(READY) ## Check style, types, import directions, and that no secret shows
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/pyright
	@$(BIN)/python tests/typing/completeness.py
	@$(BIN)/lint-imports
	@$(BIN)/python docs/cli.py --check
	@$(BIN)/python docs/house.py --check
	@$(BIN)/python -m pytest -q -m canary
