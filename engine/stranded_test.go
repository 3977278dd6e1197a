package engine

import (
	"testing"
	"time"
)

// However many routes change while a loop is busy, it looks once at what waits; and
// it does not do so all the time.
func TestALoopLooksOnceAtWhatWaitsHoweverManyRoutesChange(t *testing.T) {
	d := newAuthority("prod.example")
	r, _ := startRouter(t, func(c *Config) { c.Loops = 1 }, d)
	l, hands := r.loops[0], routingHands{r}
	busy, goOn := make(chan struct{}), make(chan struct{})
	l.link.Post(func() { close(busy); <-goOn })
	<-busy
	if n := testing.AllocsPerRun(1000, hands.comeBack); n != 0 {
		t.Errorf("%v allocations for each change: each is posted", n)
	}
	close(goOn)
	waitFor(t, "the loop to have looked", func() bool { return !l.stranded.comes.Load() })

	r.onLoops(func(l *loop) {
		s := &l.stranded
		s.rests = time.Now().Add(time.Hour)
		if l.comeBack(); !s.left {
			t.Error("a loop looks while it rests")
		}
	})
	waitFor(t, "the tick to have looked", func() (done bool) {
		r.onLoops(func(l *loop) { done = !l.stranded.left && l.stranded.rests.IsZero() })
		return done
	})
}
