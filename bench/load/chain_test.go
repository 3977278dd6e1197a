package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// All that is sent arrives, and each router of a row forwards all of it: else the
// benchmark fails.
func TestFramesPassRowsOfRouters(t *testing.T) {
	code, out, log := runs(t, "chain", "--verify", "edge,all", "--cells", "2:4096", "--rounds", "1", "--slice", "60ms", "--latency", "10", "--json")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, log)
	}
	var r result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Cells) != 2 || r.Lone == nil {
		t.Fatalf("%d cells, lone frames %v", len(r.Cells), r.Lone)
	}
	for _, c := range r.Cells {
		for i, v := range rowsOf(c.verify()) {
			s := c.Samples[v]
			if len(c.Samples) != 3 || len(s) != 1 || s[0].Frames <= 0 || len(s[0].Each) != i+1 {
				t.Fatalf("%d bytes, %s: %+v", c.Body, v, s)
			}
			for at, cpu := range s[0].Each {
				if cpu <= 0 {
					t.Errorf("%d bytes, %s: router %d used no time", c.Body, v, at+1)
				}
			}
		}
		for v, tables := range c.Tables {
			if tables != c.Senders {
				t.Errorf("%d bytes, %s: %d tables of %d signers", c.Body, v, tables, c.Senders)
			}
		}
	}
	for _, verify := range []string{variantEdge, variantAll} {
		for _, v := range rowsOf(verify) {
			if n := len(r.Lone.Times[v]); n != 10 {
				t.Errorf("%s: %d lone frames", v, n)
			}
		}
	}
	var table bytes.Buffer
	r.writeChain(&table)
	for _, want := range []string{"| 2+2 | 4 KiB | edge |", "| 2+2 | 4 KiB | all |", "| edge | 10 |", "| all | 10 |"} {
		if strings.Count(table.String(), want) != 1 {
			t.Errorf("not once: %q in\n%s", want, &table)
		}
	}
}

func TestRoutesLeadWhenAllNodesAreKnown(t *testing.T) {
	check := func(ok bool, text string) {
		t.Helper()
		var known routes
		if err := json.Unmarshal([]byte(text), &known); err != nil {
			t.Fatal(err)
		}
		if known.lead(map[string]int{"a": 2, "b": 0, "c": 3}) != ok {
			t.Error(text)
		}
	}
	const a, b, c = `{"address":"a","nodes":2,"here":true}`, `{"address":"b","nodes":0}`, `{"address":"c","nodes":3}`
	check(true, `{"routes":[`+a+","+b+","+c+`]}`)
	check(true, `{"routes":[`+a+`,{"address":"other","nodes":7},`+b+","+c+`]}`)
	check(false, `{"routes":[`+a+","+b+`]}`)
	check(false, `{"routes":[`+a+","+b+`,{"address":"c","nodes":2}]}`)
	check(false, `{"routes":[]}`)
}
