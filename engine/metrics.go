package engine

import (
	"sync/atomic"
	"time"

	"causeway/crypto/sign"
	"causeway/engine/admin"
	"causeway/engine/buf"
)

// verifyObserver passes what workers measure to the histograms, once there are
// any.
type verifyObserver struct {
	to atomic.Pointer[verifyHistograms]
}

type verifyHistograms struct{ perFrame, batch admin.Histogram }

func (o *verifyObserver) observe(frames int, took time.Duration) {
	if h := o.to.Load(); h != nil {
		h.batch.Observe(float64(frames))
		h.perFrame.Observe(took.Seconds() / float64(frames))
	}
}

// Counts returns the frame counters. The parts are read one after another, so
// under traffic InFlight is near; in a quiet router it is exact.
func (r *Router) Counts() Counts {
	c := Counts{Dropped: make(map[string]uint64, dropReasons)}
	stats := r.link.Stats()
	c.Forwarded = stats.FramesWritten - stats.OwnWritten
	c.Made = stats.OwnWritten
	for _, l := range r.loops {
		c.Consumed += l.count.consumed.Load()
		c.Unconfirmed += l.count.unconfirmed.Load()
		for reason := dropNone + 1; reason < dropReasons; reason++ {
			c.Dropped[reason.String()] += l.count.dropped[reason].Load()
		}
		c.Cut += l.count.received.Load() + l.count.control.Load()
	}
	if done := c.Forwarded + c.Consumed + c.DroppedSum(); done < c.Cut {
		c.InFlight = c.Cut - done
	}
	return c
}

// AddMetrics registers all the router's metrics with m. Call it once.
func (r *Router) AddMetrics(m *admin.Metrics) {
	r.observed.to.Store(&verifyHistograms{
		perFrame: m.Histogram("causeway_verify_seconds", "Time to check one frame's signature.",
			[]float64{1e-7, 2e-7, 5e-7, 1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1e-2}),
		batch: m.Histogram("causeway_verify_batch_frames", "Frames that a worker checked together.",
			[]float64{1, 2, 4, 8, 16, 32, 64}),
	})
	r.addFrameMetrics(m)
	r.addLinkMetrics(m)
	r.addVerifyMetrics(m)
	r.addStateMetrics(m)
	r.addMemoryMetrics(m)
	r.addReloadMetrics(m)
	r.addFetchMetrics(m)
	r.addDrainMetrics(m)
	r.addRouteMetrics(m)
	r.addNeighbourMetrics(m)
	r.addDialMetrics(m)
}

func counter(m *admin.Metrics, name, help string, read func() float64) {
	m.Add(admin.Family{Name: name, Help: help, Counter: true, Read: one(read)})
}

func gauge(m *admin.Metrics, name, help string, read func() float64) {
	m.Add(admin.Family{Name: name, Help: help, Read: one(read)})
}

func one(read func() float64) func() []admin.Sample {
	return func() []admin.Sample { return []admin.Sample{{Value: read()}} }
}

// sum adds a counter over all loops.
func (r *Router) sum(field func(*counters) *atomic.Uint64) func() float64 {
	return func() (n float64) {
		for _, l := range r.loops {
			n += float64(field(&l.count).Load())
		}
		return n
	}
}

