package main

import (
	"path/filepath"

	"causeway/crypto/pki"
)

// saveList writes a revocation list that has come from another router into the
// trust store, where a list that is as new or newer stays.
func (f *serveFlags) saveList(domain string, der []byte) error {
	list, err := pki.ParseCRL(der)
	if err != nil {
		return err
	}
	path := filepath.Join(f.trust, domain, listName(list))
	if have, err := readListFile(path); err == nil && have.Number.Cmp(list.Number) >= 0 {
		return nil
	}
	return replaceFile(path, pki.EncodeCRL(der), modePublic)
}
