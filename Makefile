# SPDX-License-Identifier: Apache-2.0
# Two commands do everything on a fresh Debian machine: `make run` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RINGFENCE := target/release/ringfence
PACKAGES := clang clang-format llvm libelf-dev zlib1g-dev pkg-config gcc libc6-dev xz-utils zstd
# Only root can load BPF programs; everybody else is told what was left out.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
BPF_SOURCES := $(wildcard bpf/*.c bpf/*.h bpf/lib/*.h)

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what building needs, from Debian's packages, if it is missing.
	@tools/install-dependencies $(PACKAGES)

.PHONY: build
build: deps ## Build the ringfence command, optimised.
	$(CARGO) build --release --locked --package ringfence-cli

.PHONY: run
run: build ## Check the kernel that this machine runs on; then, on a terminal, go on watching it.
	$(AS_ROOT) $(RINGFENCE) check
	@if [ -t 1 ]; then $(AS_ROOT) $(RINGFENCE) watch; fi

.PHONY: kernels
kernels: deps ## Fetch the Debian kernels that the tests read (cached in .cache/kernels).
	tests/kernels/fetch

.PHONY: test
test: deps kernels ## Run all tests.
	tests/run

.PHONY: lint
lint: deps ## rustfmt, clippy, clang-format, licence lines, cargo-deny.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	clang-format --dry-run --Werror $(BPF_SOURCES)
	tools/lint-files
	tools/deny

.PHONY: bench
bench: build ## Measure the reader and the guard on this machine, against the goals.
	$(AS_ROOT) $(RINGFENCE) bench reader
	$(AS_ROOT) $(RINGFENCE) bench guard
	$(AS_ROOT) $(RINGFENCE) bench mutations

.PHONY: tables
tables: build kernels ## Print what the fetched Debian kernels hold, a row for each table.
	$(RINGFENCE) image $$(find .cache/kernels -name 'vmlinuz*' | sort -V)

.PHONY: man
man: build ## Write man pages and shell completions to target/documentation.
	$(RINGFENCE) documentation target/documentation

.PHONY: fuzz
fuzz: kernels ## Fuzz each parser for a minute (FUZZ_SECONDS=60).
	fuzz/make-corpus
	fuzz/run $${FUZZ_SECONDS:-60}

.PHONY: clean
clean: ## Remove what was built; the fetched kernels stay.
	$(CARGO) clean
