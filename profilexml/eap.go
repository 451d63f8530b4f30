package profilexml

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// An EAPMethod is a way in which a user is known.
type EAPMethod uint8

const (
	// PEAPTLS is a certificate within protected EAP: what NPS is set up for.
	PEAPTLS EAPMethod = iota
	// EAPTLS is a certificate alone: what other RADIUS servers than NPS want.
	EAPTLS
	// PEAPMSCHAPv2 is a password within protected EAP.
	PEAPMSCHAPv2
)

var eapMethodNames = [...]string{"PEAP-TLS", "EAP-TLS", "PEAP-MSCHAPv2"}

func (m EAPMethod) String() string {
	if int(m) < len(eapMethodNames) {
		return eapMethodNames[m]
	}
	return fmt.Sprintf("EAPMethod(%d)", uint8(m))
}

// ParseEAPMethod reads a method as String writes it, in any case.
func ParseEAPMethod(s string) (EAPMethod, error) {
	i := slices.IndexFunc(eapMethodNames[:], func(n string) bool { return strings.EqualFold(n, s) })
	if i < 0 {
		return 0, fmt.Errorf("%q is no method of EAP here: it can be %s", s, strings.Join(eapMethodNames[:], ", "))
	}
	return EAPMethod(i), nil
}

// The numbers of EAP methods.
const (
	eapTypeTLS      = "13"
	eapTypePEAP     = "25"
	eapTypeMSCHAPv2 = "26"
)

// A Thumbprint is the SHA-1 hash of a certificate.
type Thumbprint [20]byte

// ParseThumbprint reads 40 hexadecimal digits in any case, with spaces or colons
// anywhere.
func ParseThumbprint(s string) (Thumbprint, error) {
	digits := strings.Map(func(r rune) rune {
		if r == ' ' || r == ':' || r == '\t' || r == '\u200e' { // the last is what the certificate dialog puts before it
			return -1
		}
		return r
	}, strings.TrimSpace(s))
	var t Thumbprint
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) != len(t) {
		return t, fmt.Errorf("%q is no SHA-1 thumbprint: that has 40 hexadecimal digits", s)
	}
	copy(t[:], b)
	return t, nil
}

// String returns the thumbprint as Windows writes it: in small letters, with a
// space after each byte, after the last too.
func (t Thumbprint) String() string {
	var s strings.Builder
	for _, b := range t {
		fmt.Fprintf(&s, "%02x ", b)
	}
	return s.String()
}

// An EKU is an extended key usage that certificates may be chosen by.
type EKU struct {
	// Name is for people, and what refers to the OID within the profile.
	Name string
	// OID is the object identifier, such as 1.3.6.1.5.5.7.3.2.
	OID string
}

// ConditionalAccessEKU is what marks the certificates of Entra conditional
// access.
func ConditionalAccessEKU() EKU { return EKU{"AAD Conditional Access", conditionalAccessOID} }

const (
	conditionalAccessOID = "1.3.6.1.4.1.311.87"
	clientAuthOID        = "1.3.6.1.5.5.7.3.2" // RFC 5280 §4.2.1.12
)

// A CertificateFilter says which of the user's certificates may be used. The
// zero filter takes any.
type CertificateFilter struct {
	// Issuers are the thumbprints of the authorities that may have issued it.
	Issuers []Thumbprint
	// EKUs are usages that it must have, all of them.
	EKUs []EKU
	// AllPurpose also takes certificates without any usage.
	AllPurpose bool
}

func (f *CertificateFilter) empty() bool {
	return len(f.Issuers) == 0 && len(f.EKUs) == 0 && !f.AllPurpose
}

// EAP are the settings of EAP. The zero value with ServerNames and TrustedRoots
// is the safe one: the server is checked, and the user is never asked whether to
// trust one.
type EAP struct {
	// Method says how the user is known.
	Method EAPMethod
	// ServerNames are the names in the certificates of the RADIUS servers. A
	// name may be a regular expression.
	ServerNames []string
	// TrustedRoots are the root authorities of these certificates. Windows
	// wants the root here, not the authority that issues.
	TrustedRoots []Thumbprint
	// Certificate says which of the user's certificates may be used.
	Certificate CertificateFilter
	// SmartCard looks for the certificate on a smart card.
	SmartCard bool
	// DifferentUsername asks for another name than the certificate's.
	DifferentUsername bool
	// UseWinlogon uses the name and password of the logon, with PEAPMSCHAPv2.
	UseWinlogon bool
	// NoFastReconnect makes every PEAP a full one.
	NoFastReconnect bool
	// NoCryptoBinding doesn't insist that both ends of PEAP are the same.
	NoCryptoBinding bool
	// PromptUser asks the user about servers that can't be checked.
	PromptUser bool
	// SkipServerValidation doesn't check the server. Anybody can be it then.
	SkipServerValidation bool
	// Raw, if it isn't empty, is EapHostConfig as XML, and used in place of
	// all else. [Document.Profile] sets it if the rest can't say it all.
	Raw string
}

