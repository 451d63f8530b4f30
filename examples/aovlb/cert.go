package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/sstp"
	"github.com/aovlb/aovlb/sstp/pfx"
)

var certCommand = command{
	name: "cert", usage: "convert|check|hash FILE...",
	short: "read any certificate file: make PEM of it, say what is wrong, write the gateways' hash", run: runCert,
}

func runCert(ctx context.Context, env *environment, args []string) error {
	if len(args) == 0 {
		return &usageError{"say what to do: convert, check or hash"}
	}
	switch args[0] {
	case "convert":
		return runCertConvert(env, args[1:])
	case "check":
		return runCertCheck(ctx, env, args[1:])
	case "hash":
		return runCertHash(env, args[1:])
	case "-h", "-help", "--help":
		fmt.Fprintln(env.stdout, "aovlb cert convert, aovlb cert check and aovlb cert hash each have --help.")
		return flag.ErrHelp
	}
	return &usageError{fmt.Sprintf("it can't %q, it can convert, check and hash", args[0])}
}

// certFiles are files of certificates, and what opens those that need a password.
type certFiles struct{ password plugins.Secret }

func (c *certFiles) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.password.File, "password-file", "", "`file` with the password of a PFX")
	fs.StringVar(&c.password.Env, "password-env", "", "environment `variable` with the password of a PFX")
}

// read reads files of any format, and puts the certificate together.
func (c *certFiles) read(names []string) (*sstp.Certificate, error) {
	var bundles []*sstp.Bundle
	for _, name := range names {
		b, err := c.readOne(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		bundles = append(bundles, b)
	}
	return sstp.NewCertificate(bundles...)
}

func (c *certFiles) readOne(name string) (*sstp.Bundle, error) {
	f, err := os.Open(name)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // the name is said by the caller
		}
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, sstp.MaxBundle+1))
	if err != nil {
		return nil, err
	}
	u, err := sstp.ParseBundle(b)
	if !errors.Is(err, sstp.ErrPFX) {
		return u, err
	}
	var password []byte
	if !c.password.IsZero() {
		if password, err = c.password.Read(); err != nil {
			return nil, err
		}
	}
	u, err = pfx.Parse(b, string(password))
	if errors.Is(err, pfx.ErrPassword) && c.password.IsZero() {
		return nil, errors.New("it is a PFX with a password: give --password-file or --password-env")
	}
	return u, err
}

func runCertConvert(env *environment, args []string) error {
	fs := flag.NewFlagSet("cert convert", flag.ContinueOnError)
	var files certFiles
	files.flags(fs)
	out := fs.String("out", "", "`file` for the certificate and its chain, as PEM; empty prints them")
	keyOut := fs.String("key-out", "", "`file` for the private key, as PEM, that only you can read")
	force := fs.Bool("force", false, "replace files that are there")
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	c, err := files.read(args)
	if err != nil {
		return err
	}
	for _, m := range c.Mended {
		fmt.Fprintf(env.stderr, "mended: %s\n", m)
	}
	if err := mayWrite(*force, *out, *keyOut); err != nil {
		return err
	}
	if *keyOut != "" {
		key, err := c.KeyPEM()
		if err != nil {
			return err
		}
		if err := writeNew(*keyOut, key, 0o600, *force); err != nil {
			return err
		}
	}
	if *out == "" {
		_, err := env.stdout.Write(c.ChainPEM())
		return err
	}
	if err := writeNew(*out, c.ChainPEM(), 0o644, *force); err != nil {
		return err
	}
	fmt.Fprintf(env.stdout, "%s: the certificate for %s and %d of its chain\n", *out, strings.Join(certNames(c.Leaf), ", "), len(c.Chain))
	if *keyOut != "" {
		fmt.Fprintf(env.stdout, "%s: its private key\n", *keyOut)
	}
	return nil
}

