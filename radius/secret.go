package radius

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
	"strings"
)

// hidden is what is shown of a Secret.
const hidden = "[secret]"

// A Secret is what a RADIUS client and server share. However it is printed,
// logged or encoded, it shows itself as "[secret]". The zero Secret is none. A
// Secret may be copied.
type Secret struct {
	// Package fmt doesn't ask the methods of unexported fields. There it shows
	// pointers as numbers, but for a verb that doesn't suit a pointer it shows
	// what is behind the first one. So there are two.
	b **[]byte
}

// NewSecret returns a copy of b as a Secret.
func NewSecret(b []byte) Secret {
	if len(b) == 0 {
		return Secret{}
	}
	c := append([]byte(nil), b...)
	inner := &c
	return Secret{b: &inner}
}

// ParseSecret returns what a file holds as a Secret, without line ends behind
// it.
func ParseSecret(file []byte) (Secret, error) {
	s := NewSecret([]byte(strings.TrimRight(string(file), "\r\n")))
	if s.IsZero() {
		return s, fmt.Errorf("radius: the secret is empty")
	}
	return s, nil
}

// IsZero reports whether there is no secret.
func (s Secret) IsZero() bool { return s.b == nil }

// Equal reports whether both are the same, without telling by its time how
// nearly.
func (s Secret) Equal(o Secret) bool { return subtle.ConstantTimeCompare(s.bytes(), o.bytes()) == 1 }

func (s Secret) bytes() []byte {
	if s.b == nil {
		return nil
	}
	return **s.b
}

// String hides the secret.
func (Secret) String() string { return hidden }

// GoString hides the secret.
func (Secret) GoString() string { return hidden }

// Format hides the secret, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, hidden) }

// MarshalText hides the secret, also in JSON, XML and YAML.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
