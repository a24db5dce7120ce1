# make run      sets everything up and runs the pipeline on the embedded digits
# make test     sets everything up, checks the style and runs all tests but those of test-long
# make test-long  those: the steps of kubeflow/Dockerfile in a clean folder and what they make; a whole run on Kubeflow;
#                 runs that are killed; sabotaged releases like those that make test has
# make unit     only the tests that take less than two minutes
# make setup    only makes .venv
# make lock     rebuilds requirements.lock from pyproject.toml
# make image-lock  rebuilds the locks of the container images from requirements.lock
# make format   formats the code
# make docs     writes docs/settings-reference.md from the settings' types
# make audit    asks the advisory database about every package of the lock; needs the internet
# make sbom     writes sbom.json, the software bill of materials (CycloneDX)

READY := .venv/.ready
BIN := .venv/bin
# What shares fixtures stays in one process (tests/conftest.py). Each process may take 3 GB.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: run test test-long unit lint format docs setup lock image-lock audit sbom

run: $(READY)
	@$(BIN)/trimline run

test: lint
	@$(PYTEST) -m "not long"

test-long: $(READY)
	@$(BIN)/python -m pytest -m long

unit: $(READY)
	@$(PYTEST) -m "not e2e and not component and not long"

lint: $(READY)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

format: $(READY)
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

docs: $(READY)
	@$(BIN)/python -m pipeline.settings_reference docs/settings-reference.md

audit: $(READY)
	@.ci/audit

sbom: $(READY)
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file sbom.json requirements.lock
	@echo "Written: sbom.json"

setup: $(READY)

$(READY): requirements.lock pyproject.toml setup.py .ci/setup
	@PYTHON="$(PYTHON)" sh .ci/setup
	@touch $@

# Tried in a file of its own first: a resolution that fails leaves the lock as it is.
lock: $(READY)
	@cp requirements.lock .venv/new.lock
	@$(BIN)/uv pip compile pyproject.toml --extra dev --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header $(if $(UPGRADE),--upgrade) --quiet --output-file .venv/new.lock
	@cp .venv/new.lock requirements.lock
	@$(MAKE) --no-print-directory image-lock

# What the images of kubeflow/Dockerfile hold: the same versions, without the tools of developers; CUDA for the GPU one.
image-lock: $(READY)
	@for target in cpu gpu; do \
		$(BIN)/uv pip compile pyproject.toml $$([ $$target = cpu ] || echo --extra gpu) --constraint requirements.lock \
			--python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --no-annotate \
			--output-file kubeflow/requirements-$$target.lock || exit 1; \
	done
