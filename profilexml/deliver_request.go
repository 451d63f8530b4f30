package profilexml

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What certificates are for.
const (
	serverAuthOID      = "1.3.6.1.5.5.7.3.1"
	ikeIntermediateOID = "1.3.6.1.5.5.8.2.2"
	smartCardLogonOID  = "1.3.6.1.4.1.311.20.2.2"
	kdcAuthOID         = "1.3.6.1.5.2.3.5" // RFC 4556 §3.2.4
)

// A Holder says whose a certificate is.
type Holder uint8

const (
	// Gateway is a VPN server, which IKEv2 and SSTP show clients.
	Gateway Holder = iota
	// Device is a computer, for a device tunnel.
	Device
	// User is a person, for EAP-TLS and PEAP-TLS.
	User
	// DomainController is one that users with certificates log on to.
	DomainController
)

var holders = [...]struct {
	name   string
	usages []string
}{
	Gateway:          {"gateway", []string{serverAuthOID, ikeIntermediateOID}},
	Device:           {"device", []string{clientAuthOID}},
	User:             {"user", []string{clientAuthOID}},
	DomainController: {"controller", []string{clientAuthOID, serverAuthOID, smartCardLogonOID, kdcAuthOID}},
}

// String returns gateway, device, user or controller.
func (h Holder) String() string {
	if int(h) < len(holders) {
		return holders[h].name
	}
	return fmt.Sprintf("holder %d", h)
}

// ParseHolder returns what String returns a name for.
func ParseHolder(s string) (Holder, error) {
	var names []string
	for i := range holders {
		if holders[i].name == s {
			return Holder(i), nil //nolint:gosec // there are four
		}
		names = append(names, holders[i].name)
	}
	return 0, fmt.Errorf("%q has no certificate here: it can be %s", s, strings.Join(names, ", "))
}

const (
	leastKeyBits   = 2048
	mostKeyBits    = 8192
	maxCommonName  = 64 // X.520, ub-common-name
	maxCertNames   = 64
	softwareKeys   = "Microsoft Software Key Storage Provider"
	tpmKeys        = "Microsoft Platform Crypto Provider"
	requestVersion = "[Version]\nSignature = \"$Windows NT$\"\n\n[NewRequest]\n"
)

// A CertificateRequest is what certreq -new needs to ask for a certificate. Those
// of NPS servers, which share a name, are made by the package radius/npscert.
type CertificateRequest struct {
	// For is whose it is, which decides what it may be used for.
	For Holder
	// Names are what it is for: of a gateway the public names that profiles have
	// in Servers, of a device or a domain controller its DNS names, of a user the
	// user principal name, which must be one. The first is the subject too, if it
	// isn't longer than a subject can be.
	Names []string
	// Usages are object identifiers that it may be used for besides, such as one
	// of the organization's own that profiles filter by.
	Usages []string
	// Template is the name of the template at AD CS; empty leaves it out, for
	// other authorities.
	Template string
	// Bits is the length of the RSA key, 2048 to 8192; 0 means 2048.
	Bits int
	// TPM has the key made in the computer's TPM, which it never leaves.
	TPM bool
}

func (r *CertificateRequest) check() error {
	var errs []error
	if int(r.For) >= len(holders) {
		errs = append(errs, fmt.Errorf("%v has no certificate", r.For))
	}
	switch {
	case len(r.Names) == 0:
		errs = append(errs, errors.New("a certificate needs a name"))
	case len(r.Names) > maxCertNames:
		errs = append(errs, fmt.Errorf("a certificate of %d names: here it can have %d", len(r.Names), maxCertNames))
	case r.For == User && len(r.Names) > 1:
		errs = append(errs, errors.New("the certificate of a user has one name"))
	}
	for _, n := range r.Names {
		host := n
		if r.For == User {
			user, domain, _ := strings.Cut(n, "@")
			if !isHost(strings.ReplaceAll(user, "_", "-")) {
				errs = append(errs, fmt.Errorf("%q is no user principal name, such as jo@corp.example.com", n))
				continue
			}
			host = domain
		}
		if !isDNSName(host) {
			errs = append(errs, fmt.Errorf("%q is no DNS name, which consists of letters, digits, hyphens and dots", n))
		}
	}
	for _, u := range r.Usages {
		if !isOID(u) {
			errs = append(errs, fmt.Errorf("%q is no object identifier", u))
		}
	}
	if !isTemplate(r.Template) {
		errs = append(errs, fmt.Errorf("%q is no name of a template: letters, digits, hyphens and underscores, not what is displayed", r.Template))
	}
	if b := r.bits(); b < leastKeyBits || b > mostKeyBits {
		errs = append(errs, fmt.Errorf("a key of %d bits: it can have %d to %d", b, leastKeyBits, mostKeyBits))
	}
	return errors.Join(errs...)
}

func (r *CertificateRequest) bits() int { return cmp.Or(r.Bits, leastKeyBits) }

// isDNSName reports whether s is made of labels as hosts have them.
func isDNSName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || !isHost(label) {
			return false
		}
	}
	return len(s) <= 253
}

func isTemplate(s string) bool {
	return len(s) <= maxCommonName && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' && c != '_'
	})
}

// INF returns the file for certreq -new, with how to go on.
func (r *CertificateRequest) INF() (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	machine, who := "TRUE", "as administrator on the computer that it is for"
	if r.For == User {
		machine, who = "FALSE", "as the user"
	}
	provider := softwareKeys
	if r.TPM {
		provider = tpmKeys
	}
	file := r.For.String()
	var b strings.Builder
	fmt.Fprintf(&b, "; Run these %s:\n;   certreq -new %s.inf %s.req\n;   certreq -submit %s.req %s.cer\n;   certreq -accept %s.cer\n", who, file, file, file, file, file)
	b.WriteString(requestVersion)
	if len(r.Names[0]) <= maxCommonName {
		fmt.Fprintf(&b, "Subject = \"CN=%s\"\n", r.Names[0])
	}
	fmt.Fprintf(&b, "KeyAlgorithm = RSA\nKeyLength = %d\nHashAlgorithm = SHA256\nProviderName = \"%s\"\n", r.bits(), provider)
	fmt.Fprintf(&b, "KeyUsage = 0xA0\nMachineKeySet = %s\nExportable = FALSE\nRequestType = PKCS10\nSilent = TRUE\n\n[EnhancedKeyUsageExtension]\n", machine)
	usages := slices.Clone(holders[r.For].usages)
	for _, u := range r.Usages {
		if !slices.Contains(usages, u) {
			usages = append(usages, u)
		}
	}
	for _, u := range usages {
		b.WriteString("OID = " + u + "\n")
	}
	kind, end := "dns", "&"
	if r.For == User {
		kind = "upn"
	}
	b.WriteString("\n[Extensions]\n2.5.29.17 = \"{text}\"\n")
	for i, n := range r.Names {
		if i == len(r.Names)-1 {
			end = ""
		}
		fmt.Fprintf(&b, "_continue_ = \"%s=%s%s\"\n", kind, n, end)
	}
	if r.Template != "" {
		fmt.Fprintf(&b, "\n[RequestAttributes]\nCertificateTemplate = \"%s\"\n", r.Template)
	}
	return strings.ReplaceAll(b.String(), "\n", "\r\n"), nil
}