// Validate says what is missing, each fault on a line.
func (e *EAP) Validate() error {
	if e.Raw != "" {
		return nil
	}
	var errs []error
	if int(e.Method) >= len(eapMethodNames) {
		errs = append(errs, fmt.Errorf("%v is unknown", e.Method))
	}
	for _, n := range e.ServerNames {
		if strings.TrimSpace(n) == "" || strings.Contains(n, ";") {
			errs = append(errs, fmt.Errorf("the server name %q is empty or several: list them one by one", n))
		}
	}
	for _, k := range e.Certificate.EKUs {
		if k.Name == "" || !isOID(k.OID) {
			errs = append(errs, fmt.Errorf("the usage %q needs a name and an object identifier, such as 1.3.6.1.5.5.7.3.2", k.Name+" "+k.OID))
		}
	}
	if !e.SkipServerValidation && len(e.ServerNames) == 0 {
		errs = append(errs, errors.New("EAP needs the names of the RADIUS servers, or any server with a certificate of the same root is trusted"))
	}
	if !e.SkipServerValidation && len(e.TrustedRoots) == 0 {
		errs = append(errs, errors.New("EAP needs the thumbprint of the root certificate of the RADIUS servers"))
	}
	return errors.Join(errs...)
}

func isOID(s string) bool {
	parts := strings.Split(s, ".")
	for _, p := range parts {
		if p == "" || strings.Trim(p, "0123456789") != "" || len(p) > 1 && p[0] == '0' {
			return false
		}
	}
	return len(parts) > 1
}

// String names the method, the servers and how the certificate is chosen.
func (e *EAP) String() string {
	return fmt.Sprintf("%v, server %s", e.Method, strings.Join(e.ServerNames, " or "))
}

// markup writes XML.
type markup struct{ strings.Builder }

// open writes a start tag, with a namespace if space isn't empty.
func (m *markup) open(name, space string) {
	m.WriteString("<" + name)
	if space != "" {
		m.WriteString(` xmlns="` + space + `"`)
	}
	m.WriteString(">")
}

func (m *markup) end(name string) { m.WriteString("</" + name + ">") }

// leaf writes an element with a text.
func (m *markup) leaf(name, space, text string) {
	m.open(name, space)
	m.WriteString(escape(text))
	m.end(name)
}

func (m *markup) flag(name, space string, v bool) { m.leaf(name, space, fmt.Sprint(v)) }

// write writes EapHostConfig.
func (e *EAP) write(m *markup) {
	if e.Raw != "" {
		m.WriteString(e.Raw)
		return
	}
	typ := eapTypePEAP
	if e.Method == EAPTLS {
		typ = eapTypeTLS
	}
	m.open("EapHostConfig", eapHostSpace)
	m.open("EapMethod", "")
	m.leaf("Type", eapCommonSpace, typ)
	for _, name := range []string{"VendorId", "VendorType", "AuthorId"} {
		m.leaf(name, eapCommonSpace, "0")
	}
	m.end("EapMethod")
	m.open("Config", eapHostSpace)
	if e.Method == EAPTLS {
		e.writeTLS(m)
	} else {
		e.writePEAP(m)
	}
	m.end("Config")
	m.end("EapHostConfig")
}

func (e *EAP) writePEAP(m *markup) {
	m.open("Eap", eapBaseSpace)
	m.leaf("Type", "", eapTypePEAP)
	m.open("EapType", eapPEAPSpace)
	e.writeValidation(m)
	m.flag("FastReconnect", "", !e.NoFastReconnect)
	m.flag("InnerEapOptional", "", false)
	if e.Method == PEAPMSCHAPv2 {
		m.open("Eap", eapBaseSpace)
		m.leaf("Type", "", eapTypeMSCHAPv2)
		m.open("EapType", eapCHAPSpace)
		m.flag("UseWinLogonCredentials", "", e.UseWinlogon)
		m.end("EapType")
		m.end("Eap")
	} else {
		e.writeTLS(m)
	}
	m.flag("EnableQuarantineChecks", "", false)
	m.flag("RequireCryptoBinding", "", !e.NoCryptoBinding)
	m.open("PeapExtensions", "")
	m.flag("PerformServerValidation", eapPEAP2Space, !e.SkipServerValidation)
	m.flag("AcceptServerName", eapPEAP2Space, len(e.ServerNames) > 0)
	m.end("PeapExtensions")
	m.end("EapType")
	m.end("Eap")
}

