# Everything from nothing: each target creates .venv when it is missing.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install train test lint docs wheel-check clean
install: $(STAMP)

$(STAMP): pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	$(BIN)/pip install -q -c constraints.txt -e '.[demo,test]'
	$(BIN)/pip install -q --no-deps --target $(VENV)/triton triton==3.6.0  # for one test, see it
	touch $@

train: install
	PATH="$(CURDIR)/$(BIN):$$PATH" deepspeed launch/train.py --ds_config ds_configs/zero3.json --overwrite true

test: install
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile tests

lint: install
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

# The documentation as a site, in site/; a warning is an error.
docs: install
	PYTHONPATH=. $(BIN)/mkdocs build --strict --quiet

# The wheel in a new environment, outside the repository.
wheel-check: install
	bash tests/wheel_check.sh "$(CURDIR)/$(BIN)/python"

clean:
	rm -rf outputs build dist site *.egg-info
