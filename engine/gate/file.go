package gate

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
)

// Bounds of a firewall file.
const (
	fileSizeMax   = 4 << 20 // bytes
	fileLineMax   = 1024    // bytes
	fileLimitsMax = 100     // far more than there are
)

// LimitLine is a line of a firewall file that sets a limit.
type LimitLine struct {
	Line        int // in its file, from 1
	Name, Value string
}

func (l LimitLine) String() string { return "limit " + l.Name + " " + l.Value }

// File is what a firewall file says: who may connect, and how many.
type File struct {
	List   *List // nil: no line says who may connect, so everybody may
	Limits []LimitLine
}

// ParseFile reads a firewall file: lines "allow CIDR", "allow CIDR max N", "deny
// CIDR" and "limit NAME VALUE", comments from # on, and blank lines. It is
// strict, since a line that does nothing is a hole or a node kept out: errors
// name the line and what would be right. Which limits there are, and what they
// can be, is for the caller to know.
func ParseFile(r io.Reader) (File, error) {
	f := File{}
	l := &List{index: make(map[netip.Prefix]int)}
	limited := &io.LimitedReader{R: r, N: fileSizeMax + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, fileLineMax)
	line := 0
	for s.Scan() {
		line++
		text, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		var err error
		if fields[0] == limitWord {
			err = f.addLimit(fields, line)
		} else {
			err = l.parse(fields, line)
		}
		if err != nil {
			return File{}, fmt.Errorf("line %d: %w", line, err)
		}
	}
	switch err := s.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return File{}, fmt.Errorf("line %d: longer than %d bytes", line+1, fileLineMax)
	case err != nil:
		return File{}, err
	case limited.N == 0:
		return File{}, fmt.Errorf("larger than %d bytes", fileSizeMax)
	case len(l.rules) > 0:
		f.List = l
	case len(f.Limits) == 0:
		return File{}, errors.New(`has no line; if everybody is to be refused, write "deny 0.0.0.0/0" and "deny ::/0", if everybody may connect, "allow 0.0.0.0/0" and "allow ::/0"`)
	}
	return f, nil
}

const limitWord = "limit"

func (f *File) addLimit(fields []string, line int) error {
	if len(fields) != 3 {
		return errSyntax
	}
	l := LimitLine{Line: line, Name: fields[1], Value: fields[2]}
	for _, o := range f.Limits {
		if o.Name == l.Name {
			return fmt.Errorf("%s is set in line %d already; take one of them out", l.Name, o.Line)
		}
	}
	if len(f.Limits) == fileLimitsMax {
		return fmt.Errorf("more than %d limits", fileLimitsMax)
	}
	f.Limits = append(f.Limits, l)
	return nil
}

var errSyntax = errors.New(`must be "allow CIDR", "allow CIDR max N", "deny CIDR" or "limit NAME VALUE"`)
