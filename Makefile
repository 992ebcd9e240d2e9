# Each target sets up what it needs. `make` alone lists them.
PYTHON ?=
DEMO_DATA ?=
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test check format bench lock clean

help:
	@echo "make demo    telemetry in, signed bundle out, verdicts on offline devices, results on a dashboard"
	@echo "make test    all tests"
	@echo "make check   linting, types, formatting"
	@echo "make bench   every benchmark, both sides in one run; writes benchmarks/results/"
	@echo "make setup   the Python environment in .venv"
	@echo "make lock    renew requirements-dev.lock from pyproject.toml"

setup: $(READY)

$(READY): requirements-dev.lock pyproject.toml .ci/setup
	@.ci/setup $(PYTHON)

demo: $(READY)
	@$(BIN)/python -m docs.demo.run $(if $(DEMO_DATA),--data $(DEMO_DATA))

test: $(READY)
	@.ci/browser
	@$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	@$(BIN)/python -m benchmarks

lock: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --generate-hashes --no-emit-index-url --no-header \
		--no-annotate --upgrade --output-file requirements-dev.lock

clean:
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
