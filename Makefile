# `make up` makes a fleet in containers on this machine; `make test` proves it, and with FULL=1 what
# needs three hosts a tier or long.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Molecule keeps its state by directory name: checkouts must not share it.
export ANSIBLE_HOME := $(CURDIR)/.lab/ansible
export PYTHONDONTWRITEBYTECODE := 1

INVENTORY ?= inventories/lab
# Forms of a role with more hosts (redis-three) and the whole fleet on one host (single) take
# long: FULL=1 runs them too.
SCENARIOS := $(sort $(patsubst molecule/%/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))
ifndef FULL
SCENARIOS := $(foreach name,$(filter-out single,$(SCENARIOS)),$(if $(findstring -,$(name)),,$(name)))
endif
# The longest first, so that none runs alone at the end.
LONGEST := single pgbackrest swift rclone balancer app postgresql
SCENARIOS := $(foreach name,$(LONGEST),$(filter $(name),$(SCENARIOS))) $(filter-out $(LONGEST),$(SCENARIOS))
# Scenarios that run at the same time; each holds one to five hosts.
JOBS ?= $(shell nproc)

.PHONY: help up down test lint unit molecule fleet status secrets lock tools test-tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

up: tools ## a whole fleet in containers on this machine, the app serving
	@python -m lab fleet -i $(INVENTORY)

down: ## remove the lab: containers, network, disks
	@! command -v podman >/dev/null || python3 -m lab down  # any Python does, without .venv too
	@rm -f .lab/env

test: lint unit molecule fleet ## everything: lint, unit, molecule for every role, fleet tests

lint: test-tools ## ansible-lint, yamllint, ruff, shellcheck
	yamllint --strict .
	ruff check .
	ruff format --check .
	git grep -lE '^#!.*\<(ba|da)?sh\>' -- ':!*.j2' | xargs shellcheck
	ansible-lint --offline --strict

unit: test-tools ## tests without hosts: templates, filters, specs, refapp
	pytest -n auto tests/unit
	refapp/tests/run

molecule: test-tools ## molecule test for every role, or for ROLE=name; FULL=1 for all forms
	@tests/molecule.sh $(JOBS) $(or $(ROLE),$(SCENARIOS))

# The lab that is up, or else the small one; what needs three hosts a tier is in the long forms.
fleet: INVENTORY := $(or $(shell sed -n 's/^LAB_INVENTORY=//p' .lab/env 2>/dev/null),inventories/lab$(if $(FULL),,-small))
fleet: up test-tools ## fleet tests on the lab; FULL=1 for the long forms
	pytest $(if $(FULL),,-m "not full") --durations=25 tests/fleet

status: tools ## one table: host, tier, release, processes, health
	@ansible-playbook playbooks/status.yml -i $(INVENTORY)

secrets: tools ## fill every CHANGE_ME secret of INVENTORY with a random value, and touch no other
	@python -m lab secrets -i $(INVENTORY)

lock: tools ## renew requirements.txt from pyproject.toml
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --upgrade pyproject.toml -o requirements.txt

tools: ## what the commands need: Debian packages, and Python tools in .venv
	@lab/bootstrap.sh

test-tools:
	@lab/bootstrap.sh test
