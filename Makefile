# `make` lists what there is. Whatever a target needs on the machine it installs first (tests/bootstrap).

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export PATH := $(CURDIR)/target/tools/bin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

ARCHS ?= mipsel_24kc
LAB ?= tests/topologies/three-sites.toml
NEXTEST_PROFILE := $(if $(filter true,$(CI)),ci,default)

.DEFAULT_GOAL := help
.PHONY: help demo test lab build bins lint nextest doctest proofs vm size cross package advisories clean bootstrap root

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: root ## three sites become one network, step by step, on real packets (ONCE=1: exit after the proof)
	@tests/bootstrap lab
	@$(MAKE) --no-print-directory bins
	@$(if $(ONCE),GATEWRT_DEMO_ONCE=1) $(TARGET_DIR)/debug/demo

test: root ## everything that can be checked, with the time each stage took
	@+tests/stages bootstrap lint build nextest doctest proofs size package vm

lab: root ## three sites, a NAT and LAN hosts in network namespaces, to look around in (LAB=another topology)
	@tests/bootstrap lab
	@$(MAKE) --no-print-directory bins
	@$(TARGET_DIR)/debug/lab up $(LAB)

build: ## all programs and tests
	@tests/bootstrap build
	cargo build --locked --workspace --all-targets

bins:
	cargo build --locked --workspace --bins

lint: ## format, clippy, shellcheck, licences, bans and sources, LuCI's pages
	@tests/bootstrap lint
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --features gatewrt-tests/vm -- -D warnings
	cargo deny --locked --log-level error check --hide-inclusion-graph licenses bans sources
	tests/shellcheck
	tests/luci/lint

advisories: ## known vulnerabilities in dependencies (fetches RustSec's database: needs the open network)
	cargo deny --locked check advisories

nextest: root ## unit tests, and the lab's tests on real packets
	@tests/bootstrap test
	cargo nextest run --locked --workspace --profile $(NEXTEST_PROFILE)

doctest:
	cargo test --locked --workspace --doc --quiet

# Too long for every test run of a developer's: nextest does a few of each.
proofs: root ## a million events of exits in memory (seeds printed), and twenty deaths of an exit with real packets
	@tests/bootstrap test
	GATEWRT_EVENTS=1000000 cargo test --locked --release -p gatewrt --test simulation -- --nocapture
	cargo test --locked -p gatewrt-tests --test failover --no-run
	GATEWRT_RUNS=20 cargo test --locked -p gatewrt-tests --test failover an_exit_that_dies -- --nocapture \
	    2>$(TARGET_DIR)/failover.log || { cat $(TARGET_DIR)/failover.log >&2; exit 1; }

vm: root ## the daemon as built for routers, on an emulated MIPS router and with kernel WireGuard
	@tests/bootstrap cross test vm
	@cross/build mipsel_24kc x86_64
	@openwrt-package/build mipsel_24kc x86_64
	@$(MAKE) --no-print-directory bins
	cargo nextest run --locked --workspace --features gatewrt-tests/vm --test 'vm_*' --profile $(NEXTEST_PROFILE) --no-capture

size: ## the daemon for a MIPS router, in bytes of its flash (ARCHS="…|all")
	@tests/bootstrap cross
	@cross/build $(ARCHS)
	@cross/size $(ARCHS)

cross: ## the daemon for every architecture of cross/targets, into dist/
	@tests/bootstrap cross
	@cross/build all

package: root ## packages for OpenWrt, .ipk and .apk, of every architecture of cross/targets, and looks at them (into dist/)
	@tests/bootstrap cross
	@cross/build all
	@openwrt-package/check

clean: ## removes what was built and what bootstrap put under target/
	rm -rf dist target
	cargo clean

bootstrap:
	@tests/bootstrap build test lint cross

root:
	@[ "$$(id -u)" = 0 ] || { echo 'network namespaces need root: sudo env PATH="$$PATH" make $(MAKECMDGOALS)' >&2; exit 1; }
