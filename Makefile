# make build   every program into bin/
# make up      build, then start a whole local system (primary, standby, monitor)
# make down    stop it
# make check   format, vet, staticcheck, layers, generated files current
# make cover   fails unless the tests of the packages that decide reach every statement of them (part of make check)
# make mutants the rules of those packages broken one at a time: the tests must notice (part of make test)
# make test    every test, about twelve minutes on two cores
# make bench   throughput against PostgreSQL on this machine
# make sim     lives in virtual time, of the watchers' and monitors' decisions, SEEDS of them, and of whole clusters, CLUSTERS; goes on where it stopped
# make chaos   kills, cuts and stops for as long as it takes, then fuzz and sim
# make large   ten million rows and 100 MB values in 512 MB of memory
# make huge    20 GB of data in 512 MB of memory (DW_HUGE_MB, DW_HUGE_MEMORY, DW_HUGE_DIR); hours, and 50 GB of disk
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go
STATICCHECK ?= $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
PROGRAMS := $(notdir $(wildcard cmd/*))

export CGO_ENABLED := 0

.PHONY: build up down deps check test race fuzz bench sim chaos mutants cover large huge generate clean

# One build for all programs, with the flags of the tests, so that both share
# what is compiled; the SQL engine takes a minute or two the first time.
build:
	@mkdir -p bin
	@echo "building $(PROGRAMS) into bin/ (the first time takes a minute or two)"
	@$(GO) build -o bin/ ./cmd/...

up: build
	bin/dw up $(ARGS)

down:
	bin/dw down $(ARGS)

deps:
	@.ci/deps

check:
	@bad=$$($(GO) list -f '{{.Dir}}' ./... | xargs gofmt -l); \
		if [ -n "$$bad" ]; then echo "gofmt these:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test ./test ./internal/config
	$(MAKE) cover

# Every statement of the packages that decide is reached by their tests.
DECISIONS := ./internal/ha/fsm ./internal/ha/confirm ./internal/ha/cond
cover:
	@f=$$(mktemp); trap 'rm -f $$f' EXIT; \
		DW_SIM_SEEDS=20 $(GO) test -coverprofile=$$f -coverpkg=$$(echo $(DECISIONS) | tr ' ' ,) $(DECISIONS) >/dev/null && \
		$(GO) tool cover -func=$$f | awk '!/100.0%$$/ && $$2 != "event" && $$2 != "action" {print; bad = 1} /^total/ {ok = 1} \
			END {if (!ok || bad) {print "the tests of $(DECISIONS) do not reach every statement"; exit 1}}'

# Real processes have the machine to themselves: they come last. The timeout is
# per package.
test: export DW_SIM_SEEDS ?= 10000
test: export DW_MUTANT_SEEDS ?= 200
test: export DW_CLUSTER_SEEDS ?= 200
test: deps build
	$(GO) test -timeout 9m $$($(GO) list ./... | grep -v '/test/e2e$$')
	DW_E2E_BIN=$(CURDIR)/bin $(GO) test -timeout 12m -count=1 -v ./test/e2e | grep --line-buffered -Ev '^(=== (RUN|PAUSE|CONT)|    harness_test.go)'

race:
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./internal/...

# Every fuzz target for FUZZTIME each.
FUZZTIME ?= 20s
fuzz:
	@grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r d; do \
		for f in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$d/*_test.go | cut -c6-); do \
			echo "$$d $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$d; \
		done; \
	done

bench: deps build
	bin/dw bench $(ARGS)

# The file remembers the next seed. A seed that fails is printed with the
# command that repeats it.
SEEDS ?= 10000
CLUSTERS ?= 1000
sim: deps
	DW_SIM_SEEDS=$(SEEDS) DW_SIM_FILE=$(CURDIR)/.sim-seeds $(GO) test -count=1 -timeout 0 -run '^TestSeeds$$' -v ./internal/ha/fsm
	DW_CLUSTER_SEEDS=$(CLUSTERS) DW_CLUSTER_FILE=$(CURDIR)/.cluster-seeds $(GO) test -count=1 -timeout 0 -run '^TestSeeds$$' -v ./test/cluster

# Which suite notices each broken rule, and after how many lives. Several rules
# stand behind another one and are noticed by stories only.
mutants: export DW_MUTANT_SEEDS ?= 2000
mutants: export DW_CLUSTER_MUTANTS ?= 300
mutants: deps
	$(GO) test -count=1 -timeout 0 -run '^TestMutants$$' -v ./test/mutants ./test/cluster

CHAOS_FUZZTIME ?= 60s

# Long runs of the end-to-end tests that can be made longer; CONTRIBUTING.md
# lists the DW_ variables.
chaos: export DW_KILLS ?= 500
chaos: export DW_SWITCHOVERS ?= 200
chaos: export DW_ROUNDS ?= 30
chaos: export DW_DIFF_SECONDS ?= 300
chaos: export DW_SOAK ?= 30
chaos: export DW_NETWORK ?= all
chaos: export DW_PROCESSES ?= all
chaos: export DW_LOST ?= 60
chaos: export DW_DISTURB ?= 7200
chaos: export DW_SAMPLES ?= 20
chaos: export DW_CATCHUP_MB ?= 1000
chaos: export DW_E2E_BIN = $(CURDIR)/bin
chaos: deps build
	$(GO) test -v -count=1 -timeout 0 -run '^(TestKillPrimary|TestKillBothDatabases|TestKillStandby|TestNoMonitorNoTakeover|TestTwoStandbys|TestSwitchover|TestNetworkFaults|TestServiceCard|TestProcessFaults|TestMachineLost|TestSlowDisk|TestNoFalseTakeover|TestMeasured|TestCatchUp|TestProof|TestSoak)$$' ./test/e2e $(ARGS)
	$(MAKE) fuzz FUZZTIME=$(CHAOS_FUZZTIME)
	$(MAKE) sim SEEDS=20000 CLUSTERS=20000
	$(MAKE) mutants

# Transactions of ten million rows, values of 100 MB, on servers with
# MEMORY_LIMIT = 512; prints the memory used and how long readers waited. It takes
# half an hour and 20 GB of disk.
large: export DW_LARGE_ROWS ?= 10000000
large: export DW_LARGE_VALUE ?= 100
large: export DW_LARGE_MEMORY ?= 512
large: export DW_E2E_BIN = $(CURDIR)/bin
large: deps build
	$(GO) test -v -count=1 -timeout 0 -run '^TestLarge$$' ./test/e2e $(ARGS)
	$(GO) test -v -count=1 -timeout 0 -run '^(TestPowerCuts|TestStandbyPowerCuts)$$' ./internal/storage/engine -cuts 20000

huge: export DW_HUGE_MB ?= 20480
huge: export DW_HUGE_MEMORY ?= 512
huge: export DW_E2E_BIN = $(CURDIR)/bin
huge: deps build
	$(GO) test -v -count=1 -timeout 0 -run '^TestHuge$$' ./test/e2e $(ARGS)

generate:
	$(GO) generate ./...

clean:
	rm -rf bin