func (r *Router) addFrameMetrics(m *admin.Metrics) {
	counter(m, "causeway_frames_cut_total", "Whole frames received, of all categories.",
		func() float64 { return float64(r.Counts().Cut) })
	counter(m, "causeway_frames_forwarded_total", "Frames handed to the kernel for their recipient.",
		func() float64 { return float64(r.Counts().Forwarded) })
	counter(m, "causeway_frames_consumed_total", "Frames that were for this router: link control and echo.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.consumed }))
	counter(m, "causeway_frames_made_total", "Frames that this router made and handed to the kernel: link control, echo, notices.",
		func() float64 { return float64(r.Counts().Made) })
	m.Add(admin.Family{
		Name: "causeway_frames_dropped_total", Help: "Frames dropped, by reason.", Counter: true, Labels: []string{"reason"},
		Read: func() (s []admin.Sample) {
			for reason, n := range r.Counts().Dropped {
				s = append(s, admin.Sample{Labels: []string{reason}, Value: float64(n)})
			}
			return s
		},
	})
	gauge(m, "causeway_frames_in_flight", "Frames cut and not yet forwarded, consumed or dropped.",
		func() float64 { return float64(r.Counts().InFlight) })
	gauge(m, "causeway_waiting_frames", "Frames in flight that wait for a recipient that has just left.",
		func() float64 { return float64(r.withdrawn.frames.Load()) })
	gauge(m, "causeway_waiting_bytes", "Memory of those frames.",
		func() float64 { return float64(r.withdrawn.bytes.Load()) })
	counter(m, "causeway_waiting_refused_total", "Addresses that have left and whose frames do not wait: too many others had left.",
		func() float64 { return float64(r.withdrawn.missed.Load()) })
	counter(m, "causeway_frames_unconfirmed_total", "Forwarded frames whose recipient's connection ended before it had said to have received them.",
		func() float64 { return float64(r.Counts().Unconfirmed) })
	gauge(m, "causeway_ledger_bytes", "Memory that lists the forwarded frames which recipients have not confirmed.",
		func() (n float64) {
			for _, l := range r.loops {
				n += float64(l.count.ledger.Load())
			}
			return n
		})
	counter(m, "causeway_frames_noticed_total", "Dropped and unconfirmed frames whose sender was sent a notice.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.noticed }))
	counter(m, "causeway_frames_unnoticed_total", "Dropped and unconfirmed frames whose sender could not be told: it is gone, or too much is owed to it.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.unnoticed }))
	counter(m, "causeway_requests_unanswered_total", "Certificate and name requests beyond a node's rate.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.unanswered }))
	counter(m, "causeway_stalled_total", "Nodes disconnected because they did not read for --stall-timeout.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.stalled }))
	m.Add(admin.Family{
		Name: "causeway_senders_blocked_total", Counter: true, Labels: []string{"by"},
		Help: "Senders whose frames a link did not take for a minute, since too many had bad signatures: blocked by this router, or by a neighbour that got them from it.",
		Read: func() []admin.Sample {
			here := r.sum(func(c *counters) *atomic.Uint64 { return &c.blocked })
			there := r.sum(func(c *counters) *atomic.Uint64 { return &c.blockedThere })
			return []admin.Sample{{Labels: []string{"router"}, Value: here()}, {Labels: []string{"neighbour"}, Value: there()}}
		},
	})
	counter(m, "causeway_pauses_total", "Times a node was not read because its recipient's queue was full.",
		r.sum(func(c *counters) *atomic.Uint64 { return &c.paused }))
}

func (r *Router) addLinkMetrics(m *admin.Metrics) {
	counter(m, "causeway_handshakes_total", "TLS handshakes that led to a connection.",
		func() float64 { return float64(r.link.Stats().Handshakes) })
	r.addSuiteMetrics(m)
	m.Add(admin.Family{
		Name: "causeway_handshakes_refused_total", Help: "Connections refused before or in the handshake, by reason.",
		Counter: true, Labels: []string{"reason"}, Read: func() []admin.Sample { return samples(r.refused.counts()) },
	})
	m.Add(admin.Family{
		Name: "causeway_accept_errors_total", Help: "Failures to accept a connection, by reason (descriptors: the limit of open files was reached).",
		Counter: true, Labels: []string{"reason"}, Read: func() []admin.Sample { return samples(r.link.Stats().AcceptErrors) },
	})
	counter(m, "causeway_replaced_total", "Connections ended because the same address connected again.",
		func() float64 { return float64(r.replaced.count.Load()) })
	gauge(m, "causeway_sources", "Addresses (IPv6: /64s) with connections or handshakes.",
		func() float64 { return float64(r.gate.State().Sources) })
	m.Add(admin.Family{
		Name: "causeway_firewall_connections", Help: "Connections and handshakes let in by a line of the firewall that has a max.", Labels: []string{"rule"},
		Read: func() (s []admin.Sample) {
			state := r.gate.State()
			for i, rule := range state.Rules {
				if rule.Max > 0 {
					s = append(s, admin.Sample{Labels: []string{rule.String()}, Value: float64(state.PerRule[i])})
				}
			}
			return s
		},
	})
	m.Add(admin.Family{
		Name: "causeway_limit", Help: "Limits in force, by the name of their flag; idle-timeout in seconds. 0: none.", Labels: []string{"limit"},
		Read: func() []admin.Sample {
			c := &r.state().config
			return samples(map[string]uint64{
				"max-connections": uint64(c.Limits.Connections), "max-connections-per-source": uint64(c.Limits.ConnectionsPerSource),
				"max-waiting": uint64(c.Limits.Waiting), "max-handshakes": uint64(c.HandshakesMax),
				"max-handshakes-per-source": uint64(c.Limits.HandshakesPerSource), "max-handshake-rate": uint64(c.Limits.HandshakeRate),
				"max-bad-signatures": uint64(c.BadSignatures), "idle-timeout": uint64(c.IdleTimeout / time.Second),
			})
		},
	})
	gauge(m, "causeway_handshakes_under_way", "TLS handshakes under way.",
		func() float64 { return float64(r.link.Stats().Handshaking) })
	m.Add(admin.Family{
		Name: "causeway_handshakes_waiting", Help: "Connections that wait for their handshake: for their first record, or for room.", Labels: []string{"for"},
		Read: func() []admin.Sample {
			s := r.gate.State()
			return []admin.Sample{{Labels: []string{"record"}, Value: float64(s.Silent)}, {Labels: []string{"room"}, Value: float64(s.Ready)}}
		},
	})
	gauge(m, "causeway_connections", "Open connections.",
		func() float64 { return float64(r.link.Stats().Connections) })
	counter(m, "causeway_malformed_total", "Connections closed for a malformed frame.",
		func() float64 { return float64(r.link.Stats().Malformed) })
	counter(m, "causeway_partial_ended_total", "Connections ended because half-received frames had reached --max-partial.",
		func() float64 { return float64(r.link.Stats().PartialEnded) })
	gauge(m, "causeway_partial_bytes", "Memory of half-received frames.",
		func() float64 { return float64(r.link.Stats().PartialBytes) })
	counter(m, "causeway_received_bytes_total", "Bytes received, as TLS sends them.",
		func() float64 { return float64(r.link.Stats().BytesIn) })
	counter(m, "causeway_sent_bytes_total", "Bytes handed to the kernel, as TLS sends them.",
		func() float64 { return float64(r.link.Stats().BytesOut) })
	gauge(m, "causeway_queued_bytes", "Bytes of frames that wait in queues of recipients.",
		func() float64 { return float64(r.link.Stats().QueuedBytes) })
	counter(m, "causeway_writes_total", "System calls that wrote to connections.",
		func() float64 { return float64(r.link.Stats().Writes) })
	counter(m, "causeway_records_total", "TLS records sealed.",
		func() float64 { return float64(r.link.Stats().Records) })
	counter(m, "causeway_turns_total", "Turns of the loops.",
		func() float64 { return float64(r.link.Stats().Turns) })
}

func (r *Router) addVerifyMetrics(m *admin.Metrics) {
	m.Add(admin.Family{
		Name: "causeway_verify_path", Help: "1 for how Ed25519 signatures are checked now.", Labels: []string{"path"},
		Read: func() []admin.Sample {
			return []admin.Sample{{Labels: []string{r.pool.Path().String()}, Value: 1}}
		},
	})
	m.Add(admin.Family{
		Name: "causeway_verify_batches_total", Counter: true, Labels: []string{"path", "size"},
		Help: "Batches of Ed25519 signatures, by the path that they took and by how many signatures they had.",
		Read: func() (s []admin.Sample) {
			done := r.pool.Stats()
			for _, path := range sign.Paths() {
				for size, n := range done.Batches.Of(path) {
					s = append(s, admin.Sample{Labels: []string{path.String(), size}, Value: float64(n)})
				}
			}
			return s
		},
	})
	m.Add(admin.Family{
		Name: "causeway_verify_signatures_total", Counter: true, Labels: []string{"by"},
		Help: "Signatures checked: Ed25519 with the signer's table, without, or known from another frame of the burst; ECDSA P-256.",
		Read: func() []admin.Sample {
			s := r.pool.Stats()
			return samples(map[string]uint64{"table": s.ByTable, "stdlib": s.ByStdlib, "tree": s.ByTree, "p256": s.ByP256})
		},
	})
	counter(m, "causeway_verify_rechecked_total", "Signatures checked by table and again by crypto/ed25519: all that were refused, one accepted in a thousand.",
		func() float64 { return float64(r.pool.Stats().Rechecked) })
	counter(m, "causeway_verify_differences_total", "Of these, different verdicts: from the first on tables are not used any more.",
		func() float64 { return float64(r.pool.Stats().Differences) })
	counter(m, "causeway_verify_tables_built_total", "Tables of signers made.",
		func() float64 { return float64(r.pool.Stats().Builds) })
	counter(m, "causeway_verify_tables_evicted_total", "Tables of signers that made room for others.",
		func() float64 { return float64(r.pool.Stats().Evictions) })
	gauge(m, "causeway_verify_tables", "Signers who have a table.",
		func() float64 { return float64(r.pool.Stats().Tables) })
	gauge(m, "causeway_verify_tables_bytes", "Memory of the tables, those of the base point included.",
		func() float64 { return float64(r.pool.Stats().Bytes) })
}

func (r *Router) addStateMetrics(m *admin.Metrics) {
	gauge(m, "causeway_verify_queued_frames", "Frames that wait for a verification worker.",
		func() float64 { return float64(r.pool.Queued()) })
	gauge(m, "causeway_recipients", "Addresses in the recipient table.",
		func() float64 { return float64(r.table.Len()) })
	m.Add(admin.Family{
		Name: "causeway_nodes", Help: "Connected nodes, by domain.", Labels: []string{"domain"},
		Read: func() (s []admin.Sample) {
			for name, d := range r.state().domains {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(d.members.count())})
			}
			return s
		},
	})
	gauge(m, "causeway_buffers", "Frame buffers handed out.",
		func() float64 { return float64(buf.Out().Buffers) })
	gauge(m, "causeway_buffer_bytes", "Memory of frame buffers handed out.",
		func() float64 { return float64(buf.Out().Bytes) })
	m.Add(admin.Family{
		Name: "causeway_certificate_expiry_seconds", Help: "When the grant expires, seconds since the Unix epoch, by domain.", Labels: []string{"domain"},
		Read: func() (s []admin.Sample) {
			for name, d := range r.state().domains {
				s = append(s, admin.Sample{Labels: []string{name}, Value: float64(d.grant.NotAfter.Unix())})
			}
			return s
		},
	})
	m.Add(admin.Family{
		Name: "causeway_trust_alarms", Help: "What is wrong with the trust store now, by kind and domain.", Labels: []string{"kind", "domain"},
		Read: func() []admin.Sample { return r.alarmSamples(time.Now()) },
	})
}

func (r *Router) alarmSamples(now time.Time) (s []admin.Sample) {
	type what struct{ kind, domain string }
	counts := make(map[what]float64)
	for _, a := range r.state().config.Store.Alarms(now) {
		counts[what{a.Kind.String(), a.Domain}]++
	}
	for w, n := range counts {
		s = append(s, admin.Sample{Labels: []string{w.kind, w.domain}, Value: n})
	}
	return s
}

func samples(counts map[string]uint64) (s []admin.Sample) {
	for label, n := range counts {
		s = append(s, admin.Sample{Labels: []string{label}, Value: float64(n)})
	}
	return s
}
