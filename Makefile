# The commands of this project; README.md tells which one does what.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

VERSION ?= 0.1.0
GO ?= go
export GOFLAGS ?= -buildvcs=false
PROGRAMS := fastnd fastn
LDFLAGS := -X main.version=$(VERSION)

.PHONY: build
build: ## bin/fastnd and bin/fastn
	$(GO) build -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

.PHONY: test
test: deps-test build ## every test; those that need root skip visibly without it
	$(GO) test -race -timeout 20m $(TESTFLAGS) $$($(GO) list ./... | grep -v /test/)
	@# These build the programs themselves, which go test's cache does not see.
	$(GO) test -count=1 -timeout 20m $(TESTFLAGS) ./test/...

.PHONY: torture
torture: deps-test build ## the long forms of the tests, on every Debian; hours, not minutes
	FASTN_TORTURE=1 $(GO) test -count=1 -timeout 4h -v $(TESTFLAGS) ./test/fire/...
	FASTN_TORTURE=1 $(GO) test -race -count=1 -timeout 2h $(TESTFLAGS) $$($(GO) list ./... | grep -v /test/)
	FASTN_TORTURE=1 $(GO) test -count=1 -timeout 2h -v $(TESTFLAGS) ./test/e2e

.PHONY: lint
lint: deps-lint ## gofmt, vet, staticcheck, shellcheck
	@out=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$out" || { echo "not gofmt-ed: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	@files=$$(git ls-files '*.sh' .ci/run packaging/install-deps packaging/deb/{stage,same,apt-repo,third-party} 'packaging/deb/debian/fastn.p*' packaging/systemd/fastn-mail); shellcheck $$files

.PHONY: demo
demo: deps-demo build ## two daemons, a ticket, a call and a stream across
	./test/demo.sh

FUZZTIME ?= 1m
.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME each; what they find is kept in testdata/fuzz
	@GO='$(GO)' test/fuzz.sh $(FUZZTIME) $(FUZZFLAGS)

.PHONY: bench
bench: deps-bench build ## fastn beside its baselines, in one run: a table, and build/bench.json; fails if a budget is not met
	@mkdir -p build
	$(GO) build -o build/bench ./test/bench
	build/bench -check -bin bin -json build/bench.json $(BENCHFLAGS)

.PHONY: proto
proto: ## internal/wire/wire.pb.go; needs protoc
	$(GO) build -o build/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	cd internal/wire && protoc --plugin=protoc-gen-go=../../build/protoc-gen-go --go_out=. --go_opt=paths=source_relative wire.proto

.PHONY: clean
clean: ## away with what was built
	rm -rf bin build

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

include packaging/Makefile.inc

# What each target needs beside Go and gcc; quick when all is there.
.PHONY: deps-test deps-lint deps-bench deps-demo
deps-test deps-lint:
	@packaging/install-deps
deps-bench:
	@packaging/install-deps bench
deps-demo:
