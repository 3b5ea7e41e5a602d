# `make demo` and `make test` need nothing but make, git and a python3: they build what they use.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment demo test test-engines test-endurance lint audit docs dev browser proxy system clean

# Every process that a test starts would compile the modules again.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
PIP_AUDIT_VERSION := 2.10.1
TESSDATA := /usr/share/tesseract-ocr /usr/share/tessdata /usr/local/share/tessdata /opt/homebrew/share/tessdata
TIBETAN_FONT := NotoSerifTibetan-Regular.ttf

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

environment: $(VENV)/.complete ## Make the virtual environment from requirements.lock

# A name on the path is not enough: a shim may answer for a version that is not selected, and a
# system Python may lack the venv module. So each candidate has to prove itself.
$(VENV)/.complete: requirements.lock pyproject.toml Makefile
	@supported='import sys, venv, ensurepip; sys.exit(not (3, 12) <= sys.version_info[:2] < (3, 15))'; \
	python=; \
	for candidate in $${PYTHON:-} python3.13 python3.12 python3.14 python3 \
	    "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1[234].*/bin/python; do \
	  if "$$candidate" -c "$$supported" >/dev/null 2>&1; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.12, 3.13 or 3.14 found here; fetching one with uv"; \
	  if ! python3 -m venv $(VENV)-uv >/dev/null 2>&1 && [ "$$(id -u)" = 0 ]; then \
	    { apt-get update && apt-get install -y --no-install-recommends python3-venv; } >/dev/null 2>&1 || true; \
	  fi; \
	  if python3 -m venv --clear $(VENV)-uv \
	      && $(VENV)-uv/bin/pip install --quiet uv==$(UV_VERSION) \
	      && $(VENV)-uv/bin/uv python install --quiet 3.13; then \
	    python=$$($(VENV)-uv/bin/uv python find 3.13); \
	  else \
	    echo "ocr-assets needs Python 3.12 or newer: install it (for example with pyenv) or run make PYTHON=/path/to/python3.13" >&2; \
	    exit 1; \
	  fi; \
	fi; \
	echo "Using $$("$$python" --version) at $$python"; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock \
	  || $(BIN)/pip install --quiet --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: environment system ## Build the sample world, materialize the graph, print what came out
	@$(BIN)/ocr sample
	@$(BIN)/ocr run --all-region-ids --platform local --summary-stats --create-pyramid
	@root=$${OCR_STORAGE_ROOT:-.data}; case "$$root" in *://*) root=.data;; esac; \
	imagery=$$root/input/imagery; made=0; answered=0; \
	$(BIN)/ocr tiles run "$$imagery/tiles.csv" --env-file "$$imagery/sample.env" --yes || made=$$?; \
	test $$made = 0 -o $$made = 6; \
	$(BIN)/ocr tiles mosaic --year 2023; \
	$(BIN)/ocr tiles stats "$$imagery/polygons.geojson" --year 2023 || answered=$$?; \
	test $$answered = 0 -o $$answered = 1
	@if [ -d "$${OCR_STORAGE_ROOT:-.data}/input/volumes/WSAMPLE-ISAMPLE" ]; then \
	  if [ -n "$$(find $(TESSDATA) $${OCR_MODELS_ROOT:-.data/models} -name bod.traineddata 2>/dev/null)" ]; then \
	    $(BIN)/ocr volumes run WSAMPLE-ISAMPLE && $(BIN)/ocr volumes text WSAMPLE-ISAMPLE; \
	  else \
	    echo "The sample volume is not read: no bod.traineddata here (make system, or ocr models fetch bod)"; \
	  fi; \
	fi

dev: environment ## Open the Dagster UI on 127.0.0.1 with daemon and sensors
	@$(BIN)/ocr dev

browser: ## Install the browser that the map page is tested with (Debian, as root)
	@if command -v chromium >/dev/null || command -v google-chrome >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing chromium for the browser tests"; \
	  { apt-get update && apt-get install -y --no-install-recommends chromium; } >/dev/null 2>&1 \
	    || echo "chromium could not be installed: browser tests will be skipped"; \
	else \
	  echo "No chromium here (as root: apt-get install chromium): browser tests will be skipped"; \
	fi

system: ## Install the Tibetan model of Tesseract and a Tibetan font (Debian, as root)
	@if [ -n "$$(find $(TESSDATA) -name bod.traineddata 2>/dev/null)" ] \
	    && [ -n "$$(find /usr/share/fonts /usr/local/share/fonts -name $(TIBETAN_FONT) 2>/dev/null)" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing tesseract-ocr-bod and fonts-noto-core"; \
	  { apt-get update && apt-get install -y --no-install-recommends tesseract-ocr-bod fonts-noto-core; } >/dev/null 2>&1 \
	    || echo "They could not be installed: volumes are read after ocr models fetch bod, and there is no sample volume"; \
	else \
	  echo "No Tibetan model or font here (as root: apt-get install tesseract-ocr-bod fonts-noto-core)"; \
	fi

# Unpacked and not installed, since an installed nginx would start and listen on the network.
proxy: environment ## Fetch the nginx that the example of a proxy is tested with (Debian)
	@if PATH="$$PATH:/usr/sbin" command -v nginx >/dev/null || [ -x $(VENV)/nginx/usr/sbin/nginx ]; then :; \
	elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null && ( \
	    folder=$$(mktemp -d) && cd "$$folder" \
	    && { apt-get download nginx || { [ "$$(id -u)" = 0 ] && apt-get update && apt-get download nginx; }; } \
	    && dpkg-deb -x nginx_*.deb "$(abspath $(VENV))/nginx" && rm -r "$$folder" ) >/dev/null 2>&1; then \
	  echo "Fetched nginx for the test of the proxy"; \
	else \
	  echo "No nginx here (Debian package nginx): the example of a proxy will not be tested"; \
	fi

test: environment browser proxy system ## Run the tests
	@$(BIN)/pytest -q --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-engines: environment browser system ## Run the whole way once on Postgres, S3, SQS and Dask
	@$(BIN)/pytest -q -m engines tests/end_to_end/test_engines.py

test-endurance: environment ## Cut the power of the daemon again and again, in every wing
	@$(BIN)/pytest -q -m endurance tests/end_to_end

lint: environment ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --num-workers 2

audit: environment ## Check the lock, licences and, where the service answers, known vulnerabilities
	@$(BIN)/pytest -q tests/test_dependencies.py
	@if $(BIN)/python -c "import socket; socket.create_connection(('api.osv.dev', 443), 10)" 2>/dev/null; then \
	  $(BIN)/uv tool run pip-audit==$(PIP_AUDIT_VERSION) --vulnerability-service osv --disable-pip \
	    --require-hashes --requirement requirements.lock; \
	else \
	  echo "api.osv.dev does not answer: known vulnerabilities were not looked up"; \
	fi

docs: environment ## Build the documentation into build/docs, all links checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file .ci/mkdocs.yml
	@echo "build/docs/index.html"

clean: ## Remove the environment and all local data
	rm -rf $(VENV) $(VENV)-uv .data
