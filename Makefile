# The two commands of the README, and what CI calls.

TARGET = $(abspath $(or $(CARGO_TARGET_DIR),target))
RINGFENCE = $(TARGET)/debug/ringfence
DEMO = $(TARGET)/demo
THREE = -f examples/three-tiers/tenancy.yaml --sandbox=$(DEMO)
REQUESTS = $(TARGET)/requests
# Many tests wait for other programs and for leases, so there are more tests at once than cores.
THREADS = $(or $(RUST_TEST_THREADS),$(shell expr $$(nproc) + 1))

HOST = $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: demo test lint bench engines static

demo: ## Plan, apply and plan again three tiers in the sandbox
	cargo build --quiet
	rm -rf $(DEMO)
	$(RINGFENCE) plan $(THREE)
	$(RINGFENCE) apply $(THREE) --auto-approve
	$(RINGFENCE) plan $(THREE) --detailed-exitcode

test: ## All tests; then the requests that sandboxes recorded, against AWS's models
	rm -rf $(REQUESTS) && mkdir -p $(REQUESTS)
	cargo test --no-run
	cargo test --test it -- --ignored --exact support::kubernetes::programs_are_there
	RINGFENCE_RECORD_DIR=$(REQUESTS) RUST_TEST_THREADS=$(THREADS) cargo test
	$(or $(RINGFENCE_TEST_PYTHON),$(TARGET)/tmp/python/bin/python) tests/models/check_requests.py $(REQUESTS)/*.jsonl

lint: ## Format and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

engines: ## All policy engines on all requests, among them an API server of 1.24; writes docs/engines.md
	RINGFENCE_UPDATE_GOLDEN=1 cargo test --test it engines:: -- --ignored --test-threads 1

bench: ## Calls, CPU and memory against the terraform baseline
	cargo build --quiet
	python3 benches/report.py

static: ## A program without shared libraries, in target/static. With --target, build scripts and macros stay dynamic
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin ringfence --target $(HOST)
	mkdir -p $(TARGET)/static
	cp $(TARGET)/$(HOST)/release/ringfence $(TARGET)/static/ringfence
