package codec

import (
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"
)

// Generators of messages within their bounds, as decoding returns them: lists
// that may be empty are not nil.

func texts(limit int) *rapid.Generator[string] { return rapid.StringN(0, -1, limit) }

func certKeys() *rapid.Generator[CertKey] {
	return rapid.Custom(func(t *rapid.T) (k CertKey) {
		filled(k.Address[:], t, "address")
		filled(k.CertID[:], t, "certificate ID")
		return k
	})
}

func chains(least int) *rapid.Generator[[][]byte] {
	return rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), least, ChainMax)
}

func durations(low, high time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(low.Milliseconds(), high.Milliseconds()), func(ms int64) time.Duration {
		return time.Duration(ms) * time.Millisecond
	})
}

func hellos() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &Hello{
			Version:   rapid.Uint64().Draw(t, "version"),
			Role:      rapid.SampledFrom([]Role{RoleNode, RoleRouter}).Draw(t, "role"),
			Kind:      texts(HelloKindMax).Draw(t, "kind"),
			NodeCost:  rapid.Uint16().Draw(t, "cost"),
			Software:  texts(HelloSoftwareMax).Draw(t, "software"),
			KeepAlive: durations(KeepAliveMin, KeepAliveMax).Draw(t, "keep-alive"),
			DeadAfter: durations(DeadAfterMin, DeadAfterMax).Draw(t, "dead after"),
			BodyMax:   rapid.Uint32Range(0, BodyMaxLimit).Draw(t, "body max"),
		}
	})
}

func keepAlives() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &KeepAlive{Received: rapid.Uint64().Draw(t, "received"), Answer: rapid.Bool().Draw(t, "answer")}
	})
}

func goodbyes() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &Goodbye{
			Reason:   rapid.SampledFrom(GoodbyeReasons()).Draw(t, "reason"),
			Text:     texts(GoodbyeTextMax).Draw(t, "text"),
			Routers:  rapid.SliceOfN(texts(GoodbyeRouterMax), 0, GoodbyeRoutersMax).Draw(t, "routers"),
			ReadFor:  durations(0, durationMax).Draw(t, "read for"),
			Received: rapid.Uint64().Draw(t, "received"),
		}
	})
}

func certificateRequests() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &CertificateRequest{
			Number: rapid.Uint64().Draw(t, "number"),
			Wanted: rapid.SliceOfN(certKeys(), 1, CertificatesWantedMax).Draw(t, "wanted"),
		}
	})
}

func certificateEntries() *rapid.Generator[CertificateEntry] {
	return rapid.Custom(func(t *rapid.T) CertificateEntry {
		return CertificateEntry{CertKey: certKeys().Draw(t, "key"), Chain: chains(0).Draw(t, "chain")}
	})
}

func certificateAnswers() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		parts := rapid.Uint8Range(1, CertificatesPartsMax).Draw(t, "parts")
		return &Certificates{
			Number:  rapid.Uint64().Draw(t, "number"),
			Part:    rapid.Uint8Range(0, parts-1).Draw(t, "part"),
			Parts:   parts,
			Entries: rapid.SliceOfN(certificateEntries(), 0, CertificatesEntriesMax).Draw(t, "entries"),
		}
	})
}

func nameRequests() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		r := &NameRequest{Number: rapid.Uint64().Draw(t, "number"), Max: rapid.Uint16Range(1, NamesMax).Draw(t, "max")}
		if rapid.Bool().Draw(t, "list") {
			r.After = texts(NameMax).Draw(t, "after")
		} else {
			r.Name = texts(NameMax).Draw(t, "name")
		}
		return r
	})
}

func nameEntries() *rapid.Generator[NameEntry] {
	return rapid.Custom(func(t *rapid.T) NameEntry {
		return NameEntry{Chain: chains(1).Draw(t, "chain"), Kind: texts(HelloKindMax).Draw(t, "kind")}
	})
}

func nameAnswers() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &Names{
			Number:  rapid.Uint64().Draw(t, "number"),
			Entries: rapid.SliceOfN(nameEntries(), 0, 40).Draw(t, "entries"),
			Next:    texts(NameMax).Draw(t, "next"),
		}
	})
}

func revocationLists() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		parts := rapid.Uint16Range(1, RevocationPartsMax).Draw(t, "parts")
		return &RevocationList{
			Number: rapid.Uint64().Draw(t, "number"),
			Part:   rapid.Uint16Range(0, parts-1).Draw(t, "part"),
			Parts:  parts,
			Data:   rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "data"),
		}
	})
}