// mayWrite refuses before anything is written what would be refused halfway.
func mayWrite(force bool, certOut, keyOut string) error {
	if certOut != "" && keyOut != "" && filepath.Clean(certOut) == filepath.Clean(keyOut) {
		return &usageError{"--out and --key-out name one file: a private key gets one of its own"}
	}
	for _, name := range []string{certOut, keyOut} {
		if name == "" {
			continue
		}
		if _, err := os.Lstat(name); err == nil && !force {
			return fmt.Errorf("%s is there already: give --force to replace it", name)
		}
	}
	return nil
}

// writeNew writes a file, whole or not at all, and not over another unless told.
func writeNew(name string, b []byte, mode os.FileMode, force bool) error {
	if _, err := os.Lstat(name); err == nil && !force {
		return fmt.Errorf("%s is there already: give --force to replace it", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".aovlb-*")
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err // its name is made up
		}
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // of no avail once it is renamed
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return os.Rename(f.Name(), name)
}

// checkedCert is what cert check --json prints.
type checkedCert struct {
	Names    []string                  `json:"names"`
	Issuer   string                    `json:"issuer"`
	NotAfter time.Time                 `json:"not_after"`
	SHA256   sstp.Fingerprint          `json:"sha256"`
	SHA1     sstp.FingerprintSHA1      `json:"sha1"`
	HasKey   bool                      `json:"has_key"`
	Findings []sstp.CertificateFinding `json:"findings"`
}

func runCertCheck(ctx context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("cert check", flag.ContinueOnError)
	var files certFiles
	files.flags(fs)
	var rules sstp.CertificateRules
	fs.StringVar(&rules.Name, "name", "", "the `host` that clients dial")
	ca := fs.String("ca", "", "`file` with the roots that clients trust, instead of this system's")
	crl := fs.Bool("crl", false, "fetch the revocation lists, as clients do")
	asJSON := fs.Bool("json", false, "print JSON")
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	c, err := files.read(args)
	if err != nil {
		return err
	}
	if *ca != "" {
		if rules.Roots, err = files.roots(*ca); err != nil {
			return err
		}
	}
	found := c.Check(rules)
	if *crl {
		found = append(found, c.CheckCRL(ctx, nil)...)
	}
	if *asJSON {
		if found == nil {
			found = []sstp.CertificateFinding{}
		}
		err = printJSON(env.stdout, checkedCert{
			Names: certNames(c.Leaf), Issuer: c.Leaf.Issuer.String(), NotAfter: c.Leaf.NotAfter,
			SHA256: c.SHA256(), SHA1: c.SHA1(), HasKey: c.Key != nil, Findings: found,
		})
	} else {
		printCert(env.stdout, c)
		printCertFindings(env.stdout, found)
	}
	if err == nil && fatal(found) {
		err = errSilent
	}
	return err
}

// roots reads CAs from a file of any format, which must hold one.
func (c *certFiles) roots(name string) (*x509.CertPool, error) {
	u, err := c.readOne(name)
	if err == nil && len(u.Certificates) == 0 {
		err = errors.New("it holds no certificate")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	pool := x509.NewCertPool()
	for _, x := range u.Certificates {
		pool.AddCert(x)
	}
	return pool, nil
}

func fatal(found []sstp.CertificateFinding) bool {
	for _, f := range found {
		if f.Gravity == sstp.GravityFatal {
			return true
		}
	}
	return false
}

func printCert(w io.Writer, c *sstp.Certificate) {
	fmt.Fprintf(w, "certificate for %s\n", printable(strings.Join(certNames(c.Leaf), ", ")))
	line := func(name, value string) { fmt.Fprintf(w, "  %-12s %s\n", name, value) }
	line("issuer", printable(cmp.Or(c.Leaf.Issuer.CommonName, c.Leaf.Issuer.String())))
	line("valid", c.Leaf.NotBefore.UTC().Format(time.DateOnly)+" to "+c.Leaf.NotAfter.UTC().Format(time.DateOnly))
	line("key", c.Leaf.PublicKeyAlgorithm.String())
	line("chain", fmt.Sprint(len(c.Chain))+" more")
	line("SHA-256", c.SHA256().String())
	line("SHA-1", c.SHA1().String())
}

func printCertFindings(w io.Writer, found []sstp.CertificateFinding) {
	if len(found) == 0 {
		fmt.Fprintln(w, "nothing is wrong with it")
	}
	for _, f := range found {
		fmt.Fprintf(w, "%s: %s: %s\n", f.Gravity, f.Rule, printableLine(f.Reason))
		if f.Fix != "" {
			fmt.Fprintf(w, "  → %s\n", f.Fix)
		}
	}
}

func certNames(x *x509.Certificate) []string {
	names := x.DNSNames
	for _, ip := range x.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		names = []string{x.Subject.String()}
	}
	return names
}

