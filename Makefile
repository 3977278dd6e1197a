# Causeway. `make run` shows it at work, `make test` passes its tests.

GO        ?= go
BIN       := bin/causeway
FUZZTIME  ?= 60s
BENCHTIME ?= 1s
BENCHRUNS ?= 6
REF       ?= HEAD~1
SEEDS     ?= 10000

.PHONY: build run test check scenarios fmt vet tidy race debug fuzz simulate soak bench bench-compare bench-peers deps clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -o $(BIN) ./cmd/causeway

run: build
	$(BIN) demo

# What the tests need besides Go; does nothing when it is there.
deps:
	@.ci/deps

# All but the scenarios, which take long or measure, and the load program: two to three
# minutes on two cores with nothing else to do.
SCENARIOS := UnderLoad|UnderOverload|WithinItsCap|ForwardingAllocatesNothing
test: deps
	@.ci/gotest -short -skip '$(SCENARIOS)'

check: fmt vet tidy test scenarios race debug

# What make test leaves out or has short, some of what make simulate plays, and
# signatures as a build without assembly checks them; race and debug are all of the
# tests again.
scenarios: deps
	@ONLY='$(SCENARIOS)|Fifty|EdgeCases|IsDelivered' .ci/gotest
	$(GO) test -vet=off -count=1 -run NoLoop ./engine/route -args -seeds 1000
	$(GO) test -vet=off -count=1 -run Sessions ./engine/simnet -args -sessions 2000
	$(GO) test -vet=off -count=1 -short -tags purego ./crypto/sign

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt would change:"; echo "$$out"; exit 1; }

# Also what machines other than those of make check compile; outside Linux that is
# the node library.
vet:
	$(GO) vet ./...
	$(GO) vet -tags debug ./...
	$(GO) vet -tags purego ./...
	GOARCH=arm64 $(GO) vet ./...
	GOOS=darwin $(GO) vet ./engine/node
	GOOS=windows $(GO) vet ./engine/node

tidy:
	$(GO) mod tidy -diff
	$(GO) mod verify

race: deps
	@.ci/gotest -race

debug: deps
	@.ci/gotest -tags debug

# Every fuzz target for FUZZTIME, one after another.
fuzz:
	@set -e; for dir in $$($(GO) list -f '{{.Dir}}' ./...); do \
	  for target in $$(grep -hoE '^func Fuzz[A-Za-z0-9_]+' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
	    echo "== $$dir $$target"; (cd $$dir && $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1s $(FUZZFLAGS) .); \
	  done; done

# Routes between routers, then sessions between nodes, on SEEDS random networks (two
# minutes each for 10,000), and 1 GiB to a slow reader.
simulate:
	$(GO) test -count=1 -timeout 60m -run NoLoop ./engine/route -args -seeds $(SEEDS)
	$(GO) test -count=1 -timeout 60m -run Sessions ./engine/simnet -args -sessions $(SEEDS)
	$(GO) test -count=1 -timeout 60m -run SlowReaderSlows ./engine/node -args -long-stream

# What slow and hostile peers cost the others, certificates that are renewed and
# revoked under load, and routers and links that come and go: every scenario in
# full (half an hour, on a machine with nothing else to do). Prints bench/SOAK.md.
soak:
	@$(MAKE) -s build >&2
	@GO="$(GO)" bench/soak

# What the router forwards per CPU second beside a TLS echo and a plain
# forwarder (five minutes), and in rows of routers (five minutes), memory of idle
# connections (ten minutes), then the benchmarks of the packages.
bench: build
	$(GO) run ./bench/load
	$(GO) run ./bench/load chain
	$(GO) run ./bench/load idle
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -count $(BENCHRUNS) ./...

# Benchmarks of REF and of the work tree, taking turns, through benchstat.
bench-compare:
	@REF="$(REF)" BENCHRUNS="$(BENCHRUNS)" BENCHTIME="$(BENCHTIME)" PKG="$(PKG)" BENCH="$(BENCH)" bench/compare

# The router beside nats-server and Tailscale's DERP server (seven minutes, on a
# machine with nothing else to do), as a table for BENCHMARKS.md. bench/peers pins
# both; building them the first time downloads their sources.
bench-peers: build
	cd bench/peers && CGO_ENABLED=0 $(GO) build -trimpath -o ../../bin/peers/ github.com/nats-io/nats-server/v2 tailscale.com/cmd/derper
	$(GO) run ./bench/load peers $(PEERSFLAGS)

clean:
	rm -rf bin
