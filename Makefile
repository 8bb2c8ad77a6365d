# make install       .venv with the locked packages
# make test          ruff, pytest and nbval in minutes, without what is slow
# make test-all      everything but the browser: what CI runs
# make reproduce     every notebook, headless, on the embedded digits: build/reproduce/
# make browser-test  notebooks in JupyterLab with Chromium; screenshots: build/jupyterlab/
# make mutation-test small changes to the mathematics that tests must notice: half an hour
# make gpu-test     the tests that need a GPU
# make gpu          what needs a GPU, as far as MINUTES (9) go, into OUT (build/gpu); begun work is resumed
# make lock          rewrites requirements.lock (needs uv)

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# JupyterLab's settings and the kernel's own debugger warning stay out of notebook outputs.
export PYDEVD_DISABLE_FILE_VALIDATION := 1

.PHONY: gpu gpu-test install test test-all browser-test mutation-test reproduce lint lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python >= 3.11 is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --no-build-isolation -e .
	touch $(STAMP)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# One worker a core, of one thread each; the tests of a file, and the cells of a notebook, share what they have made.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
NBVAL := EMLC_RUNS=$(CURDIR)/build/nbval $(PYTEST) --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg \
	-p no:cacheprovider notebooks

test: lint
	$(PYTEST) -m "not slow and not browser"
	rm -rf build/nbval
	$(NBVAL) --quick

test-all: lint
	$(PYTEST)
	rm -rf build/nbval
	$(NBVAL)

browser-test: $(STAMP)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || \
		{ echo "make browser-test needs Chromium and its driver: apt-get install chromium chromium-driver"; exit 1; }
	$(BIN)/python -m pytest -m browser --durations=4 tests/browser

mutation-test: $(STAMP)
	@$(BIN)/python -c 'import mutmut' 2>/dev/null || \
		{ echo "make mutation-test needs mutmut: $(BIN)/pip install -e '.[mutation]'"; exit 1; }
	OMP_NUM_THREADS=1 $(BIN)/mutmut run --max-children 2
	$(BIN)/mutmut results
	$(BIN)/mutmut export-cicd-stats
	$(BIN)/python tests/mutation_score.py

# These need no installation: python3 with torch and what benchmarks/gpu.py lists.
gpu-test:
	PYTHONPATH=. python3 -m pytest -q -m gpu -o timeout=120 $$(grep -l mark.gpu tests/test_*.py)

gpu:
	PYTHONPATH=. python3 -m benchmarks.gpu --minutes $(or $(MINUTES),9) --out $(or $(OUT),build/gpu) $(GPU)

reproduce: $(STAMP)
	$(BIN)/python notebooks/reproduce.py

lock:
	uv pip compile pyproject.toml --extra notebooks --extra test --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --output-file requirements.lock

clean:
	rm -rf build .venv
