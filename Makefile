# `make` lists the targets. Each target first installs what it needs (tests/bootstrap).

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export PATH := $(CURDIR)/target/tools/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Programs of the demo and the lab; no tests.
DEMO_BUILD := cargo build --locked -p gatewrt -p gatewrt-coordinator -p gatewrt-tests $(patsubst %,--bin %,gatewrt gatewrt-coordinator lab demo)
# Architectures that `make test` cross-builds, as its virtual machines run them. `make package` builds all, for a release.
TEST_ARCHS := mipsel_24kc x86_64
# Always the same selection: it decides the features of dependencies, and other features would mean a rebuild.
CARGO_BUILD := cargo build --locked --workspace --all-targets
LAB ?= tests/topologies/three-sites.toml
NEXTEST_PROFILE := $(if $(filter true,$(CI)),ci,default)

.DEFAULT_GOAL := help
.PHONY: help demo test lab build lint nextest doctest proofs simulation deaths vm size cross package advisories clean bootstrap root

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: root ## join three sites, step by step, on real packets (ONCE=1: end after the last step)
	@tests/bootstrap demo
	$(DEMO_BUILD)
	@$(if $(ONCE),GATEWRT_DEMO_ONCE=1) $(TARGET_DIR)/debug/demo

test: root ## run every check, with a table of the time of each stage
	@+ARCHS="$(TEST_ARCHS)" tests/stages bootstrap lint build nextest doctest deaths size package simulation vm

lab: root ## start three sites, a NAT box and LAN hosts in network namespaces, to explore (LAB=FILE: another topology)
	@tests/bootstrap lab
	$(DEMO_BUILD)
	@$(TARGET_DIR)/debug/lab up $(LAB)

build: ## build all programs and tests
	@tests/bootstrap build
	$(CARGO_BUILD)

lint: ## check format, clippy, shell scripts, licences, bans and sources of dependencies, LuCI's pages
	@tests/bootstrap lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo deny --locked --log-level error check --hide-inclusion-graph licenses bans sources
	tests/shellcheck
	tests/luci/lint

advisories: ## check dependencies for known vulnerabilities (downloads the RustSec database)
	cargo deny --locked check advisories

nextest: root ## run unit tests, and the lab's tests on real packets
	@tests/bootstrap test
	cargo nextest run --locked --workspace --profile $(NEXTEST_PROFILE)

doctest:
	cargo test --locked --workspace --doc --quiet

# Too long for every test run of a developer; nextest runs a few of each.
proofs: simulation deaths ## simulate a million exit events (prints seeds), and let an exit fail twenty times on real packets

simulation:
	@tests/bootstrap build
	@$(CARGO_BUILD)
	GATEWRT_EVENTS=1000000 cargo test --locked --workspace --test simulation -- --nocapture

deaths: root
	@tests/bootstrap test
	@$(CARGO_BUILD)
	GATEWRT_RUNS=20 cargo test --locked --workspace --test lab failover::dead_exit -- --nocapture \
	    2>$(TARGET_DIR)/failover.log || { cat $(TARGET_DIR)/failover.log >&2; exit 1; }

vm: root ## test the router builds in virtual machines: kernel WireGuard, an emulated MIPS router, throughput
	@tests/bootstrap cross test vm
	@cross/build $(TEST_ARCHS)
	@openwrt-package/build $(TEST_ARCHS)
	@$(CARGO_BUILD)
	cargo nextest run --locked --workspace --test vm --run-ignored only --profile $(NEXTEST_PROFILE)

size: ARCHS ?= mipsel_24kc
size: ## build the daemon for a MIPS router, check its package size and its crash log (ARCHS="…|all")
	@tests/bootstrap cross
	@cross/build $(ARCHS)
	@cross/size $(ARCHS)
	@cross/crash $(ARCHS)

cross: ## build the daemon for every architecture of cross/targets, into dist/
	@tests/bootstrap cross
	@cross/build all

package: ARCHS ?= all
package: root ## build and check OpenWrt packages, .ipk and .apk, for every architecture, into dist/ (ARCHS="…|all")
	@tests/bootstrap cross
	@cross/build $(ARCHS)
	@openwrt-package/check $(ARCHS)
	@cross/crash $(ARCHS)

clean: ## remove what was built and what bootstrap put under target/
	rm -rf dist target
	cargo clean

bootstrap:
	@tests/bootstrap build test lint cross vm

root:
	@[ "$$(id -u)" = 0 ] || { echo 'network namespaces need root: sudo env PATH="$$PATH" make $(MAKECMDGOALS)' >&2; exit 1; }
