# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
# One worker a core: the integration tests start real API servers, TPMs and tokens.
WORKERS ?= $(shell nproc)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-17s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## install what is missing; idempotent
	@tools/setup.sh

.PHONY: test
test: setup static test-unit test-conformance test-integration test-faults test-fuzz ## everything; set up first

.PHONY: static
static: ## linters, types, import rules, generated files, manifests
	$(PY) -m ruff check operator tests tools bench
	$(PY) -m ruff format --check operator tests tools bench
	$(PY) -m mypy
	.venv/bin/lint-imports
	shellcheck tools/*.sh .ci/run
	$(PY) tools/generate_crds.py --check
	$(PY) tools/generate_reference.py --check
	$(PY) -m tools.docs --check
	$(PY) tools/chart_check.py

.PHONY: chart-test
chart-test: setup ## the chart's own tests: templates, and alerts; the first time, what runs them is built
	$$($(PY) tools/control_plane/build.py helm-unittest | cut -d' ' -f2) --strict charts/chatelaine
	$(PY) tools/alert_check.py

.PHONY: test-unit
test-unit: ## everything that needs no other process: examples, properties, state machines
	$(PY) -m pytest -n $(WORKERS) tests/unit

.PHONY: test-conformance
test-conformance: ## real evidence of real machines, and its mutations
	$(PY) -m pytest -rs -n $(WORKERS) tests/conformance

.PHONY: test-integration
test-integration: ## real API server, tokens, TPMs and processes
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup tests/integration

.PHONY: test-faults
test-faults: ## crashes between every two actions, API faults
	$(PY) -m pytest -n $(WORKERS) --dist loadgroup tests/faults

.PHONY: test-fuzz
test-fuzz: ## a bounded run of every parser's fuzzer, with the inputs that are kept
	$(PY) -m pytest -n $(WORKERS) tests/fuzz

.PHONY: image
image: setup ## the image (and the one for evaluation) as OCI archives in build/image, without an engine; TAG=dev
	$(PY) -m tools.image --tag $(or $(TAG),dev)
	$(PY) -m tools.image --tag $(or $(TAG),dev) --evaluation

.PHONY: cluster
cluster: setup image ## a cluster of one node with both images in it, until Ctrl-C; prints its kubeconfig. As root
	$(PY) -m tools.cluster --directory build/cluster \
	  --image build/image/chatelaine.tar --image build/image/chatelaine-evaluation.tar

.PHONY: e2e
e2e: setup ## pods of our image in a cluster of one node, NetworkPolicies enforced. As root
	$(PY) -m pytest tests/e2e

PURE_ROOMS := model evidence appraisal release reconcile tokens diagnosis
.PHONY: coverage
coverage: setup ## branch coverage of the pure rooms by their unit tests; a lamp, no goal
	$(PY) -m pytest -n $(WORKERS) $(PURE_ROOMS:%=tests/unit/%) $(PURE_ROOMS:%=--cov=chatelaine.%) --cov-branch \
	  --cov-report=term-missing:skip-covered

.PHONY: demo
demo: setup ## the whole story on real parts, in two minutes; KEEP=1 leaves it running
	$(PY) -m tools.demo $(if $(KEEP),--keep)

.PHONY: tutorial
tutorial: setup ## what docs/tutorial/first-key.md runs on, until Ctrl-C
	$(PY) -m tools.docs.laboratory

.PHONY: docs
docs: ## the pages as a static site in build/site, links checked; the first time, MkDocs is installed into the cache
	$(PY) -m tools.docs

.PHONY: bench
bench: setup ## figures into build/bench; BENCH=name for one
	$(PY) -m bench $(BENCH)

.PHONY: generate
generate: ## CRDs (also in the chart) and reference pages from the code
	$(PY) tools/generate_crds.py
	$(PY) tools/generate_reference.py

.PHONY: lock
lock: ## renew the lock files
	tools/lock.sh

.PHONY: format
format: ## format the code
	$(PY) -m ruff format operator tests tools bench
	$(PY) -m ruff check --fix operator tests tools bench

.PHONY: fuzz
fuzz: setup ## fuzz every parser for EACH seconds (300); FUZZ=name for one; what it finds stays in build/fuzz
	@for target in $(or $(FUZZ),$$($(PY) tests/fuzz --list)); do \
	  echo "== $$target"; mkdir -p build/fuzz/$$target; \
	  $(PY) tests/fuzz $$target -max_total_time=$(or $(EACH),300) -artifact_prefix=build/fuzz/$$target- \
	    build/fuzz/$$target || exit 1; \
	done

.PHONY: mutants
mutants: setup ## small faults in the pure rooms, which tests must notice; ROOM=tokens, MODULES="cache jwk", FRESH=1
	$(PY) -m tools.mutants $(ROOM) $(MODULES:%=--module=%) $(if $(FRESH),--fresh)