func (e *EAP) writeTLS(m *markup) {
	m.open("Eap", eapBaseSpace)
	m.leaf("Type", "", eapTypeTLS)
	m.open("EapType", eapTLSSpace)
	m.open("CredentialsSource", "")
	if e.SmartCard {
		m.WriteString("<SmartCard/>")
	} else {
		m.open("CertificateStore", "")
		m.flag("SimpleCertSelection", "", true)
		m.end("CertificateStore")
	}
	m.end("CredentialsSource")
	e.writeValidation(m)
	m.flag("DifferentUsername", "", e.DifferentUsername)
	m.flag("PerformServerValidation", eapTLS2Space, !e.SkipServerValidation)
	m.flag("AcceptServerName", eapTLS2Space, len(e.ServerNames) > 0)
	if !e.Certificate.empty() {
		m.open("TLSExtensions", eapTLS2Space)
		e.Certificate.write(m)
		m.end("TLSExtensions")
	}
	m.end("EapType")
	m.end("Eap")
}

// writeValidation writes what is the same in PEAP and TLS.
func (e *EAP) writeValidation(m *markup) {
	m.open("ServerValidation", "")
	m.flag("DisableUserPromptForServerValidation", "", !e.PromptUser)
	m.leaf("ServerNames", "", strings.Join(e.ServerNames, ";"))
	for _, t := range e.TrustedRoots {
		m.leaf("TrustedRootCA", "", t.String())
	}
	m.end("ServerValidation")
}

func (f *CertificateFilter) write(m *markup) {
	m.open("FilteringInfo", eapTLS3Space)
	if len(f.Issuers) > 0 {
		m.WriteString(`<CAHashList Enabled="true">`)
		for _, t := range f.Issuers {
			m.leaf("IssuerHash", "", t.String())
		}
		m.end("CAHashList")
	}
	if len(f.EKUs) > 0 {
		m.open("EKUMapping", "")
		for _, k := range f.EKUs {
			m.open("EKUMap", "")
			m.leaf("EKUName", "", k.Name)
			m.leaf("EKUOID", "", k.OID)
			m.end("EKUMap")
		}
		m.end("EKUMapping")
		m.WriteString(`<ClientAuthEKUList Enabled="true">`)
		for _, k := range f.EKUs {
			m.open("EKUMapInList", "")
			m.leaf("EKUName", "", k.Name)
			m.end("EKUMapInList")
		}
		m.end("ClientAuthEKUList")
	}
	if f.AllPurpose {
		m.flag("AllPurposeEnabled", "", true)
	}
	m.end("FilteringInfo")
}

// eapNodes are the places in EapHostConfig that matter. Any may be nil.
type eapNodes struct {
	host         *Node // EapHostConfig
	outer        *Node // Eap of the method
	outerType    *Node // its EapType
	inner        *Node // Eap within PEAP
	tls          *Node // EapType of TLS, outer or inner
	peap         *Node // EapType of PEAP
	method       EAPMethod
	methodKnown  bool
	outerNumber  string // Type of the outer Eap
	innerNumber  string // Type of the inner one
	methodNumber string // Type in EapMethod
}

// findEAP finds its way in EapHostConfig.
func (d *Document) findEAP(host *Node) eapNodes {
	n := eapNodes{host: host, outer: host.at("Config/Eap")}
	n.methodNumber = d.text(host.at("EapMethod/Type"))
	n.outerNumber = d.text(n.outer.child("Type"))
	n.outerType = n.outer.child("EapType")
	switch n.outerNumber {
	case eapTypeTLS:
		n.tls, n.method, n.methodKnown = n.outerType, EAPTLS, true
	case eapTypePEAP:
		n.peap = n.outerType
		n.inner = n.outerType.child("Eap")
		switch n.innerNumber = d.text(n.inner.child("Type")); n.innerNumber {
		case eapTypeTLS:
			n.tls, n.method, n.methodKnown = n.inner.child("EapType"), PEAPTLS, true
		case eapTypeMSCHAPv2:
			n.method, n.methodKnown = PEAPMSCHAPv2, true
		}
	}
	return n
}

