# The two commands of the README, and what CI calls.

RINGFENCE = target/debug/ringfence
THREE = -f examples/three-tiers/tenancy.yaml --sandbox=target/demo

.PHONY: demo test lint bench

demo: ## Plan, apply and plan again three tiers in the sandbox
	cargo build --quiet
	rm -rf target/demo
	$(RINGFENCE) plan $(THREE)
	$(RINGFENCE) apply $(THREE) --auto-approve
	$(RINGFENCE) plan $(THREE) --detailed-exitcode

test: ## All tests
	cargo test

lint: ## Format and clippy
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

bench: ## Calls, CPU and memory against the terraform baseline
	cargo build --quiet
	python3 benches/report.py
