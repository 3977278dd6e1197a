package engine_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// mayImport is the import table of doc.go: for each package of ours, which
// others of ours it may import. Tests of a package may also import what
// testsMayImport says.
var mayImport = map[string][]string{
	"codec":          {},
	"crypto/sign":    {},
	"crypto/pki":     {},
	"crypto/session": {},
	"engine/buf":     {},
	"engine/link":    {"engine/buf"},
	"engine/verify":  {"codec", "crypto/sign", "engine/buf"},
	"engine/table":   {"codec"},
	"engine/gate":    {},
	"engine/admin":   {},
	"engine/node":    {"codec", "crypto/pki", "crypto/session", "crypto/sign"},
	"engine":         {"codec", "crypto/pki", "crypto/sign", "engine/admin", "engine/buf", "engine/gate", "engine/link", "engine/node", "engine/route", "engine/table", "engine/verify"},
	"cmd/causeway":   {"codec", "crypto/pki", "crypto/sign", "engine", "engine/admin", "engine/buf", "engine/gate", "engine/node"},
	"bench/load":     {"codec", "crypto/pki", "crypto/sign"},
	"engine/route":   {"codec"},
	"engine/simnet":  {},
}

// pure packages have no goroutine, socket, file, clock or randomness of their
// own. The imports and calls below would bring one in.
var pure = []string{"codec", "crypto/sign", "crypto/pki", "crypto/session", "engine/route"}

var impureImports = []string{"net/http", "os", "os/exec", "syscall", "golang.org/x/sys/unix", "math/rand", "math/rand/v2", "crypto/rand", "sync"}

var impureCalls = []string{"time.Now", "time.Sleep", "time.After", "time.NewTimer", "net.Dial", "net.Listen"}

// topLevel is all that may stand in the project's root, besides dot files.
var topLevel = []string{"cmd", "engine", "codec", "crypto", "bench", "deploy", "go.mod", "go.sum", "Makefile", "BENCHMARKS.md", "README.md", "bin"}

const (
	functionLinesMax = 70 // tests may be longer: tables read best whole
	fileLinesMax     = 500
	testLinesMax     = 700
)

// source is one Go file of the project.
type source struct {
	path, dir string
	test      bool
	file      *ast.File
	fset      *token.FileSet
	lines     int
}

func sources(t *testing.T) (all []source) {
	t.Helper()
	root := ".."
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(path, root+string(filepath.Separator))
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || nested(path)) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), test: strings.HasSuffix(path, "_test.go"),
			file: file, fset: fset, lines: strings.Count(string(text), "\n"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("only %d Go files found: is the walk right?", len(all))
	}
	return all
}

// nested tells whether dir is a module of its own.
func nested(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, s := range sources(t) {
		allowed, known := mayImport[s.dir]
		if !known {
			t.Errorf("%s: package %s is not in the import table; place it in engine/doc.go first", s.path, s.dir)
			continue
		}
		for _, i := range s.file.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			ours, ok := strings.CutPrefix(path, "causeway/")
			if !ok || slices.Contains(allowed, ours) || s.test && (ours == s.dir || testMayImport(s.dir, ours)) {
				continue
			}
			t.Errorf("%s: %s may not import %s", s.path, s.dir, ours)
		}
	}
}

// testMayImport: tests of the engine's parts and of the library may make
// certificates and count buffers; those of routes run on a simulated network, and
// sessions on that too.
func testMayImport(dir, ours string) bool {
	return dir == "engine/route" && ours == "engine/simnet" || dir == "engine/simnet" && ours == "crypto/session" || slices.Contains([]string{"codec", "crypto/pki", "crypto/sign", "engine/buf"}, ours) && strings.HasPrefix(dir, "engine")
}

func TestPurePackagesArePure(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || !slices.Contains(pure, s.dir) {
			continue
		}
		for _, i := range s.file.Imports {
			if path := strings.Trim(i.Path.Value, `"`); slices.Contains(impureImports, path) {
				t.Errorf("%s: a pure package may not import %s", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: a pure package starts no goroutine", s.fset.Position(n.Pos()))
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && slices.Contains(impureCalls, x.Name+"."+n.Sel.Name) {
					t.Errorf("%s: a pure package may not call %s.%s", s.fset.Position(n.Pos()), x.Name, n.Sel.Name)
				}
			}
			return true
		})
	}
}

// A function or file beyond its bound needs the words "tidy: long" and a reason
// in its doc comment, or for files above the package clause.
func TestFunctionsAndFilesStayShort(t *testing.T) {
	for _, s := range sources(t) {
		most := fileLinesMax
		if s.test {
			most = testLinesMax
		}
		if s.lines > most && !excused(s.file.Doc) {
			t.Errorf("%s: %d lines, at most %d", s.path, s.lines, most)
		}
		for _, d := range s.file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || s.test || excused(f.Doc) {
				continue
			}
			if n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line + 1; n > functionLinesMax {
				t.Errorf("%s: %s has %d lines, at most %d", s.fset.Position(f.Pos()), f.Name.Name, n, functionLinesMax)
			}
		}
	}
}

func excused(doc *ast.CommentGroup) bool {
	return doc != nil && strings.Contains(doc.Text(), "tidy: long")
}

func TestTopLevelHoldsOnlyWhatItShould(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong into the project's root", e.Name())
		}
	}
}

func TestEveryPackageSaysWhatItIsFor(t *testing.T) {
	documented := map[string]bool{}
	for _, s := range sources(t) {
		documented[s.dir] = documented[s.dir] || !s.test && s.file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}
