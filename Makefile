# The one door: every command that the project, its CI and a newcomer need.

MAYFLY := .venv/bin/mayfly
PYTHON := .venv/bin/python
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run)

.PHONY: help demo test check format docs bench clean

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

test: .venv/.parts ## All tests, with the real git, S3 server, browser and container engine
	@$(PYTHON) -m tests.parts.selenium_image || test "$$CI" != true
	@rm -f .coverage .coverage.*
	@$(PYTHON) -m coverage run -m pytest $(PYTEST)
	@$(PYTHON) -m coverage combine --quiet
	@$(PYTHON) -m coverage report --include 'agent/*' --fail-under $(if $(filter true,$(CI)),90,0)

check: .venv/.ready ## Format, lint, types, shell scripts, lock files, generated docs
	@$(PYTHON) -m ruff format --check --quiet .
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m mypy
	@cd scrapers && ../$(PYTHON) -m mypy --strict -p scrapers -p demo_site
	@.venv/bin/shellcheck $(SHELL_SCRIPTS)
	@.venv/bin/uv lock --check --quiet
	@.venv/bin/uv lock --check --quiet --project scrapers
	@$(PYTHON) docs/generate.py --check

format: .venv/.ready ## Format the code
	@$(PYTHON) -m ruff format --quiet .
	@$(PYTHON) -m ruff check --quiet --fix .

docs: .venv/.ready ## Write the JSON Schemas and the configuration reference again
	@$(PYTHON) docs/generate.py

bench: .venv/.ready ## Measure; see docs/performance.md
	@$(PYTHON) -m benchmarks

clean: ## Remove what the other commands made
	@rm -rf .venv .uv .demo .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
