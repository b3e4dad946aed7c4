# The one door: every command that the project, its CI and a newcomer need.

MAYFLY := .venv/bin/mayfly
PYTHON := .venv/bin/python
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci)
# One process of pytest for each core; one that has nothing left takes of another's tests.
PARALLEL := -n logical --dist worksteal
# The long ones wait for two thirds of their time, for jobs and for limits: one process more than cores.
PARALLEL_LONG := -n $(shell expr $$(nproc) + 1) --dist worksteal
# CI runs no test twice: make test and then make test-long, whose coverage is reported together.
COVERED := $(if $(filter true,$(CI)),-m coverage run)
REPORT = $(PYTHON) -m coverage combine --quiet && $(PYTHON) -m coverage report --include 'agent/*' \
  --fail-under $(if $(filter true,$(CI)),90,0)

.PHONY: help demo quick test test-long test-all image image-home ami test-faults test-vm test-power test-cloud deploy undeploy check format docs bench bench-quick clean

help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

.venv/.ready: pyproject.toml uv.lock deploy/setup.sh
	@deploy/setup.sh
	@touch $@

.venv/.browser: .venv/.ready
	@deploy/setup.sh browser
	@touch $@

.venv/.parts: .venv/.ready tests/parts/install.sh
	@tests/parts/install.sh
	@touch $@

demo: .venv/.browser ## A whole run on embedded defaults: local site, release, browser and bucket, in .demo/
	@$(MAYFLY) demo --dir .demo

quick: .venv/.ready ## Decisions, parsers and texts: no server, no browser; under a minute
	@$(PYTHON) -m pytest --quiet $(PARALLEL) -m quick $(PYTEST)

test: .venv/.parts ## Every subject and every real part: git, S3 server, browser, Grid, container engine; 20 minutes
	@$(PYTHON) -m tests.parts.selenium_image || test "$$CI" != true
	@rm -f .coverage .coverage.*
	@$(PYTHON) $(COVERED) -m pytest $(PARALLEL) -m 'not machine and not long' --durations=10 $(PYTEST)

test-long: .venv/.parts ## What make test leaves out, but for the booted machine
	@$(PYTHON) -m tests.parts.selenium_image || test "$$CI" != true
	@$(PYTHON) -m coverage run -m pytest $(PARALLEL_LONG) -m 'long and not machine' $(PYTEST)
	@$(REPORT)

test-all: .venv/.parts ## All tests but those of the booted machine, with branch coverage
	@$(PYTHON) -m tests.parts.selenium_image || test "$$CI" != true
	@rm -f .coverage .coverage.*
	@$(PYTHON) -m coverage run -m pytest $(PARALLEL) -m 'not machine' $(PYTEST)
	@$(REPORT)

test-faults: .venv/.parts ## Break everything, in full; takes hours and writes the figures of docs/reliability.md again
	@rm -rf build/reliability
	@MAYFLY_CRASH_SEEDS=25 MAYFLY_SYSCALLS=all MAYFLY_RACES=20 MAYFLY_STORE_FAULT_RUNS=20 MAYFLY_LYING_STORES=all \
	  MAYFLY_READER_KILLS=20 MAYFLY_DISK_STEP=1 MAYFLY_HOME_DISK_STEP=1 MAYFLY_FUZZ_INPUTS=100000 MAYFLY_MODEL_SEQUENCES=1000 MAYFLY_LOAD=1 \
	  MAYFLY_BATCH_MODEL=1 MAYFLY_LOST_LOGS=20 $(PYTHON) -m pytest -s tests/faults tests/delivery tests/batch/test_model.py -o timeout=0 $(PYTEST); status=$$?; \
	  MAYFLY_TEST_SEEDS=30 $(PYTHON) -m pytest -m machine -s tests/machine/test_kills.py || status=$$?; \
	  $(PYTHON) -m tests.faults.figures; exit $$status

image: .venv/.parts ## The machine's image on a Debian disk, by Packer in QEMU, into build/image/ [CONFIG=agent.toml]
	@packer/image.sh build/image $(CONFIG)

image-home: ## The container image for home: make image-home [IMAGE=registry.home/mayfly-home:0.2.0]
	@docker build --file deploy/home/Dockerfile --tag $(or $(IMAGE),mayfly-home:0.2.0) .

ami: .venv/.ready ## The machine's image on Amazon Linux 2023: make ami CONFIG=agent.toml [ARCH="x86_64 arm64"]
	@packer/ami.sh $(or $(CONFIG),packer/agent.example.toml) $(ARCH)

deploy: .venv/.ready ## The stack on AWS: make deploy [DRY_RUN=1] [REGION=...] [STACK=...] [PARAMETERS="Mode=stopped"]
	@$(PYTHON) deploy/aws/deploy.py up $(if $(DRY_RUN),--dry-run) $(if $(STACK),--stack $(STACK)) \
	  $(if $(REGION),--region $(REGION)) $(PARAMETERS)

undeploy: .venv/.ready ## Delete the stack on AWS and every machine of it: make undeploy [DRY_RUN=1] [YES=1] [REGION=...] [STACK=...]
	@$(PYTHON) deploy/aws/deploy.py down $(if $(DRY_RUN),--dry-run) $(if $(YES),--yes) \
	  $(if $(STACK),--stack $(STACK)) $(if $(REGION),--region $(REGION))

test-vm: .venv/.parts ## Boot the image: work, turn itself off, survive pulled plugs, keep jobs apart
	@$(PYTHON) -m pytest -m machine -s tests/machine --ignore tests/machine/test_power.py $(PYTEST)

test-power: .venv/.parts ## Break the machine in every way we know: each case must end with the power off
	@$(PYTHON) -m pytest -m machine -s tests/machine/test_power.py $(PYTEST)

test-cloud: .venv/.parts ## The deployment's nights on a stand-in EC2 whose machines boot, from Packer to terminated
	@$(PYTHON) -m pytest -m machine -s tests/cloud $(PYTEST)

check: .venv/.ready ## Format, lint, types, shell scripts, lock files, generated docs
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@cd scrapers && ../$(PYTHON) -m mypy --strict -p scrapers -p demo_site
	@.venv/bin/shellcheck $(SHELL_SCRIPTS)
	@.venv/bin/uv lock --check --quiet
	@.venv/bin/uv lock --check --quiet --project scrapers
	@$(PYTHON) docs/generate.py --check
	@$(PYTHON) deploy/monitoring/render.py --check
	@.venv/bin/hadolint deploy/home/Dockerfile

format: .venv/.ready ## Format the code
	@$(PYTHON) -m ruff format --quiet .
	@$(PYTHON) -m ruff check --quiet --fix .

docs: .venv/.ready ## Write the JSON Schemas, the configuration reference, the dashboard and the operator's rules again
	@$(PYTHON) docs/generate.py
	@$(PYTHON) deploy/monitoring/render.py

bench: .venv/.ready ## Measure; see docs/performance.md
	@$(PYTHON) -m benchmarks

bench-quick: .venv/.ready ## A few minutes of the same, as ratios beside the committed results; fails nothing
	@$(PYTHON) -m benchmarks quick

clean: ## Remove what the other commands made
	@rm -rf .venv .uv .demo .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
