# make demo: learned views beat random noise, in about four minutes.   make test: every test and notebook.   make weights: train the shipped networks again.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test lab notebooks weights lint

demo: $(VENV)/installed
	mkdir -p runs/02_images
	$(BIN)/papermill notebooks/02_images.ipynb runs/02_images/out.ipynb -p preset quick -p out_dir runs/02_images
	@$(BIN)/python -m vmlite.results runs/02_images/results.json
	@echo "Executed notebook: $(CURDIR)/runs/02_images/out.ipynb"

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --nbval -n logical --dist loadfile -m "not browser"
	$(BIN)/pytest -m browser tests/test_browser.py

lab: $(VENV)/installed
	$(BIN)/jupyter lab notebooks

notebooks: $(VENV)/installed
	$(BIN)/python notebooks/execute.py notebooks/*.ipynb notebooks/answers/*.ipynb

weights: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m vmlite.shipped

lint: $(VENV)/installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "vmlite needs Python 3.11 or newer, for example: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -e '.[dev]'
	touch $@
