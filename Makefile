# One word per task; `make help` lists them.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
APT    := python3.11-venv mount util-linux nftables libnftables1 iproute2 iputils-arping procps nginx-light keepalived e2fsprogs systemd
STAMP  := $(VENV)/.installed
# These mount on the machine itself: a namespace that begins meanwhile would copy the mount, and keep its device in use.
MOUNTS := tests/lab/test_shared_disk_driver.py tests/lab/test_replicated_volume_driver.py

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(MAKEFILE_LIST))

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): requirements.lock pyproject.toml tools/setup.sh
	@PYTHON=$(PYTHON) VENV=$(VENV) APT="$(APT)" sh tools/setup.sh
	@touch $@

setup: $(STAMP)  ## install everything below .venv, and the Debian packages that the tests use

demo: $(STAMP)  ## a whole cluster on this machine, with a failover to watch (root)
	@$(BIN)/hasys demo $(ARGS)

test: $(STAMP) check unit lab  ## everything that CI runs (root, about 15 minutes)

check: lint types layers proto-check  ## style, types, layers, generated code

lint: $(STAMP)  ## ruff
	@$(BIN)/ruff check hasys witness tests bench tools
	@$(BIN)/ruff format --check hasys witness tests bench tools

types: $(STAMP)  ## mypy, strict
	@$(BIN)/mypy

layers: $(STAMP)  ## import-linter: who may import whom
	@$(BIN)/lint-imports

unit: $(STAMP)  ## pure logic and adapters, no root needed
	@$(BIN)/pytest -q -n 2 --dist worksteal tests/unit tests/scenarios tests/sim tests/conformance tests/chaos tests/fuzz tests/security

sim: $(STAMP)  ## the whole store in virtual time under every fault (long); ARGS="--minutes 10 --seed 1"
	@$(BIN)/python -m tests.sim.store $(ARGS)

linearize: $(STAMP)  ## real stores under faults, history checked (long); ARGS="--minutes 10 --seed 1"
	@$(BIN)/python -m tests.chaos.linearize $(ARGS)

fuzz: $(STAMP)  ## coverage-guided, every decoder (long); ARGS="--seconds 600 manifest lease"
	@$(BIN)/pip install -qq --disable-pip-version-check --no-deps --require-hashes -r tests/fuzz/requirements.txt
	@$(BIN)/python -m tests.fuzz $(ARGS)

chaos: $(STAMP)  ## two and three faults at random on a live cluster (root, long); ARGS="--minutes 30 --seed 1"
	@$(BIN)/python -m tests.lab.storm $(ARGS)

endurance: $(STAMP)  ## minutes of overload of each kind, and no role changes (root, long); ARGS="--minutes 10 --only disk"
	@$(BIN)/python -m tests.lab.endurance $(ARGS)

powercuts: $(STAMP)  ## real stores on disks that forget what was not synced (root, long); ARGS="--times 50"
	@$(BIN)/python -m tests.chaos.powercuts $(ARGS)

kills: $(STAMP)  ## kill -9 of real stores, nothing acknowledged is lost (long); ARGS="--times 1000"
	@$(BIN)/python -m tests.chaos.kills $(ARGS)

databases: $(STAMP)  ## real databases on a shared disk, killed and moved with a client writing (root, long); TIMES=20
	@PYTHON=$(PYTHON) VENV=$(VENV) APT="$(APT) postgresql mariadb-server curl" sh tools/setup.sh
	@HASYS_TIMES=$(or $(TIMES),20) $(BIN)/pytest -q -s tests/databases

lab: $(STAMP)  ## real kernels in namespaces (root)
	@$(BIN)/pytest -q $(MOUNTS)
	@$(BIN)/pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not long" $(MOUNTS:%=--ignore %) tests/lab tests/matrix

two-nodes: $(STAMP)  ## every row of docs/two-nodes.md on real nodes (root, long); ARGS="-x"
	@$(BIN)/pytest -q tests/lab/test_two_nodes.py tests/lab/test_two_arbiter.py tests/lab/test_two_alone.py $(ARGS)

observers: $(STAMP)  ## three nodes that vote and eight that only run groups (root, long); ARGS="-x"
	@$(BIN)/pytest -q -s tests/lab/test_observers.py $(ARGS)

many-groups: $(STAMP)  ## 256 groups, and the node that has half of them is lost (root, long); ARGS="-x"
	@$(BIN)/pytest -q -s tests/lab/test_many_groups.py $(ARGS)

upgrade: $(STAMP)  ## an older version replaced node by node, with clients asking (root, long); HASYS_OLD=COMMIT ARGS="-x"
	@$(BIN)/pytest -q -s tests/lab/test_upgrade.py $(ARGS)

matrix: $(STAMP)  ## every test that docs/matrix.md names, fault by fault (root, long); ARGS="-x"
	@$(BIN)/python -m tests.matrix $(ARGS)

vm-test: $(STAMP)  ## real boots, power cuts and a watchdog in guests of ../shared/vmlab (root, QEMU, under 15 minutes)
	@$(BIN)/pytest -q -s tests/vm $(ARGS)

bench: $(STAMP)  ## failover beside keepalived and Pacemaker (root, long); ARGS="--runs 30"
	@sh tools/debian.sh pacemaker corosync pacemaker-cli-utils resource-agents
	@$(BIN)/python -m bench.failover $(ARGS)

bench-store: $(STAMP)  ## the store beside etcd and PySyncObj (root installs etcd; long); ARGS="--quick --only writes"
	@sh tools/debian.sh etcd-server etcd-client
	@$(BIN)/python -m bench.store $(ARGS)

proto: $(STAMP)  ## generate hasys/v1 from proto/
	@VENV=$(VENV) sh tools/proto.sh hasys/v1

proto-check: $(STAMP)  ## is the generated code fresh?
	@VENV=$(VENV) sh tools/proto.sh --check

lock: $(STAMP)  ## pin every dependency, with hashes
	@sh tools/lock.sh

clean:  ## remove what was built
	@rm -rf $(VENV) out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
