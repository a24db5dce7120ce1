# make run      sets everything up and runs the pipeline on the embedded digits
# make test     sets everything up, checks the style and runs all tests
# make unit     only the tests that take less than two minutes
# make setup    only makes .venv
# make lock     rebuilds requirements.lock from pyproject.toml
# make image-lock  rebuilds the locks of the container images from requirements.lock
# make format   formats the code

READY := .venv/.ready
BIN := .venv/bin

.PHONY: run test unit lint format setup lock image-lock

run: $(READY)
	@$(BIN)/trimline run

test: lint
	@$(BIN)/python -m pytest

unit: $(READY)
	@$(BIN)/python -m pytest -m "not e2e and not component"

lint: $(READY)
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports --no-logo >.venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }

format: $(READY)
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format --quiet

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
