package plugins

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Certificate is what clients of SSTP are shown, where it comes from, and how the
// gateways of a pool learn its hash. SSTP binds each session to the certificate
// that its client was shown: a gateway that expects another one ends it.
type Certificate struct {
	// Name identifies the certificate within its Site.
	Name string `json:"name"`
	// Pool names the gateways that must know its hash.
	Pool string `json:"pool"`
	// CertFile holds the certificate and its chain, and perhaps its key, as PEM,
	// DER or PKCS#7; KeyFile holds its key, as PEM. When they change, a reload
	// begins a Renewal.
	CertFile string `json:"cert_file,omitempty"`
	KeyFile  string `json:"key_file,omitempty"`
	// ACME has it come from a CA instead.
	ACME *ACME `json:"acme,omitempty"`
	// Renewal says how a new one is brought to the gateways.
	Renewal Rollout `json:"renewal,omitzero"`
}

// ACME says which CA a Certificate comes from, and how the CA is convinced.
type ACME struct {
	// Host is the name that the certificate is for.
	Host string `json:"host"`
	// Directory is where the CA is; empty means Let's Encrypt.
	Directory string `json:"directory,omitempty"`
	// Email is told to the CA.
	Email string `json:"email,omitempty"`
	// CAFile holds the roots that the CA's own certificate is trusted from, for a
	// CA of your own; empty means those of the system.
	CAFile string `json:"ca_file,omitempty"`
	// KeyType is the kind of key; empty means KeyP256.
	KeyType KeyType `json:"key_type,omitempty"`
	// Challenge is the proof that the CA is given; empty means either.
	Challenge Challenge `json:"challenge,omitempty"`
	// Listen is where challenges are answered that no listener of this file
	// answers; empty means all addresses.
	Listen netip.Addr `json:"listen,omitzero"`
	// TLSALPNPort and HTTPPort are where challenges come to, if something before
	// this machine translates 443 and 80; 0 means no translation.
	TLSALPNPort int `json:"tls_alpn_port,omitempty"`
	HTTPPort    int `json:"http_port,omitempty"`
	// EABKeyID is an account that the CA knows (external account binding), and
	// EABKeyFile or EABKeyEnv refer to its secret.
	EABKeyID   string `json:"eab_key_id,omitempty"`
	EABKeyFile string `json:"eab_key_file,omitempty"`
	EABKeyEnv  string `json:"eab_key_env,omitempty"`
}

// EABKey refers to the secret of the external account.
func (a *ACME) EABKey() Secret { return Secret{File: a.EABKeyFile, Env: a.EABKeyEnv} }

// A KeyType is a kind of key.
type KeyType string

const (
	// KeyP256 and KeyP384 are ECDSA.
	KeyP256 KeyType = "p256"
	KeyP384 KeyType = "p384"
	// KeyRSA2048 and KeyRSA4096 are RSA.
	KeyRSA2048 KeyType = "rsa2048"
	KeyRSA4096 KeyType = "rsa4096"
)

// A Challenge is a way to prove to a CA that a name is ours.
type Challenge string

const (
	// ChallengeTLSALPN answers in TLS, at port 443.
	ChallengeTLSALPN Challenge = "tls-alpn-01"
	// ChallengeHTTP answers in HTTP, at port 80.
	ChallengeHTTP Challenge = "http-01"
)

// A Rollout says how gateways are told of a new certificate: one after the other,
// each drained meanwhile.
type Rollout struct {
	// Start says when; empty means RolloutAutomatic with a Set command, and
	// RolloutManual without one.
	Start RolloutStart `json:"start,omitempty"`
	// Set is a program and its arguments, which sets the hash at a gateway and
	// restarts its service. In arguments, {gateway} and {address} stand for the
	// backend's name and address. It is given a PowerShell script that does it as
	// its input, and AOVLB_GATEWAY, AOVLB_ADDRESS, AOVLB_SHA256, AOVLB_SHA1,
	// AOVLB_PREVIOUS_SHA256 and AOVLB_CERT_FILE in its environment. Empty means
	// that an administrator does it by hand, and says so by aovlb renew --confirm.
	Set []string `json:"set,omitempty"`
	// Read is a program that prints the hash which a gateway is configured with,
	// likewise. Its input is a PowerShell script that does it. Empty means that
	// nobody looks.
	Read []string `json:"read,omitempty"`
	// Timeout bounds each run of Set and Read; 0 means 10 minutes.
	Timeout Duration `json:"timeout,omitempty"`
	// Patience is how long clients may stay at a gateway that is to be restarted;
	// 0 means 8 hours, less than 0 is for ever.
	Patience Duration `json:"patience,omitempty"`
	// Settle is how long clients have to arrive that were on their way to a
	// gateway when it was drained; 0 means 15 s.
	Settle Duration `json:"settle,omitempty"`
	// Prove is how long, when a gateway takes clients again and nobody has Read its
	// hash, a session is waited for that proves it, before the next gateway is
	// changed; 0 means 5 minutes, less than 0 not to wait. A gateway that aborts
	// these sessions is taken out of service again.
	Prove Duration `json:"prove,omitempty"`
	// Outage lets a gateway be changed though no other can take its clients.
	Outage bool `json:"outage,omitempty"`
}

// A RolloutStart says when a new certificate is brought to the gateways.
type RolloutStart string

