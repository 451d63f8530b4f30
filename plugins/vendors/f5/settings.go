package f5

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// Settings say where the BIG-IP is, and how it is spoken to.
type Settings struct {
	// URL is the BIG-IP's management address, such as https://bigip.example.com.
	URL string `json:"url"`
	// Username is who logs in, and Password refers to the password. AS3 needs an
	// administrator.
	Username string         `json:"username"`
	Password plugins.Secret `json:"password"`
	// LoginProvider is where the BIG-IP looks the user up; empty means tmos, its
	// own users.
	LoginProvider string `json:"login_provider,omitempty"`
	// CAFile holds the CAs, as PEM, that the BIG-IP's certificate comes from;
	// empty means those of the system.
	CAFile string `json:"ca_file,omitempty"`
	// Rate is how many requests a second may be made; 0 means 20.
	Rate int `json:"rate,omitempty"`
	// TaskTimeout is how long AS3 may work on a declaration; 0 means 10 minutes.
	TaskTimeout plugins.Duration `json:"task_timeout,omitempty"`
	// NoDryRun has Plan not ask AS3 whether it would take the declaration.
	NoDryRun bool `json:"no_dry_run,omitempty"`
	// IKESPI has clients of IKEv2 known by the SPI that they begin with, rather
	// than by their addresses, where a group's affinity is spi. It takes an iRule.
	IKESPI bool `json:"ike_spi,omitempty"`
	// RADIUSPassword refers to the password with which checks of type radius log
	// in as their user, who must be let in. Without it servers are only pinged,
	// for a BIG-IP takes a reject for a failure.
	RADIUSPassword plugins.Secret `json:"radius_password,omitzero"`
	// Mirror has the other BIG-IP of a pair know connections and who lives
	// where, so that clients survive a failover.
	Mirror bool `json:"mirror,omitempty"`
	// GSLB has the BIG-IP answer for the names of geo, which takes BIG-IP DNS.
	// Without it they are left to others.
	GSLB bool `json:"gslb,omitempty"`
}

// schema is that of Settings.
const schema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "F5 BIG-IP",
  "type": "object",
  "additionalProperties": false,
  "required": ["url", "username", "password"],
  "properties": {
    "url": {"type": "string", "description": "The BIG-IP's management address, such as https://bigip.example.com."},
    "username": {"type": "string", "description": "Who logs in. AS3 needs an administrator."},
    "password": {"type": "object", "additionalProperties": false, "properties": {"file": {"type": "string"}, "env": {"type": "string"}}, "description": "Where the password is."},
    "login_provider": {"type": "string", "default": "tmos", "description": "Where the BIG-IP looks the user up."},
    "ca_file": {"type": "string", "description": "The CAs, as PEM, that the BIG-IP's certificate comes from; empty means those of the system."},
    "rate": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20, "description": "How many requests a second may be made."},
    "task_timeout": {"type": "string", "default": "10m", "description": "How long AS3 may work on a declaration."},
    "no_dry_run": {"type": "boolean", "default": false, "description": "Plan doesn't ask AS3 whether it would take the declaration."},
    "ike_spi": {"type": "boolean", "default": false, "description": "Clients of IKEv2 are known by the SPI that they begin with, where a group's affinity is spi. It takes an iRule."},
    "radius_password": {"type": "object", "additionalProperties": false, "properties": {"file": {"type": "string"}, "env": {"type": "string"}}, "description": "Where the password is with which checks of type radius log in as their user, who must be let in. Without it servers are only pinged."},
    "mirror": {"type": "boolean", "default": false, "description": "The other BIG-IP of a pair knows connections and who lives where, so that clients survive a failover."},
    "gslb": {"type": "boolean", "default": false, "description": "Has the BIG-IP answer for the names of geo, which takes BIG-IP DNS. Without it they are left to others."}
  }
}
`

// usual returns s with what its empty fields mean.
func (s Settings) usual() Settings {
	s.LoginProvider = cmp.Or(s.LoginProvider, "tmos")
	s.Rate = cmp.Or(s.Rate, 20)
	s.TaskTimeout = cmp.Or(s.TaskTimeout, plugins.Duration(10*time.Minute))
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
	// The address may hold a password by mistake, so it isn't repeated.
	u, err := url.Parse(s.URL)
	switch {
	case err != nil || u.Scheme != "https" || u.Host == "":
		add("url", "it must be the BIG-IP's management address, such as https://bigip.example.com")
	case u.User != nil:
		add("url", "a user and a password don't belong here: they have fields of their own")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		add("url", "it is only a scheme, a host and perhaps a port")
	}
	if s.Username == "" {
		add("username", "it must say who logs in")
	}
	switch {
	case s.Password.IsZero():
		add("password", "it must refer to the password, by file or env")
	case s.Password.File != "" && s.Password.Env != "":
		add("password", "there are file and env, only one can be")
	}
	if s.RADIUSPassword.File != "" && s.RADIUSPassword.Env != "" {
		add("radius_password", "there are file and env, only one can be")
	}
	if s.Rate < 0 || s.Rate > 1000 {
		add("rate", "%d isn't from 1 to 1000", s.Rate)
	}
	if d := s.TaskTimeout.D(); d != 0 && (d < time.Second || d > 24*time.Hour) {
		add("task_timeout", "%v isn't from 1s to 24h", s.TaskTimeout)
	}
	return s.usual(), errors.Join(errs...)
}
