package codec

import "testing"

func benchmarkFrame() Frame {
	return Frame{TTL: TTLDefault, Body: make([]byte, 100), Signature: make([]byte, 64)}
}

func BenchmarkCut(b *testing.B) {
	f := benchmarkFrame()
	wire := mustAppend(b, &f)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Cut(wire, BodyMaxDefault); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFrameDecode(b *testing.B) {
	f := benchmarkFrame()
	wire := mustAppend(b, &f)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		if err := f.Decode(wire, BodyMaxDefault); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFrameAppend(b *testing.B) {
	f := benchmarkFrame()
	dst := make([]byte, 0, f.Size())
	b.SetBytes(int64(f.Size()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := f.Append(dst); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	f := benchmarkFrame()
	wire := Raw(mustAppend(b, &f))
	b.ReportAllocs()
	for b.Loop() {
		_ = wire.Digest()
	}
}

func BenchmarkBurstDecode(b *testing.B) {
	field := burstField(BurstSizeMax, 500)
	var burst Burst
	b.ReportAllocs()
	for b.Loop() {
		if err := burst.Decode(field); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkKeepAlive(b *testing.B) {
	m := &KeepAlive{Received: 1 << 20, Answer: true}
	b.ReportAllocs()
	for b.Loop() {
		body, err := AppendControl(nil, m)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := DecodeControl(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNoticeOf1024(b *testing.B) {
	n := &Notice{Reason: NoticeQueueFull, Frames: make([]NoticeFrame, NoticeFramesMax)}
	b.ReportAllocs()
	for b.Loop() {
		body, err := AppendNotice(nil, n)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := DecodeNotice(body); err != nil {
			b.Fatal(err)
		}
	}
}
