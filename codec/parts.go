package codec

// Answers that are larger than one body: how much of them fits.

const (
	// Upper bounds, in bytes, of what the encodings of Certificates and Names
	// have beside their entries: map, keys, integers of 9 bytes, the entries'
	// array, and the longest Next.
	certificatesOverhead = 1 + 2 + 4*(1+9) + 3
	namesOverhead        = 1 + 2 + 2*(1+9) + 3 + 1 + 2 + NameMax

	certificateEntryOverhead = 1 + (1 + AddressSize) + (1 + CertIDSize) + 1 // array, address, ID, chain's array
	nameEntryOverhead        = 1 + 1 + 2                                    // array, chain's array, kind's head
	bytesHeadMax             = 5                                            // of a byte string of up to 2^32-1 bytes
)

func chainSize(chain [][]byte) int {
	n := 0
	for _, der := range chain {
		n += bytesHeadMax + len(der)
	}
	return n
}

// SplitCertificates distributes the answer to request number over as few
// parts as keep within a body's limit, in order; at least one. The parts
// borrow entries. It fails with ErrControlLength when one entry is larger than
// a body or the parts are more than CertificatesPartsMax.
func SplitCertificates(number uint64, entries []CertificateEntry) ([]*Certificates, error) {
	var parts []*Certificates
	from, size := 0, certificatesOverhead
	for i, e := range entries {
		n := certificateEntryOverhead + chainSize(e.Chain)
		if certificatesOverhead+n > ControlBodyMax {
			return nil, ErrControlLength
		}
		if size+n > ControlBodyMax || i-from == CertificatesEntriesMax {
			parts = append(parts, &Certificates{Number: number, Entries: entries[from:i:i]})
			from, size = i, certificatesOverhead
		}
		size += n
	}
	parts = append(parts, &Certificates{Number: number, Entries: entries[from:]})
	if len(parts) > CertificatesPartsMax {
		return nil, ErrControlLength
	}
	for i, p := range parts {
		p.Part, p.Parts = uint8(i), uint8(len(parts))
	}
	return parts, nil
}

// FitNames returns how many of the entries, from the first, fit into one
// answer: at most NamesMax, and the body within its limit.
func FitNames(entries []NameEntry) int {
	size := namesOverhead
	for i, e := range entries {
		size += nameEntryOverhead + len(e.Kind) + chainSize(e.Chain)
		if size > ControlBodyMax || i == NamesMax {
			return i
		}
	}
	return len(entries)
}