// several is a flag that may be given more than once.
type several []string

func (s *several) String() string { return strings.Join(*s, ", ") }

// Set adds one.
func (s *several) Set(v string) error {
	if v == "" {
		return errors.New("it is empty")
	}
	*s = append(*s, v)
	return nil
}

func runCertHash(env *environment, args []string) error {
	fs := flag.NewFlagSet("cert hash", flag.ContinueOnError)
	var files certFiles
	files.flags(fs)
	var h sstp.HashChange
	reg := fs.Bool("reg", false, "write a .reg file for regedit")
	ps := fs.Bool("powershell", false, "write a PowerShell script that sets the hash, verifies it, and can restart the service")
	old := fs.Bool("sha1", false, "set the SHA-1 hash too, for clients of before Windows 8")
	fs.BoolVar(&h.PlainHTTP, "plain-http", false, "TLS ends at the balancer: set UseHttps to 0 as well")
	fs.BoolVar(&h.Restart, "restart", false, "powershell: restart RemoteAccess, which ends all tunnels of the gateway")
	fs.Var((*several)(&h.Gateways), "gateway", "powershell: a `computer` to change by remoting; may be given more than once")
	out := fs.String("out", "", "`file` to write; empty prints it")
	args, err := parse(env, fs, args, -1)
	if err != nil {
		return err
	}
	if *reg && *ps {
		return &usageError{"--reg and --powershell can't be had together"}
	}
	if !*ps && (h.Restart || len(h.Gateways) > 0) {
		return &usageError{"--restart and --gateway need --powershell"}
	}
	sha1, err := hashOf(&files, args, &h)
	if err != nil {
		return err
	}
	if *old {
		if sha1.IsZero() {
			return &usageError{"--sha1 needs the certificate, not only its SHA-256 hash"}
		}
		h.SHA1 = sha1
	}
	var b []byte
	switch {
	case *reg:
		b = h.Reg()
	case *ps:
		b = []byte(h.PowerShell())
	default:
		var text bytes.Buffer
		fmt.Fprintf(&text, "SHA256CertificateHash %v\n", h.SHA256)
		if !sha1.IsZero() {
			fmt.Fprintf(&text, "SHA1CertificateHash   %v\n", sha1)
		}
		b = text.Bytes()
	}
	if *out != "" {
		return writeNew(*out, b, 0o644, true)
	}
	_, err = env.stdout.Write(b)
	return err
}

// hashOf takes a hash, or files of which it reckons it.
func hashOf(files *certFiles, args []string, h *sstp.HashChange) (sstp.FingerprintSHA1, error) {
	if f, err := sstp.ParseFingerprint(strings.Join(args, "")); err == nil {
		h.SHA256 = f
		return sstp.FingerprintSHA1{}, nil
	}
	c, err := files.read(args)
	if err != nil {
		return sstp.FingerprintSHA1{}, err
	}
	h.SHA256 = c.SHA256()
	return c.SHA1(), nil
}
