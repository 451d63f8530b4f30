package haproxy

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Settings say where HAProxy is.
type Settings struct {
	// File is the file that the driver writes, and nobody else. HAProxy must
	// load it.
	File string `json:"file"`
	// Beside are the other files that HAProxy loads, in their order, so that all
	// are checked together.
	Beside []string `json:"beside,omitempty"`
	// Master is the socket of HAProxy's master process (haproxy -W -S); empty
	// means /run/haproxy-master.sock.
	Master string `json:"master,omitempty"`
	// Program is HAProxy; empty means haproxy, found by PATH.
	Program string `json:"program,omitempty"`
	// TrustedCAs is the file that the certificates of gateways are verified
	// with where a deployment names none; empty means those of the system.
	TrustedCAs string `json:"trusted_cas,omitempty"`
}

// schema is that of Settings.
const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "HAProxy",
  "type": "object",
  "additionalProperties": false,
  "required": ["file"],
  "properties": {
    "file": {"type": "string", "description": "The file that the driver writes, and nobody else. HAProxy must load it: haproxy -W -S MASTER -f haproxy.cfg -f FILE."},
    "beside": {"type": "array", "items": {"type": "string"}, "description": "The other files that HAProxy loads, in their order, so that all are checked together."},
    "master": {"type": "string", "default": "/run/haproxy-master.sock", "description": "The socket of HAProxy's master process."},
    "program": {"type": "string", "default": "haproxy", "description": "HAProxy, to check files with."},
    "trusted_cas": {"type": "string", "description": "The file that certificates of gateways are verified with where a deployment names none; empty means those of the system."}
  }
}
`

// usual returns s with what its empty fields mean.
func (s Settings) usual() Settings {
	if s.Master == "" {
		s.Master = "/run/haproxy-master.sock"
	}
	if s.Program == "" {
		s.Program = "haproxy"
	}
	if s.TrustedCAs == "" {
		s.TrustedCAs = "@system-ca"
	}
	return s
}

// readSettings reads and checks the settings.
func readSettings(c *plugins.Config) (Settings, error) {
	var s Settings
	if err := c.ReadSettings(&s); err != nil {
		return s, err
	}
	var errs []error
	add := func(path, format string, args ...any) {
		errs = append(errs, &plugins.FieldError{Path: "settings." + path, Err: fmt.Errorf(format, args...)})
	}
	if s.File == "" {
		add("file", "it must name the file to write, which HAProxy loads")
	}
	for i, f := range append([]string{s.File, s.Master, s.Program, s.TrustedCAs}, s.Beside...) {
		if strings.ContainsAny(f, "\x00\r\n") {
			add([]string{"file", "master", "program", "trusted_cas", "beside"}[min(i, 4)], "a file name can't hold the end of a line")
		}
	}
	for i, f := range s.Beside {
		if s.File != "" && filepath.Clean(f) == filepath.Clean(s.File) {
			add(fmt.Sprintf("beside[%d]", i), "%s is the file that the driver writes", f)
		}
	}
	return s.usual(), errors.Join(errs...)
}