// eap reads the settings from EapHostConfig.
func (d *Document) eap(host *Node) *EAP {
	n := d.findEAP(host)
	e := &EAP{Method: n.method}
	outer := n.outerType
	isTrue := func(n *Node) bool { return strings.EqualFold(d.text(n), "true") }
	validation := outer.child("ServerValidation")
	for name := range strings.SplitSeq(d.text(validation.child("ServerNames")), ";") {
		if name = strings.TrimSpace(name); name != "" {
			e.ServerNames = append(e.ServerNames, name)
		}
	}
	e.TrustedRoots = d.thumbprints(validation.all("TrustedRootCA"))
	e.PromptUser = !isTrue(validation.child("DisableUserPromptForServerValidation"))
	if n.peap != nil {
		e.NoFastReconnect = !isTrue(n.peap.child("FastReconnect"))
		e.NoCryptoBinding = !isTrue(n.peap.child("RequireCryptoBinding"))
		e.SkipServerValidation = !isTrue(n.peap.at("PeapExtensions/PerformServerValidation"))
		e.UseWinlogon = isTrue(n.inner.at("EapType/UseWinLogonCredentials"))
	} else {
		e.SkipServerValidation = !isTrue(n.tls.child("PerformServerValidation"))
	}
	if n.tls != nil {
		e.SmartCard = n.tls.at("CredentialsSource/SmartCard") != nil
		e.DifferentUsername = isTrue(n.tls.child("DifferentUsername"))
		e.Certificate = d.certificateFilter(n.tls.at("TLSExtensions/FilteringInfo"))
	}
	if !n.methodKnown || !d.saysTheSame(host, e) {
		e.Raw = d.selfContained(host)
	}
	return e
}

func (d *Document) thumbprints(nodes []*Node) []Thumbprint {
	var list []Thumbprint
	for _, n := range nodes {
		if t, err := ParseThumbprint(d.Value(n)); err == nil {
			list = append(list, t)
		}
	}
	return list
}

func (d *Document) certificateFilter(info *Node) CertificateFilter {
	var f CertificateFilter
	list := info.child("CAHashList")
	if a := attrOf(list, "Enabled"); strings.EqualFold(a, "true") {
		f.Issuers = d.thumbprints(list.all("IssuerHash"))
	}
	oids := map[string]string{}
	for _, m := range info.child("EKUMapping").all("EKUMap") {
		oids[d.text(m.child("EKUName"))] = d.text(m.child("EKUOID"))
	}
	for _, m := range info.child("ClientAuthEKUList").all("EKUMapInList") {
		name := d.text(m.child("EKUName"))
		f.EKUs = append(f.EKUs, EKU{name, oids[name]})
	}
	f.AllPurpose = strings.EqualFold(d.text(info.child("AllPurposeEnabled")), "true")
	return f
}

func attrOf(n *Node, name string) string {
	if n == nil {
		return ""
	}
	if a := n.Attr(name); a != nil {
		return a.Value
	}
	return ""
}

// saysTheSame reports whether e, written, says what host does.
func (d *Document) saysTheSame(host *Node, e *EAP) bool {
	var m markup
	e.write(&m)
	other, err := ParseString(m.String())
	if err != nil {
		return false
	}
	return slices.Equal(d.eapFacts(host), other.eapFacts(other.Root))
}

// eapFacts lists all that host says, without white space and comments.
func (d *Document) eapFacts(host *Node) []string {
	var list []string
	var walk func(n *Node, path string)
	walk = func(n *Node, path string) {
		path += "/" + n.Space + "|" + n.Local
		for _, a := range n.Attrs {
			if !a.declares() {
				list = append(list, path+"@"+a.Name()+"="+strings.ToLower(a.Value))
			}
		}
		if !n.hasElements() {
			v := d.text(n)
			if t, err := ParseThumbprint(v); err == nil {
				v = t.String()
			}
			if strings.EqualFold(v, "true") || strings.EqualFold(v, "false") {
				v = strings.ToLower(v)
			}
			list = append(list, path+"="+v)
			return
		}
		for _, c := range n.Children {
			if c.Kind == ElementNode {
				walk(c, path)
			}
		}
	}
	walk(host, "")
	return list
}

// selfContained returns the XML of n so that it can stand alone: with the
// namespaces it got from outside.
func (d *Document) selfContained(n *Node) string {
	text := d.Text[n.Start:n.End]
	declared := map[string]bool{}
	for _, a := range n.Attrs {
		declared[a.Name()] = a.declares()
	}
	var outside strings.Builder
	for p := n.Parent; p != nil; p = p.Parent {
		for _, a := range p.Attrs {
			if a.declares() && !declared[a.Name()] {
				declared[a.Name()] = true
				fmt.Fprintf(&outside, ` %s="%s"`, a.Name(), escape(a.Value))
			}
		}
	}
	at := 1 + len(n.Name())
	return text[:at] + outside.String() + text[at:]
}
