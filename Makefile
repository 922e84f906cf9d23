# What there is to do: run, demo, test, check, bench, soak, lock, migration, clean.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
APT_PACKAGES := chromium curl nginx-light postgresql redis-server
NODE_MODULES := tests/clients/node_modules

.PHONY: run demo test check bench soak lint lock migration clean system-packages node-packages

run: $(VENV)/.runtime
	@exec $(BIN)/dragoman run

# Against the simulator; with the models that play one part each: make demo ARGS=--scenarios
demo: $(VENV)/.runtime
	@exec $(BIN)/dragoman demo $(ARGS)

test: $(VENV)/.test system-packages node-packages
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/.test system-packages node-packages lint
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov --cov-report=term:skip-covered

# Dragoman beside its peers: make bench ARGS=--quick
bench: $(VENV)/.test
	$(BIN)/python -m bench $(ARGS)

# Mixed traffic, faults and attacks, and books that must balance: make soak MINUTES=30 ARGS="--kills --attack --json soak.json"
# What each attack does alone: .venv/bin/python -m soak.alone --nginx
MINUTES ?= 10
soak: $(VENV)/.test
	$(BIN)/python -m soak --minutes $(MINUTES) $(ARGS)

lint: $(VENV)/.test
	$(BIN)/ruff format --check --config .ci/ruff.toml .
	$(BIN)/ruff check --config .ci/ruff.toml .
	$(BIN)/mypy

# The files behind the lock: requirements.lock installs the gateway, requirements-test.lock what its tests need too.
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-strip-extras \
	--no-emit-index-url --no-emit-find-links
lock: $(VENV)/.test
	$(LOCK) setup.py .ci/build.in --output-file requirements.lock
	$(LOCK) setup.py .ci/build.in --extra test --extra dev --constraint requirements.lock --output-file requirements-test.lock

# A new revision from what changed in app/storage/tables.py: make migration m="what it does"
migration: $(VENV)/.runtime
	$(BIN)/python -c "from app import create_storage_app; from app.settings import Settings; \
	  from app.storage.migrate import upgrade, with_migrations; import flask_migrate; \
	  app = with_migrations(create_storage_app(Settings.from_environment())); upgrade(app); \
	  app.app_context().push(); flask_migrate.migrate(directory='migrations', message='$(m)')"

clean:
	rm -rf $(VENV) $(NODE_MODULES) bench/.environments bench/results build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "Dragoman needs Python 3.11 or newer; '$(PYTHON)' is not. Install one and name it: make run PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock setup.cfg | $(VENV)/bin/python
	@echo "Installing Dragoman into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.runtime
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-test.lock
	@touch $@

# Elsewhere tests skip what is missing and say how to install it.
system-packages:
ifeq ($(CI),true)
	@if ! dpkg -s $(APT_PACKAGES) >/dev/null 2>&1; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(APT_PACKAGES) >/dev/null; fi
	@if ! command -v npm >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm >/dev/null; fi
endif

# The JavaScript clients. Where npm is missing, the tests with them are skipped and say how to install it.
node-packages: system-packages
	@if command -v npm >/dev/null; then $(MAKE) --silent $(NODE_MODULES)/.installed; fi

$(NODE_MODULES)/.installed: tests/clients/package-lock.json tests/clients/package.json
	@cd tests/clients && npm ci --ignore-scripts --no-audit --no-fund --no-update-notifier --loglevel=error >/dev/null
	@touch $@