func renewals() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &Renewal{Chain: chains(1).Draw(t, "chain"), Proof: rapid.SliceOfN(rapid.Byte(), 0, RenewalProofMax).Draw(t, "proof")}
	})
}

func domainProofs() *rapid.Generator[Control] {
	value := rapid.Custom(func(t *rapid.T) (p DomainProof) {
		filled(p[:], t, "value")
		return p
	})
	return rapid.Custom(func(t *rapid.T) Control {
		parts := rapid.Uint8Range(1, DomainProofPartsMax).Draw(t, "parts")
		return &DomainProofs{
			Part:   rapid.Uint8Range(0, parts-1).Draw(t, "part"),
			Parts:  parts,
			Values: rapid.SliceOfN(value, 0, 40).Draw(t, "values"),
		}
	})
}

func grants() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		return &Grants{Chains: rapid.SliceOfN(chains(1), 1, GrantsMax).Draw(t, "chains")}
	})
}

// inDomain returns an address of that kind; all it returns are in one domain.
func inDomain(t *rapid.T, kind Kind) (a Address) {
	filled(a[kindAt+kindSize:], t, "random")
	a[0], a[kindAt+1] = 0xfd, byte(kind)
	return a
}

func sources(t *rapid.T) (s Source) {
	s.Epoch = rapid.Uint64().Draw(t, "epoch")
	filled(s.ID[:], t, "router ID")
	return s
}

func routeUpdates() *rapid.Generator[Control] {
	route := rapid.Custom(func(t *rapid.T) Route {
		return Route{inDomain(t, KindRouter), sources(t), rapid.Uint16().Draw(t, "seqno"), rapid.Uint16().Draw(t, "metric")}
	})
	return rapid.Custom(func(t *rapid.T) Control {
		return &RouteUpdate{
			Interval: durations(RouteIntervalMin, RouteIntervalMax).Draw(t, "interval"),
			Routes:   rapid.SliceOfN(route, 1, 40).Draw(t, "routes"),
		}
	})
}

func seqnoRequests() *rapid.Generator[Control] {
	wanted := rapid.Custom(func(t *rapid.T) SeqnoWanted {
		return SeqnoWanted{inDomain(t, KindRouter), sources(t), rapid.Uint16().Draw(t, "seqno"), rapid.Uint8Range(1, 255).Draw(t, "hops")}
	})
	return rapid.Custom(func(t *rapid.T) Control {
		return &SeqnoRequest{Wanted: rapid.SliceOfN(wanted, 1, 40).Draw(t, "wanted")}
	})
}

func addressLists() *rapid.Generator[Control] {
	added := rapid.Custom(func(t *rapid.T) Attached {
		return Attached{inDomain(t, KindNode), rapid.Uint64().Draw(t, "sent")}
	})
	removed := rapid.Custom(func(t *rapid.T) Address { return inDomain(t, KindNode) })
	return rapid.Custom(func(t *rapid.T) Control {
		l := &AddressList{
			Router:  inDomain(t, KindRouter),
			Source:  sources(t),
			From:    rapid.Uint64Max(3).Draw(t, "from"),
			Parts:   1,
			Added:   []Attached{},
			Removed: []Address{},
		}
		l.To = rapid.Uint64Range(l.From+1, 5).Draw(t, "to")
		if l.From == 0 {
			l.Parts = rapid.Uint16Range(1, AddressListPartsMax).Draw(t, "parts")
			l.Part = rapid.Uint16Range(0, l.Parts-1).Draw(t, "part")
		} else {
			l.Removed = rapid.SliceOfN(removed, 0, 40).Draw(t, "removed")
		}
		l.Added = rapid.SliceOfN(added, 0, 40).Draw(t, "added")
		return l
	})
}

func listRequests() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control { return &ListRequest{Router: inDomain(t, KindRouter)} })
}

func listNumbers() *rapid.Generator[Control] {
	number := rapid.Custom(func(t *rapid.T) ListNumber {
		return ListNumber{inDomain(t, KindRouter), sources(t), rapid.Uint64Min(1).Draw(t, "number")}
	})
	return rapid.Custom(func(t *rapid.T) Control {
		return &ListNumbers{Lists: rapid.SliceOfN(number, 1, 40).Draw(t, "lists")}
	})
}

func sendersBlocked() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		ms := rapid.Int64Range(1, int64(SenderBlockedMax/time.Millisecond)).Draw(t, "ms")
		return &SenderBlocked{inDomain(t, KindNode), time.Duration(ms) * time.Millisecond}
	})
}

