package sign

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The assembly in the repository is what gen writes today.
func TestAssemblyIsGenerated(t *testing.T) {
	dir := t.TempDir()
	run := exec.Command("go", "run", ".", "-dir", dir)
	run.Dir = "gen"
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	made, _ := filepath.Glob(filepath.Join(dir, "*.s"))
	kept, _ := filepath.Glob("*.s")
	if len(made) == 0 || len(made) != len(kept) {
		t.Fatalf("%d files made, %d kept", len(made), len(kept))
	}
	for _, path := range made {
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Base(path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what gen writes (%v): run go generate", filepath.Base(path), err)
		}
	}
}
