# SPDX-License-Identifier: Apache-2.0
# Two commands do everything on a fresh Debian machine: `make run` and `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
RINGFENCE := target/release/ringfence
PACKAGES := clang clang-format llvm libelf-dev zlib1g-dev pkg-config gcc libc6-dev xz-utils zstd
# What the tests and the lab need besides.
LAB_PACKAGES := qemu-system-x86 seabios ipxe-qemu busybox-static kmod mmdebstrap e2fsprogs
# What `make test` attacks; `make lab` attacks all that can be.
test: KERNELS_ATTACKED := 6.12-cloud-amd64 7-cloud-amd64
# Only root can load BPF programs; everybody else is told what was left out.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
C_SOURCES := $(wildcard bpf/*.c bpf/*.h bpf/lib/*.h tests/attacks/*.h tests/attacks/*/*.c)

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install what building needs, from Debian's packages, if it is missing.
	@tools/install-dependencies $(PACKAGES)

.PHONY: deps-lab
deps-lab: ## Install what the tests and the lab need besides, if it is missing.
	@tools/install-dependencies $(PACKAGES) $(LAB_PACKAGES)

.PHONY: build
build: deps ## Build ringfence and ringfenced, optimised.
	$(CARGO) build --release --locked --package ringfence-cli --package daemon

.PHONY: run
run: build ## Check this machine's kernel, then run ringfenced with its guard and show events; on a terminal until Ctrl-C.
	@# A finding is shown and does not keep the rest from being shown; the end is as that of the check.
	@found=0; $(AS_ROOT) $(RINGFENCE) check || found=$$?; [ $$found -le 1 ] || exit $$found; \
		$(AS_ROOT) tools/show-events target/release; exit $$found

.PHONY: kernels
kernels: deps-lab ## Fetch the Debian kernels for the tests and the lab (cached in .cache/kernels).
	tests/kernels/fetch

.PHONY: programs
programs: kernels ## Fetch programs of a newer Debian that tests run (cached in .cache/programs).
	$(AS_ROOT) tests/programs/fetch

.PHONY: attacks
attacks: kernels ## Build the attack subjects, which only ever load in the lab.
	$(AS_ROOT) tests/attacks/build $(KERNELS_ATTACKED)

.PHONY: test
test: kernels programs attacks ## Run all tests, and the lab's core set.
	tests/run

# A test among them, so that crates get the features that tests want and are not built twice.
.PHONY: lab-programs
lab-programs: deps
	$(CARGO) build --release --locked --workspace --bins --test rings

.PHONY: lab
lab: deps-lab ## Run all scenarios on all kernels (KERNEL=7.3 SCENARIO=boots for some).
	@# Kernels come while cargo builds; what the two say is mixed.
	$(MAKE) --no-print-directory --jobs 2 attacks lab-programs
	target/release/ringfence-lab scenarios \
		$(addprefix --kernel ,$(KERNEL)) $(addprefix --scenario ,$(SCENARIO))

.PHONY: detection
detection: lab-programs ## Write docs/detection.md, of the attacks that the lab carried out last.
	target/release/ringfence-lab detection

.PHONY: coverage
coverage: lab-programs ## Write docs/coverage.md, of the doors that tests in the lab's guests opened last.
	target/release/ringfence-lab coverage

.PHONY: lint
lint: deps ## rustfmt, clippy, clang-format, licence lines, cargo-deny.
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- --deny warnings
	clang-format --dry-run --Werror $(C_SOURCES)
	tools/lint-files
	tools/deny

.PHONY: bench
bench: kernels lab-programs ## Measure reader, guard and security API on this machine, and an exec in a guest by instructions.
	$(AS_ROOT) $(RINGFENCE) bench reader
	$(AS_ROOT) $(RINGFENCE) bench guard
	$(AS_ROOT) $(RINGFENCE) bench mutations
	$(AS_ROOT) $(RINGFENCE) bench api
	target/release/ringfence-lab scenarios --scenario figures

.PHONY: tables
tables: build kernels ## Print what the fetched Debian kernels hold, a row for each table.
	$(RINGFENCE) image $$(find .cache/kernels -maxdepth 2 -name 'vmlinuz*' | sort -V)

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
