# Each target sets up what it needs. `make` alone lists them.
PYTHON ?=
DEMO_DATA ?=
TORCH_INDEX ?=
BIN := .venv/bin
READY := .venv/.ready
RIVALS := .venv-rivals/.ready
NODE_MODULES := web_demo/node_modules/.ready
WEB := sync_server/web/.built
HARNESS := build/web_harness/index.html
WEB_SOURCES := $(shell find web_demo -name node_modules -prune -o -name tests -prune -o -type f -print) sync_server/web_assets/page_headers.json
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix web_demo --loglevel=error

.PHONY: help setup web demo test check format bench bench-scoring bench-training lock clean

help:
	@echo "make demo    telemetry in, signed bundle out, verdicts on offline devices, results on a dashboard"
	@echo "make test    all tests"
	@echo "make check   linting, types, formatting"
	@echo "make bench   every benchmark, both sides in one run; writes benchmarks/results/"
	@echo "make bench-scoring, make bench-training    one of them"
	@echo "make web     the device's page and the dashboard's scripts, which the server serves and the wheel holds"
	@echo "make setup   the Python environment in .venv"
	@echo "make lock    renew the locks of the product and of what benchmarks compare with"

setup: $(READY)

$(READY): requirements-dev.lock pyproject.toml .ci/setup
	@.ci/setup $(PYTHON)

# Node comes from a wheel of the lock, so that nothing needs installing.
$(NODE_MODULES): web_demo/package-lock.json web_demo/package.json | $(READY)
	@$(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

web: $(WEB)

$(WEB): $(NODE_MODULES) $(WEB_SOURCES)
	@$(NPM) run build
	@touch $@

# What tests and benchmarks drive in a browser.
$(HARNESS): $(NODE_MODULES) $(WEB_SOURCES)
	@$(NPM) run harness

demo: $(READY) $(WEB)
	@$(BIN)/python -m docs.demo.run $(if $(DEMO_DATA),--data $(DEMO_DATA))

test: $(READY) $(WEB) $(HARNESS)
	@.ci/browser
	@$(BIN)/python -m pytest

check: $(READY) $(NODE_MODULES)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(NPM) run check

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(RIVALS): benchmarks/requirements-rivals.txt benchmarks/requirements-torch.txt .ci/rivals | $(READY)
	@.ci/rivals $(TORCH_INDEX)

bench: $(READY) $(RIVALS) $(HARNESS)
	@$(BIN)/python -m benchmarks

bench-scoring bench-training: bench-%: $(READY) $(RIVALS)
	@$(BIN)/python -m benchmarks $*

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --upgrade --output-file requirements-dev.lock
	$(BIN)/uv pip compile pyproject.toml benchmarks/requirements-rivals.in --extra exporter --universal --generate-hashes \
		--constraint requirements-dev.lock --override benchmarks/requirements-rivals.overrides --no-emit-index-url \
		--no-header --no-annotate --upgrade --output-file benchmarks/requirements-rivals.txt
	$(BIN)/uv pip compile benchmarks/requirements-torch.in $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		--constraint benchmarks/requirements-rivals.txt --python-version 3.11 \
		--python-platform x86_64-unknown-linux-gnu --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--output-file benchmarks/requirements-torch.txt

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
