package netscaler

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

// Settings say where the NetScaler is.
type Settings struct {
	// URL is its management address (NSIP, or a SNIP with management access),
	// such as https://netscaler.example.com.
	URL string `json:"url"`
	// User is who logs in, Password refers to that user's password.
	User     string         `json:"user"`
	Password plugins.Secret `json:"password"`
	// CAFile holds the CAs, or the certificate itself, that the appliance's
	// certificate is verified with; empty means those of the system.
	CAFile string `json:"ca_file,omitempty"`
	// ServerName is the name in that certificate; empty means that of URL.
	ServerName string `json:"server_name,omitempty"`
	// Save has the configuration saved after a change, so that it outlasts a
	// restart; nil means true. It saves the changes of others, too.
	Save *bool `json:"save,omitempty"`
	// Rate is how many requests it is sent a second at most; 0 means 50.
	Rate int `json:"rate,omitempty"`
	// GSLB has the appliance answer for the names of geo; nil leaves these to
	// others.
	GSLB *GSLB `json:"gslb,omitempty"`
}

// schema is that of Settings.
const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "NetScaler ADC",
  "type": "object",
  "additionalProperties": false,
  "required": ["url", "user", "password"],
  "properties": {
    "url": {"type": "string", "description": "The management address, such as https://netscaler.example.com."},
    "user": {"type": "string", "description": "Who logs in."},
    "password": {
      "type": "object", "additionalProperties": false, "description": "Where the password is.",
      "properties": {"file": {"type": "string"}, "env": {"type": "string"}}
    },
    "ca_file": {"type": "string", "description": "The CAs, or the certificate itself, that the appliance's certificate is verified with; empty means those of the system."},
    "server_name": {"type": "string", "description": "The name in that certificate; empty means that of url."},
    "save": {"type": "boolean", "default": true, "description": "Save the configuration after a change, with those of others."},
    "rate": {"type": "integer", "minimum": 1, "maximum": 100000, "default": 50, "description": "How many requests it is sent a second at most."},
    "gslb": {
      "type": "object", "additionalProperties": false, "description": "Has the appliance answer for the names of geo (GSLB); without it these are left to others.",
      "properties": {"address": {"type": "string", "description": "The appliance's own address as a GSLB site; it can be left out if it has such a site already."}}
    }
  }
}
`

// saves reports whether changes are to be saved.
func (s *Settings) saves() bool { return s.Save == nil || *s.Save }

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
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		add("url", "it must be the appliance's address, such as https://netscaler.example.com: passwords go there, so it can't be plain http")
	case u.User != nil:
		add("url", "the user and the password don't belong here")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		add("url", "it ends after the host and the port, the rest is known")
	}
	if s.User == "" {
		add("user", "it must say who logs in")
	}
	switch {
	case s.Password.IsZero():
		add("password", "it must refer to the password: {file: …} or {env: …}")
	case s.Password.File != "" && s.Password.Env != "":
		add("password", "it has file and env, only one can be")
	}
	if s.Rate < 0 || s.Rate > 100000 {
		add("rate", "%d is not between 1 and 100000", s.Rate)
	}
	if g := s.GSLB; g != nil && g.Address.IsValid() && (g.Address.IsUnspecified() || g.Address.IsMulticast() || g.Address.Zone() != "") {
		add("gslb.address", "%v is no address of its own", g.Address)
	}
	if s.Rate == 0 {
		s.Rate = 50
	}
	return s, errors.Join(errs...)
}
