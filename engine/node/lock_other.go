//go:build !unix

package node

type lock struct{}

// takeLock fails: this system has no flock.
func takeLock(string) (*lock, error) {
	return nil, &ConfigError{
		Field: "LockFile", Problem: "file locks are not available on this system",
		Remedy: "leave it empty, and run one process per identity",
	}
}

func (l *lock) release() {}
