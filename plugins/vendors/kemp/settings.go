package kemp

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Settings say where the LoadMaster is, and how it is asked.
type Settings struct {
	// Address is the LoadMaster's management address, such as
	// https://lm.example.com or https://192.0.2.5:8443. Its API must be enabled.
	Address string `json:"address"`
	// API is the version of its API; empty means APIv2.
	API API `json:"api,omitempty"`
	// APIKey refers to a key that the LoadMaster made for its version 2.
	APIKey plugins.Secret `json:"api_key,omitzero"`
	// User and Password are used where there is no APIKey.
	User     string         `json:"user,omitempty"`
	Password plugins.Secret `json:"password,omitzero"`
	// CAFile holds the CAs that its certificate may come from, as PEM; empty
	// means those of the system.
	CAFile string `json:"ca_file,omitempty"`
	// Timeout bounds one call; 0 means 30 s.
	Timeout plugins.Duration `json:"timeout,omitempty"`
	// Rate is how many calls a second are made at most; 0 means 20.
	Rate int `json:"rate,omitempty"`
	// RemoteServers allows backends that are in none of the LoadMaster's own
	// networks. It must be enabled there, too.
	RemoteServers bool `json:"remote_servers,omitempty"`
	// ServiceTimers sets the times of checks in each virtual service, which newer
	// firmware can. Without it the times are those of the whole LoadMaster, which
	// the driver leaves alone.
	ServiceTimers bool `json:"service_timers,omitempty"`
	// GSLB has the LoadMaster's GEO answer for the names of geo; without it they are
	// left to others. GEO must be enabled there.
	GSLB bool `json:"gslb,omitempty"`
}

// An API is a version of the LoadMaster's API.
type API string

const (
	// APIv2 is JSON, since firmware 7.2.50.
	APIv2 API = "v2"
	// APIv1 is XML. It knows no keys, only users.
	APIv1 API = "v1"
)

// schema is that of Settings.
const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "Kemp LoadMaster",
  "type": "object",
  "additionalProperties": false,
  "required": ["address"],
  "properties": {
    "address": {"type": "string", "description": "The LoadMaster's management address, such as https://lm.example.com. Its API must be enabled."},
    "api": {"enum": ["v2", "v1"], "default": "v2", "description": "The version of its API: v2 is JSON, since firmware 7.2.50; v1 is XML."},
    "api_key": {"$ref": "#/$defs/secret", "description": "A key that the LoadMaster made, for v2."},
    "user": {"type": "string", "description": "A user who may change virtual services, certificates and rules, where there is no key."},
    "password": {"$ref": "#/$defs/secret", "description": "The user's password."},
    "ca_file": {"type": "string", "description": "The CAs that its certificate may come from, as PEM; empty means those of the system."},
    "timeout": {"type": "string", "default": "30s", "description": "How long one call may take."},
    "rate": {"type": "integer", "minimum": 1, "maximum": 100000, "default": 20, "description": "How many calls a second are made at most."},
    "remote_servers": {"type": "boolean", "default": false, "description": "Allows backends that are in none of the LoadMaster's own networks; it must be enabled there, too."},
    "service_timers": {"type": "boolean", "default": false, "description": "Sets the times of checks in each virtual service, which newer firmware can. Without it those of the whole LoadMaster count, which are left alone."},
    "gslb": {"type": "boolean", "default": false, "description": "Has the LoadMaster's GEO answer for the names of geo; without it they are left to others. GEO must be enabled there."}
  },
  "$defs": {
    "secret": {
      "type": "object", "additionalProperties": false,
      "properties": {"file": {"type": "string"}, "env": {"type": "string"}}
    }
  }
}
`

// usual returns s with what its zero fields mean.
func (s Settings) usual() Settings {
	s.API = cmp.Or(s.API, APIv2)
	s.Timeout = cmp.Or(s.Timeout, plugins.Duration(30*time.Second))
	s.Rate = cmp.Or(s.Rate, 20)
	return s
}

// readSettings reads and checks the settings.
func readSettings(c *plugins.Config) (Settings, error) {
	var s Settings
	if err := c.ReadSettings(&s); err != nil {
		return s, err
	}
	return s.usual(), s.check()
}

// check says what is wrong with s.
func (s Settings) check() error {
	var errs []error
	add := func(path, format string, args ...any) {
		errs = append(errs, &plugins.FieldError{Path: "settings." + path, Err: fmt.Errorf(format, args...)})
	}
	switch u, err := url.Parse(s.Address); {
	case s.Address == "":
		add("address", "it must say where the LoadMaster is, such as https://lm.example.com")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		add("address", "it is not an address such as https://lm.example.com") // it may hold a password, so it isn't repeated
	case u.User != nil:
		add("address", "users and passwords don't belong here: see user and password")
	}
	if s.API != "" && s.API != APIv1 && s.API != APIv2 {
		add("api", "%q is neither v2 nor v1", string(s.API))
	}
	s.checkLogin(add)
	if t := s.Timeout.D(); t != 0 && (t < time.Second || t > 10*time.Minute) {
		add("timeout", "%v is not between 1s and 10m", s.Timeout)
	}
	if s.Rate < 0 || s.Rate > 100000 {
		add("rate", "%d is not between 1 and 100000", s.Rate)
	}
	return errors.Join(errs...)
}

func (s Settings) checkLogin(add func(path, format string, args ...any)) {
	key, password := !s.APIKey.IsZero(), !s.Password.IsZero()
	switch {
	case s.API == APIv1 && key:
		add("api_key", "v1 knows no keys: name a user and a password")
	case key && (s.User != "" || password):
		add("api_key", "there is a user too, only one can be")
	case !key && s.User == "":
		add("api_key", "it needs a key, or a user and a password")
	case !key && !password:
		add("password", "the user needs one")
	}
	for name, x := range map[string]plugins.Secret{"api_key": s.APIKey, "password": s.Password} {
		if x.File != "" && x.Env != "" {
			add(name, "it names a file and an environment variable, only one can be")
		}
	}
}

// readFile reads a file of at most most bytes.
func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return b, nil
}
