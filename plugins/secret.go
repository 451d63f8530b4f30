package plugins

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// A Secret refers to a secret that is kept elsewhere. It holds no secret
// itself, so it may be shown.
type Secret struct {
	// File is the file that holds it; white space at its end doesn't count.
	File string `json:"file,omitempty"`
	// Env is the environment variable that holds it.
	Env string `json:"env,omitempty"`
}

// IsZero reports whether s refers to nothing.
func (s Secret) IsZero() bool { return s == Secret{} }

// String says where the secret is.
func (s Secret) String() string {
	switch {
	case s.File != "":
		return "file " + s.File
	case s.Env != "":
		return "environment variable " + s.Env
	}
	return "none"
}

// ErrUnset says that the environment variable of a Secret isn't set, or is empty,
// in this process: it may well be in the one that is to use the Secret.
var ErrUnset = errors.New("the environment variable named there is not set, or empty")

// maxSecret bounds a secret's file, in bytes.
const maxSecret = 64 << 10

// Read returns the secret. The error says where it was looked for, and never
// holds any of it.
func (s Secret) Read() ([]byte, error) {
	var b []byte
	switch {
	case s.File != "":
		info, err := os.Stat(s.File)
		switch {
		case err != nil && !strings.ContainsAny(s.File, `/\`):
			// It is no path, and may be the secret itself, put in the wrong place.
			return nil, errors.New("read secret: the file named there can't be found; write its whole path")
		case err != nil:
			return nil, fmt.Errorf("read secret: %w", err)
		}
		if !info.Mode().IsRegular() || info.Size() > maxSecret {
			return nil, fmt.Errorf("read secret: %s is not a file of at most %d bytes", s.File, maxSecret)
		}
		if b, err = os.ReadFile(s.File); err != nil {
			return nil, fmt.Errorf("read secret: %w", err)
		}
		b = bytes.TrimRight(b, "\r\n\t ")
	case s.Env != "":
		b = []byte(os.Getenv(s.Env))
	default:
		return nil, errors.New("read secret: neither a file nor an environment variable is named")
	}
	if len(b) == 0 && s.File == "" {
		// What is named there may be the secret itself, put in the wrong place.
		return nil, fmt.Errorf("read secret: %w", ErrUnset)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("read secret: %v is empty", s)
	}
	return b, nil
}
