# Everything that people type. The logic stands in tools/; CI runs the same targets.

.DEFAULT_GOAL := help
SHELL := /bin/bash
export CARGO_TERM_COLOR ?= auto

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  %-14s %s\n", $$1, $$2}'

demo: ## See it work: a server, a host, its death, the alert, its return; on loopback, cleaned up afterwards
	@tools/demo.sh

build: ## Build hb and hb-server for use
	cargo build --release -p hb
	cargo build --profile server -p hb-server

deb: ## Build the Debian packages for amd64 and arm64 into target/debian/
	@tools/setup.sh deb
	@tools/deb.sh

apt-repo: ## Make or extend a signed apt repository: KEY=your-gpg-key, DIR=target/apt, URL=https://…, VALID_DAYS=
	@tools/apt-repo.sh --key '$(KEY)' $(if $(DIR),--to '$(DIR)') $(if $(URL),--url '$(URL)') $(if $(VALID_DAYS),--valid-days $(VALID_DAYS))

lambda: ## Build the functions for AWS into target/lambda/ (arm64, without Docker); packaging/lambda/README.md says what for
	@tools/lambda/build.sh

cloud: setup ## The whole serverless stack on loopback: real functions, DynamoDB, SNS, SQS; REGIONS=2 for two regions; ARGS="--minute 10" for short minutes
	@cargo build -q --workspace --bins
	@tools/cloud.sh $(if $(REGIONS),--regions $(REGIONS)) $(ARGS)

test: ## Install what the tests need, then run every test and every check
	@tools/setup.sh packages
	@tools/test.sh

check: setup ## Formatting, lints, documentation, licences, layering
	@tools/check.sh

bench: ## Measure the figures of hb on this machine
	@tools/bench.sh

test-heavy: ## Run the load tests of the server, the one that `make test` leaves out included; HB_KILL_ROUNDS=200 for long
	cargo nextest run --profile long --success-output final --workspace -E 'test(heavy)'

test-packages: setup ## The packages as they are shipped, on real Debian roots and broken networks; PARTS="life cron" for some
	@tools/setup.sh packages
	@tools/setup.sh arm64
	@tools/packaging-test.sh --release $(PARTS)
	@$(if $(PARTS),,HB_TEST_AGENT=$(CURDIR)/target/x86_64-unknown-linux-musl/release/hb cargo nextest run --workspace -E 'package(hb-server) & test(network)')

boot-test: ## The agent on a whole emulated machine: clock at 1970 and 2040, power cut, sleep, cgroup limits (as root; minutes)
	@tools/boot-test.sh

piuparts: ## Only piuparts, on both packages
	@$(MAKE) --no-print-directory test-packages PARTS=piuparts

sim: ## Run simulated worlds for a minute; ARGS="--seed 7 --trace" runs one
	cargo run -q -p hb-sim -- $(ARGS)

sim-regions: ## Run 1,000 simulated worlds of two regions, a quarter of an hour; ARGS="--seed 7 --trace" runs one
	@tools/dynamodb/setup.sh
	@cargo build -q --workspace --bins
	@target/debug/hb-sim-regions $(or $(ARGS),--worlds 1000)

soak: ## Run simulated worlds for MINUTES=60
	cargo run -q -p hb-sim -- --minutes $(or $(MINUTES),60)

setup: ## Install what the tests need (idempotent)
	@tools/setup.sh

clean: ## Remove what was built
	cargo clean
	rm -rf .cache

.PHONY: help demo build deb lambda cloud test check bench test-heavy test-packages boot-test piuparts apt-repo sim sim-regions soak setup clean
