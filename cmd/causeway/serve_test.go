package main

import (
	"testing"
	"time"
)

// 0 is not the engine's default where it means never.
func TestZeroMeansWhatTheManualSays(t *testing.T) {
	var f serveFlags
	if err := f.ending(); err != nil {
		t.Fatal(err)
	}
	if c := f.engine; c.PauseMax >= 0 || c.HoldTimeout >= 0 {
		t.Errorf("--pause-max 0 is %v, --hold-timeout 0 is %v", c.PauseMax, c.HoldTimeout)
	}
	f.engine.PauseMax = time.Second
	if err := f.ending(); err != nil || f.engine.PauseMax != time.Second {
		t.Errorf("--pause-max 1s is %v, %v", f.engine.PauseMax, err)
	}
}
