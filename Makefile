# The two commands of the README, `make site` and `make test`, and the parts of the second one.

# ARGS are handed on: make site ARGS='-e jemalloc_version=5.1.0', make test ARGS='-k errors'
ARGS ?=

# Asked for only where sudo would ask; root needs neither.
BECOME := $(shell [ "$$(id -u)" = 0 ] || sudo -n true 2>/dev/null || echo --ask-become-pass)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# So many kinds of tests at a time: they wait more than they work, and each has hosts of its own.
SEVERAL := -n 3 --dist loadscope --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help site test unit mutation lint docs faults bench bench-fleet bench-controller bench-info bench-mixed bench-report bench-rollback bench-verify images screenshot molecule matrix release clean packages

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

site: ## Install jemalloc on this machine, or as ARGS say
	@.ci/venv .venv requirements.txt
	@.venv/bin/ansible-playbook site.yml $(BECOME) $(ARGS)
	@if release=$$(readlink /opt/jemalloc/current); then \
	  echo "jemalloc $$release is in /opt/jemalloc; run any command with it: jemalloc.sh <cmd>"; \
	else echo "jemalloc is not in /opt/jemalloc"; fi

test: packages ## Run all tests: unit, lint, sanity, molecule on systemd containers, this Makefile in a clean one
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests $(SEVERAL) $(ARGS)

unit: ## Run the unit tests, with branch coverage
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests/unit --cov --cov-report=term-missing:skip-covered $(ARGS)

mutation: ## Find small changes of module_utils that no unit test notices: ARGS='--sample 300 _store _files'
	@.ci/venv .venv-mutation requirements-mutation.txt
	@.venv-mutation/bin/python -m tests.mutation $(ARGS)

lint: ## Run the linters and Ansible's sanity tests
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests/checks $(ARGS)

docs: ## Make the documentation site in build/docs/html
	@.ci/venv .venv-docs requirements-docs.txt
	@PATH="$(CURDIR)/.venv-docs/bin:$$PATH" .ci/docs $(ARGS)

faults: packages ## Run in full the tests of faults, 300 moments of being killed, of interrupted plays, and of old releases
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests/faults tests/malloc_conf tests/operators tests/releases tests/units --full $(ARGS)

images: packages ## Run in full the tests of images, jemalloc itself for each Debian, musl and arm64, and of containers
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests/images tests/connections tests/containers --full $(ARGS)

bench: packages ## Measure what an installation costs, beside a build by hand
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m bench.install $(ARGS)

bench-fleet: packages ## Measure what a fleet costs, beside a peer and the package: ARGS='--sources DIRECTORY --peer CLONE'
	@.ci/venv .venv-bench requirements-bench.txt
	@.venv-bench/bin/python -m bench.fleet $(ARGS)

bench-mixed: packages ## Measure what the order of a mixed inventory costs: ARGS='--sources DIRECTORY'
	@.ci/venv .venv-bench requirements-bench.txt
	@.venv-bench/bin/python -m bench.mixed $(ARGS)

bench-controller: ## Measure what the controller pays for a fleet of thousands that is not there
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python bench/controller.py $(ARGS)

bench-rollback: packages ## Measure how soon a service that cannot run with the library runs without it
	@.ci/venv .venv-test requirements-test.txt
	@PYTHONPATH=tests/faults .venv-test/bin/python -m bench.rollback

bench-verify: packages ## Measure how long it takes to verify many services on a busy host: ARGS='10000 1 20 100 500'
	@.ci/venv .venv-test requirements-test.txt
	@PYTHONPATH=tests/faults .venv-test/bin/python -m bench.verify $(ARGS)

bench-info: ## Measure what a look at thousands of processes costs, beside a cat of their maps
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m bench.info $(ARGS)

bench-report: packages ## Measure how fast the report of a large fleet opens: ARGS='--hosts 1000 --units 20'
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m bench.report $(ARGS)

screenshot: packages ## Make the picture of the report in docs/
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m bench.report --screenshot docs/report.png

molecule: packages ## Run the molecule scenarios on systemd containers
	@.ci/venv .venv-test requirements-test.txt
	@.venv-test/bin/python -m pytest tests/scenarios $(ARGS)

matrix: ## Try every ansible-core, Python and Debian, and print one table: ARGS='--only "core 2.19"', ARGS=--list
	@.ci/venv .venv-test requirements-test.txt
	@$(SUDO) .ci/packages --no-browser
	@.venv-test/bin/python -m tests.matrix $(ARGS)

release: ## Release the version in galaxy.yml: changelog, archive, its test in a clean container, commit and tag
	@.ci/venv .venv-test requirements-test.txt
	@$(SUDO) .ci/packages --no-browser
	@PATH="$(CURDIR)/.venv-test/bin:$$PATH" .ci/release

packages: # what the containers of the tests need from the distribution
	@$(SUDO) .ci/packages

clean: ## Remove the virtual environments and what the tests left here
	rm -rf .venv .venv-test .venv-bench .venv-docs .venv-importer .venv-mutation .matrix build docs/reference .pytest_cache .ruff_cache .mypy_cache .coverage .hypothesis .ansible tests/output
