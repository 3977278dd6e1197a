package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"causeway/engine"
)

// usageError is a command line that makes no sense; it ends with exitUsage.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// sizeFlag is a number of bytes: 1048576, 64KiB, 4MiB, 1GiB.
type sizeFlag int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

func (s sizeFlag) String() string { return sizeText(int64(s)) }

// Set parses text. Negative sizes and sizes above 2 GiB - 1 are refused.
func (s *sizeFlag) Set(text string) error {
	n, ok := parseSize(text, math.MaxInt32)
	if !ok {
		return fmt.Errorf("%q is not a size such as 65536, 64KiB or 4MiB, below 2GiB", text)
	}
	*s = sizeFlag(n)
	return nil
}

func (s *sizeFlag) Type() string { return "size" }

// memoryFlag is a number of bytes like sizeFlag, up to memoryMax; 0: not given.
type memoryFlag int64

const memoryMax = 1 << 50 // bytes

func (s memoryFlag) String() string {
	if s == 0 {
		return ""
	}
	return sizeText(int64(s))
}

// Set parses text. Sizes that are not above 0, and those above memoryMax, are
// refused.
func (s *memoryFlag) Set(text string) error {
	n, ok := parseSize(text, memoryMax)
	if !ok || n == 0 {
		return fmt.Errorf("%q is not a size such as 512MiB or 4GiB", text)
	}
	*s = memoryFlag(n)
	return nil
}

func (s *memoryFlag) Type() string { return "size" }

// sizeText writes a number of bytes as parseSize reads it.
func sizeText(bytes int64) string {
	for _, u := range sizeUnits {
		if bytes >= u.bytes && bytes%u.bytes == 0 {
			return strconv.FormatInt(bytes/u.bytes, 10) + u.suffix
		}
	}
	return "0B"
}

// parseSize returns the number of bytes that text names, from 0 to most.
func parseSize(text string, most int64) (bytes int64, ok bool) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 0 || n > most/u.bytes {
			return 0, false
		}
		return n * u.bytes, true
	}
	return 0, false
}

// logFlags choose how to log.
type logFlags struct{ format, level string }

func (f *logFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.format, "log-format", "text", "log lines as text or json")
	fl.StringVar(&f.level, "log-level", "info", "least level to log: debug, info, warn, error")
}

func (f *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, fmt.Errorf("--log-level %q: must be debug, info, warn or error", f.level)
	}
	o := &slog.HandlerOptions{Level: level}
	switch f.format {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("--log-format %q: must be text or json", f.format)
}

// Values of --pin beside a list of cores.
const (
	pinAuto = "auto"
	pinOff  = "off"
)

// pinning returns the core of each loop, or nil for none. With auto loops are
// pinned when there is a core for each.
func pinning(pin string, loops int, allowed []int) ([]int, error) {
	switch pin {
	case pinOff:
		return nil, nil
	case pinAuto:
		if loops > len(allowed) {
			return nil, nil
		}
		return allowed[:loops], nil
	}
	cores, err := coreList("--pin", pin, allowed)
	if err != nil {
		return nil, err
	}
	if len(cores) != loops {
		return nil, errors.New("--pin names " + strconv.Itoa(len(cores)) + " cores for " + strconv.Itoa(loops) + " loops; give --loops as well")
	}
	return cores, nil
}

// verifyPinning returns the cores that workers take in turn, or nil for none. With
// auto these are the cores without a loop, if there are any.
func verifyPinning(pin string, c *engine.Config, allowed []int) (cores []int, err error) {
	switch {
	case pin == pinOff:
		return nil, nil
	case pin == pinAuto && (c.CPUs == nil || c.VerifyWorkers == 0):
		return nil, nil
	case pin == pinAuto:
		for _, core := range allowed {
			if !slices.Contains(c.CPUs, core) {
				cores = append(cores, core)
			}
		}
		return cores, nil
	case c.VerifyWorkers == 0:
		return nil, errors.New("--verify-pin names cores, but with --verify-workers 0 there is nothing to pin; leave one of them out")
	}
	return coreList("--verify-pin", pin, allowed)
}

// coreList reads the value of a flag that lists some of the cores allowed.
func coreList(flag, text string, allowed []int) (cores []int, err error) {
	for _, one := range strings.Split(text, ",") {
		core, err := strconv.Atoi(one)
		if err != nil {
			return nil, fmt.Errorf("%s %q: must be auto, off, or a list of cores such as 0,2,4", flag, text)
		}
		if !slices.Contains(allowed, core) {
			return nil, fmt.Errorf("%s: core %d is not one that this process may use: %v", flag, core, allowed)
		}
		cores = append(cores, core)
	}
	return cores, nil
}
