//go:build debug

package buf

import (
	"fmt"
	"runtime"
	"sync"
)

// Debug tells whether this build poisons returned memory.
const Debug = true

// poison fills memory that was put back, so that a late reader fails loudly: as
// a frame it is malformed (its encrypted flag is neither 0 nor 1).
const poison = 0xdb

// held has every Buffer that is handed out, with the place that got it.
var held sync.Map // *Buffer → string

func debugGet(b *Buffer) {
	_, file, line, _ := runtime.Caller(2)
	if at, twice := held.Swap(b, fmt.Sprintf("%s:%d", file, line)); twice {
		panic(fmt.Sprintf("buf: Get: buffer handed out twice, first at %v", at))
	}
}

func debugPut(b *Buffer) {
	if _, ok := held.LoadAndDelete(b); !ok {
		panic("buf: Put: buffer that is not handed out (put twice?)")
	}
	for i := range b.B {
		b.B[i] = poison
	}
}

// Held returns where each Buffer that is out was taken, for a test's message.
func Held() (places []string) {
	held.Range(func(_, at any) bool {
		places = append(places, at.(string))
		return true
	})
	return places
}