const (
	// RolloutAutomatic begins as soon as it is there.
	RolloutAutomatic RolloutStart = "automatic"
	// RolloutManual waits for aovlb renew.
	RolloutManual RolloutStart = "manual"
)

// Automatic reports whether r begins by itself.
func (r *Rollout) Automatic() bool {
	return r.Start == RolloutAutomatic || r.Start == "" && len(r.Set) > 0
}

// Certificate returns the certificate of that name, or nil.
func (s *Site) Certificate(name string) *Certificate {
	for i := range s.Certificates {
		if s.Certificates[i].Name == name {
			return &s.Certificates[i]
		}
	}
	return nil
}

// certificates checks those of a site.
func (v *validator) certificates(at string, s *Site) {
	names, pools := make(map[string]string), make(map[string]string)
	for i := range s.Certificates {
		c := &s.Certificates[i]
		path := index(at, ".certificates", i)
		v.name(path, c.Name, "certificate", names)
		v.certificate(path, c, s)
		if first, dup := pools[c.Pool]; dup && c.Pool != "" {
			v.add(path+".pool", "%s is for the gateways of pool %s already, and each of them knows one hash", first, c.Pool)
		}
		pools[c.Pool] = path
	}
}

func (v *validator) certificate(at string, c *Certificate, s *Site) {
	switch {
	case c.ACME == nil && c.CertFile == "":
		v.add(at+".cert_file", "a certificate comes from a cert_file or from acme")
	case c.ACME != nil && c.CertFile != "":
		v.add(at+".cert_file", "it can't come from a file and from acme")
	case c.ACME != nil && c.KeyFile != "":
		v.add(at+".key_file", "acme makes the key")
	}
	if strings.EqualFold(filepath.Ext(c.CertFile), ".pfx") || strings.EqualFold(filepath.Ext(c.CertFile), ".p12") {
		v.add(at+".cert_file", "a PFX has a password: aovlb cert convert makes PEM of it")
	}
	if c.ACME != nil {
		v.acme(at+".acme", c.ACME)
	}
	v.rollout(at+".renewal", &c.Renewal)
	p := s.Pool(c.Pool)
	switch {
	case c.Pool == "":
		v.add(at+".pool", "a certificate needs the pool of its gateways")
	case p == nil:
		v.add(at+".pool", "there is no pool %q in this site", c.Pool)
	case !slices.ContainsFunc(p.Checks, func(c Check) bool { return c.Type == CheckSSTP }):
		v.add(at+".pool", "pool %s needs a check of type sstp: it tells whether a gateway serves after its certificate was changed", c.Pool)
	}
}

func (v *validator) acme(at string, a *ACME) {
	oneOf(v, at+".key_type", a.KeyType, KeyP256, KeyP384, KeyRSA2048, KeyRSA4096)
	oneOf(v, at+".challenge", a.Challenge, ChallengeTLSALPN, ChallengeHTTP)
	v.between(at+".tls_alpn_port", a.TLSALPNPort, 1, 65535)
	v.between(at+".http_port", a.HTTPPort, 1, 65535)
	switch {
	case a.Host == "":
		v.add(at+".host", "a certificate needs the name that it is for")
	case strings.ContainsAny(a.Host, " /:\r\n\t") || !strings.Contains(a.Host, "."):
		v.add(at+".host", "%q is not the full name of a host", a.Host)
	case strings.HasPrefix(a.Host, "*."):
		v.add(at+".host", "a CA wants DNS to be changed for %q: name the host itself", a.Host)
	}
	if u, err := url.Parse(a.Directory); a.Directory != "" && (err != nil || u.Scheme != "https" || u.Host == "") {
		v.add(at+".directory", "%q is not an https address", a.Directory)
	}
	switch {
	case a.EABKeyID == "" && !a.EABKey().IsZero():
		v.add(at+".eab_key_id", "the secret of an account needs its eab_key_id")
	case a.EABKeyID != "" && a.EABKey().IsZero():
		v.add(at+".eab_key_file", "eab_key_id needs eab_key_file or eab_key_env")
	case a.EABKeyFile != "" && a.EABKeyEnv != "":
		v.add(at+".eab_key_env", "there is eab_key_file too, only one can be")
	case a.EABKeyEnv != "" && !isVariable(a.EABKeyEnv):
		// It may be the secret itself, so it isn't repeated.
		v.add(at+".eab_key_env", "it isn't the name of an environment variable; the secret itself doesn't belong here")
	}
}

func (v *validator) rollout(at string, r *Rollout) {
	oneOf(v, at+".start", r.Start, RolloutAutomatic, RolloutManual)
	v.span(at+".timeout", r.Timeout, time.Second, 24*time.Hour)
	v.span(at+".settle", r.Settle, 100*time.Millisecond, time.Hour)
	if r.Prove > 0 {
		v.span(at+".prove", r.Prove, time.Second, 24*time.Hour)
	}
	if r.Patience > 0 {
		v.span(at+".patience", r.Patience, time.Second, 31*24*time.Hour)
	}
	for name, command := range map[string][]string{"set": r.Set, "read": r.Read} {
		if len(command) > 0 && !filepath.IsAbs(command[0]) {
			v.add(at+"."+name, "%q is not the full path of a program", command[0])
		}
	}
}
