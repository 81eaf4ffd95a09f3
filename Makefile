# Everything from a fresh clone with only python3, venv, pip and make.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 2

.PHONY: demo test lint soak bench bench-audit bench-trust clean

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed  ## clean pendigits at 60 % wrong labels and compare with the paper's baselines
	$(BIN)/labelwright demo --output demo

test: .venv/installed  ## all tests but the long ones
	$(BIN)/python -m pytest -m 'not soak'

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: .venv/installed  ## the long fault tests: 50 kills, large fuzz runs
	$(BIN)/python -m pytest -m soak --timeout 3600 tests

bench: .venv/installed  ## speed and memory, each against a named rival in the same run
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/deep_speed.py --json experiments/results/deep-speed.json
	$(BIN)/python benchmarks/scale.py --json experiments/results/scale.json

bench-trust: .venv/installed  ## sealing against raw AES-GCM, attestation, judging in 64 MB and training confined against unconfined
	$(BIN)/python benchmarks/sealing.py
	$(BIN)/python benchmarks/confined.py --json experiments/results/confined.json

bench-audit: .venv/installed  ## the audit against cleanlab: quality, expert effort, speed; hours the first time, needs LABELWRIGHT_DATA
	$(BIN)/python benchmarks/audit_cells.py
	$(BIN)/python benchmarks/audit_quality.py --output experiments/results/audit-quality.json
	$(BIN)/python benchmarks/audit_effort.py --output experiments/results/audit-effort.json
	$(BIN)/python benchmarks/audit_hard_rows.py --output experiments/results/audit-hard-rows.json
	$(BIN)/python benchmarks/audit_pictures.py --output experiments/results/audit-pictures.json
	$(BIN)/python benchmarks/audit_speed.py --json experiments/results/audit-speed.json

clean:
	rm -rf .venv demo
