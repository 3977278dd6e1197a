package codec

// Category says what a frame's body is for (PROTOCOL.md section 1).
type Category uint8

// Categories of bodies. 6 to 63 are reserved and forwarded like data.
const (
	CategoryData        Category = 0
	CategorySession     Category = 1
	CategoryControl     Category = 2
	CategoryNotice      Category = 3
	CategoryEcho        Category = 4
	CategoryDevice      Category = 5
	CategoryApplication Category = 64 // the first of those for applications
)

// String returns the category's metric and CLI label; all reserved ones have
// the label "reserved", all of applications "application".
func (c Category) String() string {
	switch {
	case c == CategoryData:
		return "data"
	case c == CategorySession:
		return "session"
	case c == CategoryControl:
		return "control"
	case c == CategoryNotice:
		return "notice"
	case c == CategoryEcho:
		return "echo"
	case c == CategoryDevice:
		return "device"
	case c < CategoryApplication:
		return "reserved"
	}
	return "application"
}

// AllowsFlag reports whether a frame of this category may have the given
// encrypted flag: 1 to 4 are never encrypted, 5 always is.
func (c Category) AllowsFlag(encrypted bool) bool {
	switch c {
	case CategorySession, CategoryControl, CategoryNotice, CategoryEcho:
		return !encrypted
	case CategoryDevice:
		return encrypted
	}
	return true
}

// IsPayload reports whether bodies of this category are an application's: the
// categories whose plain bodies a recipient refuses unless its application
// has accepted them.
func (c Category) IsPayload() bool {
	return c == CategoryData || c == CategoryDevice || c >= CategoryApplication
}