func nameQuestions() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		q := &NameQuestion{
			Number: rapid.Uint64().Draw(t, "number"),
			Hops:   rapid.Uint8Min(1).Draw(t, "hops"),
			Max:    rapid.Uint16Range(1, NamesMax).Draw(t, "max"),
		}
		q.Asked, q.Asker = twoRouters(t)
		if rapid.Bool().Draw(t, "list") {
			q.After = texts(NameMax).Draw(t, "after")
		} else {
			q.Name = texts(NameMax).Draw(t, "name")
		}
		return q
	})
}

// twoRouters returns two routers of one domain.
func twoRouters(t *rapid.T) (a, b Address) {
	a, b = inDomain(t, KindRouter), inDomain(t, KindRouter)
	if a == b {
		b[AddressSize-1]++
	}
	return a, b
}

func namedEntries(t *rapid.T) []NamedEntry {
	named := make(map[string]NamedEntry)
	for range rapid.IntRange(0, 40).Draw(t, "entries") {
		name := rapid.StringN(1, -1, NameMax).Draw(t, "name")
		named[name] = NamedEntry{name, nameEntries().Draw(t, "entry")}
	}
	entries := make([]NamedEntry, 0, len(named))
	for _, name := range slices.Sorted(maps.Keys(named)) {
		entries = append(entries, named[name])
	}
	return entries
}

func namesAnswered() *rapid.Generator[Control] {
	return rapid.Custom(func(t *rapid.T) Control {
		a := &NameAnswer{
			Number:  rapid.Uint64().Draw(t, "number"),
			Hops:    rapid.Uint8Min(1).Draw(t, "hops"),
			Entries: namedEntries(t),
		}
		a.Asker, a.Asked = twoRouters(t)
		if n := len(a.Entries); n > 0 && rapid.Bool().Draw(t, "more") {
			a.Next = a.Entries[n-1].Name
		}
		return a
	})
}

func controls() *rapid.Generator[Control] {
	return rapid.OneOf(hellos(), keepAlives(), goodbyes(), certificateRequests(), certificateAnswers(), nameRequests(), nameAnswers(),
		domainProofs(), grants(), revocationLists(), renewals(), routeUpdates(), seqnoRequests(), addressLists(), listRequests(), listNumbers(),
		nameQuestions(), namesAnswered(), sendersBlocked())
}

func notices() *rapid.Generator[*Notice] {
	return rapid.Custom(func(t *rapid.T) *Notice {
		n := &Notice{
			Reason:    rapid.SampledFrom(NoticeReasons()).Draw(t, "reason"),
			Recipient: addresses().Draw(t, "recipient"),
			Frames:    make([]NoticeFrame, rapid.IntRange(0, 40).Draw(t, "frames")),
			More:      rapid.Uint64().Draw(t, "more"),
		}
		for i := range n.Frames {
			filled(n.Frames[i].Digest[:], t, "digest")
			n.Frames[i].SendTime = rapid.Uint64().Draw(t, "send time")
		}
		if len(n.Frames) == 0 && n.More == 0 {
			n.More = 1
		}
		if n.More > 0 {
			n.First, n.Last = rapid.Uint64().Draw(t, "first"), rapid.Uint64().Draw(t, "last")
		}
		return n
	})
}

var echoTypes = []EchoType{EchoRequest, EchoReply, EchoTrace, EchoHop, EchoReceiptRequest, EchoReceipt}

func echoes() *rapid.Generator[*Echo] {
	return rapid.Custom(func(t *rapid.T) *Echo {
		e := &Echo{Type: rapid.SampledFrom(echoTypes).Draw(t, "type")}
		filled(e.ID[:], t, "identifier")
		switch e.Type {
		case EchoRequest, EchoReply:
			e.Payload = rapid.SliceOfN(rapid.Byte(), 0, EchoPayloadMax).Draw(t, "payload")
			return e
		case EchoTrace:
			return e
		case EchoHop:
			e.Hop = Hop{rapid.Uint8().Draw(t, "TTL"), rapid.Uint64().Draw(t, "time"), Address{}, texts(HelloSoftwareMax).Draw(t, "software")}
			if rapid.Bool().Draw(t, "next") {
				e.Hop.Next = inDomain(t, KindRouter)
			}
			return e
		case EchoReceipt:
			e.Seen = rapid.Bool().Draw(t, "seen")
		}
		filled(e.Digest[:], t, "digest")
		e.SendTime = rapid.Uint64().Draw(t, "send time")
		return e
	})
}
