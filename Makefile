# Every target is one line; the pipeline calls these and nothing else.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION)
TOOL     := go tool -modfile=tools/go.mod
PACKAGES ?= ./...
FUZZTIME ?= 10s
BENCH    ?= .
# What one room can measure alone is measured there, what crosses rooms in bench.
BENCHED  ?= ./bench ./store/pebble ./reconciler ./scheduler ./sources/git ./agent ./agent/ingress ./manifest ./api
# Where the pictures of the page go.
SHOTS    ?= bin/screenshots
# For bench/peers, such as -runs 9, -only ingress or -compose PATH.
PEERS    ?=
# For bench/fleet, such as -nodes 1000 -projects 10000.
FLEET    ?=
# Packages share one engine and a couple of cores: two at a time keeps their time-outs honest.
TESTFLAGS ?= -p 2 -timeout 40m
# For bench-page: how long each measurement lasts.
FIGURES  ?= 10s
# For robustness: how long the traffic lasts, and how many runs of each scenario. SEED, SCENARIO, FAULTS and REPORT choose more.
# CLOCKS= leaves out the steps of clocks, for which all programs are built once more.
# RUNS is also how often bench-ha kills each program.
LENGTH   ?= 2m
RUNS     ?= 3
CLOCKS   ?= 1
# The rooms whose goroutines share memory. e2e runs the programs as processes of their own, which -race does not reach.
RACED    ?= ./agent/... ./apiserver/... ./certs/... ./gc/... ./internal/... ./plan/... ./reconciler/... ./scheduler/... ./sources/... ./store/...

.PHONY: help build generate fmt lint test race e2e soak robustness fuzz bench bench-fleet bench-front bench-page bench-ha demo screenshots check verify

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## put cara-server, cara-agent and caractrl into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/cara-server ./cmd/cara-agent ./cmd/caractrl

generate: ## make gen/ and the manifest reference from proto/
	hack/generate

fmt: ## format the Go files
	hack/format

lint: ## run the linters of .golangci.yml and buf's
	$(TOOL) buf lint && $(TOOL) golangci-lint run $(PACKAGES)

test: ## all tests, with a real engine, git server and registry
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST && go test $(TESTFLAGS) $(PACKAGES)

race: ## the tests of the rooms that have loops that need no engine, under the race detector
	go test -race -short -p 2 -timeout 30m $(RACED)

e2e: ## the end-to-end tests alone; what they need must be there
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST E2E=1 && go test -count=1 -timeout 15m ./e2e/...

soak: ## the tests that take long: thousands of cycles, hundreds of projects, a thousand rounds with data, the agent killed at each moment of each call
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST E2E=1 CARA_SOAK=1 && go test -count=1 -v -timeout 6h -run 'Cycles|TwoHundred|ManyProjectsInOnePush|PortForward|StormOfPushes|StartFirst|DataRounds|RealMany|KilledAtEachCall|UnderKills|RestartKilled|OverRotation' ./e2e ./agent

robustness: ## random calls, pushes and faults for LENGTH, RUNS times each scenario; what clients were told is checked. e2e/robustness/README.md
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST E2E=1 $(foreach v,LENGTH RUNS SEED SCENARIO FAULTS REPORT CLOCKS,CARA_ROBUSTNESS_$(v)='$($(v))') && go test -count=1 -v -timeout 12h -run TestRobustness ./e2e/robustness

fuzz: ## each fuzz target for FUZZTIME
	hack/fuzz $(FUZZTIME)

bench: ## the benchmarks, and the table of docs/performance.md
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST && go test -run '^$$' -bench '$(BENCH)' -benchmem -timeout 60m $(BENCHED) && go run ./bench/peers $(PEERS)

bench-fleet: ## one server with many simulated agents
	go run ./bench/fleet $(FLEET)

bench-front: ## the agent's ingress and ports beside Caddy, nginx and HAProxy, where they are installed
	go run ./bench/front $(FRONT)

bench-page: ## what open pages cost the server and the browser, FIGURES=10m for each measurement
	CARA_PAGE_FIGURES='$(FIGURES)' E2E=1 go test -count=1 -v -timeout 6h -run 'TestOpenPages|TestTabMemory|TestManyProjects' ./apiserver/ui

bench-ha: ## three servers on three members of etcd: RUNS kills of the server that runs the scheduler and of etcd's leader, a rolling upgrade, and writes and pushes beside a server alone
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST E2E=1 CARA_HA_FIGURES=$(RUNS) && go test -count=1 -v -timeout 60m -run 'TestFiguresHA|TestRollingUpgrade' -parallel 1 ./e2e

demo: build ## from a git push to running containers, told step by step; KEEP=1 leaves it up; HA=1 tells of three servers on etcd
	DOCKER_HOST="$$(hack/engine up)" && export DOCKER_HOST KEEP="$(KEEP)" && go run ./e2e/demo -bin bin $(if $(HA),-ha)

screenshots: ## pictures of every view of the page, in SHOTS; docs/page.png is the overview
	CARA_SCREENSHOTS="$(abspath $(SHOTS))" E2E=1 go test -count=1 -run TestScreenshots ./apiserver/ui && cp $(SHOTS)/page--1280-false.png docs/page.png

check: build ## the fast part: build, vet, lint, tests that need no engine
	go vet $(PACKAGES) && $(TOOL) golangci-lint run $(PACKAGES) && go test -short -timeout 5m $(PACKAGES)

verify: generate ## what must hold before a push: generated code, format, lint, build, all tests, races. The pipeline runs this
	hack/generated && hack/format check && $(MAKE) build && $(MAKE) lint && $(MAKE) race && $(MAKE) test E2E=1
