package engine

import (
	"net"
	"reflect"
	"strings"
	"testing"

	"causeway/codec"
)

func TestConnectionsFileIsReadInFull(t *testing.T) {
	got, err := ParseConnections(strings.NewReader(`{
		"versionCutoff": "1.4.0", "nodeCost": "7",
		"listenTo": ["dbw://0.0.0.0:7100", "dbw://[::1]"], "connectTo": ["dbw://router.example:7200"]
	}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Connections{VersionCutoff: "1.4.0", NodeCost: 7,
		Listen: []string{"0.0.0.0:7100", "[::1]:7100"}, Connect: []string{"router.example:7200"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := ParseConnections(strings.NewReader("{}")); err != nil || !reflect.DeepEqual(got, Connections{}) {
		t.Errorf("empty object: %+v, %v", got, err)
	}
}

func TestConnectionsErrorsSayWhatAndWhere(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, "not a JSON object"},
		{`[]`, "not a JSON object"},
		{"{\n\n\"listenTo\": [,]}", "line 3"},
		{`{} {}`, "more than one"},
		{`{"listento": []}`, `unknown key "listento"; the keys are versionCutoff, nodeCost, listenTo, connectTo`},
		{`{"nodeCost": 7}`, "nodeCost: must be a string in quotes"},
		{`{"nodeCost": "65536"}`, "0 to 65535"},
		{`{"nodeCost": "-1"}`, "0 to 65535"},
		{`{"versionCutoff": "one"}`, "versionCutoff"},
		{`{"listenTo": "dbw://a"}`, "listenTo: must be a list"},
		{`{"listenTo": ["http://a:1"]}`, `listenTo: "http://a:1" is not a URL`},
		{`{"connectTo": ["dbw://a:99999"]}`, "connectTo"},
		{`{"listenTo": ["` + strings.Repeat("a", connectionsSizeMax) + `"]}`, "larger than"},
	} {
		_, err := ParseConnections(strings.NewReader(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: error %v, want it to say %q", c.text, err, c.want)
		}
	}
}

func FuzzConnections(f *testing.F) {
	f.Add(`{"versionCutoff": "", "nodeCost": "0", "listenTo": ["dbw://host:1"], "connectTo": []}`)
	f.Add(`{"nodeCost": "70000"}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConnections(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, hostPort := range append(c.Listen, c.Connect...) {
			host, port, err := net.SplitHostPort(hostPort)
			if err != nil {
				t.Fatalf("%q is not host:port", hostPort)
			}
			if again, err := ParseURL(codec.FormatURL(host, port)); err != nil || again != hostPort {
				t.Errorf("%q becomes %q, %v", hostPort, again, err)
			}
		}
	})
}
