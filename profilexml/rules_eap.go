package profilexml

import (
	"slices"
	"strings"
)

// eapServerRules are about what EAP checks: the server, and the certificate.
func eapServerRules() []Rule {
	return []Rule{
		{
			ID: "AOV220", Severity: Warning, Title: "The RADIUS server's name isn't given",
			Why:    "Any server with a certificate of a trusted root can pose as the RADIUS server: with a public root, that is anybody.",
			Remedy: "Put the names of the NPS servers into ServerNames, in PEAP and in the TLS within it.",
			run:    checkServerNamesMissing,
		},
		{
			ID: "AOV221", Severity: Error, Title: "ServerNames isn't a list with semicolons", Fixable: true,
			Why:    "Names are separated by semicolons. Commas and quotation marks become part of a name that no server has.",
			Remedy: "Write nps1.example.com;nps2.example.com.",
			run:    checkServerNamesList,
		},
		{
			ID: "AOV222", Severity: Warning, Title: "PEAP and the TLS within it name different servers",
			Why:    "Both are ended by the same server, so that one of the two lists is wrong; a server that only one knows is refused.",
			Remedy: "Use the same names and roots in both.",
			run:    checkServerNamesDiffer,
		},
		{
			ID: "AOV223", Severity: Warning, Title: "The server's name isn't checked",
			Why:    "ServerNames is used only where AcceptServerName is true.",
			Remedy: "Set AcceptServerName to true.",
			run:    checkAcceptServerName,
		},
		{
			ID: "AOV224", Severity: Warning, Title: "The server isn't checked",
			Why:    "With PerformServerValidation false, anybody can pose as the RADIUS server.",
			Remedy: "Set PerformServerValidation to true, with ServerNames and TrustedRootCA.",
			run:    checkPerformValidation,
		},
		{
			ID: "AOV225", Severity: Warning, Title: "No root is given for the server's certificate",
			Why:    "Every root on the computer is trusted then, public ones too; and the user is asked unless that is turned off.",
			Remedy: "Put the SHA-1 thumbprint of the root authority into TrustedRootCA.",
			run:    checkRootMissing,
		},
		{
			ID: "AOV226", Severity: Error, Title: "A thumbprint isn't one",
			Why:    "A SHA-1 thumbprint has 40 hexadecimal digits. Windows takes no certificate to match anything else; hidden characters from the certificate dialog are a common cause.",
			Remedy: "Copy the thumbprint anew. The digits of SHA-256 are 64: they aren't meant here.",
			visit:  checkThumbprint,
		},
		{
			ID: "AOV227", Severity: Warning, Title: "A thumbprint is written otherwise than Windows does", Fixable: true,
			Why:    "Windows reads it back in small letters, with a space after each byte, after the last too. Intune on Windows 11 takes anything else for a difference.",
			Remedy: "Write it so.",
			visit:  checkThumbprintForm,
		},
		{
			ID: "AOV228", Severity: Warning, Title: "Users are asked whether to trust the server", Fixable: true,
			Why:    "An always-on connection asks at logon, and behind other windows. Users who are asked say yes to anything.",
			Remedy: "Set DisableUserPromptForServerValidation to true. It is set for you only where ServerNames and TrustedRootCA are there to decide by.",
			run:    checkPrompt,
		},
		{
			ID: "AOV229", Severity: Warning, Title: "PEAP isn't bound to what is in it",
			Why:    "Without RequireCryptoBinding somebody between client and server can relay the inner method.",
			Remedy: "Set RequireCryptoBinding to true: NPS does it.",
			run:    checkCryptoBinding,
		},
	}
}

// eapCertificateRules are about what the user is known by.
func eapCertificateRules() []Rule {
	return []Rule{
		{
			ID: "AOV230", Severity: Error, Title: "A certificate filter names a usage that isn't defined",
			Why:    "Lists of usages refer to names in EKUMapping. A name that isn't there matches no certificate, and the user is told that none was found.",
			Remedy: "Add the name with its object identifier to EKUMapping.",
			run:    checkEKUNames,
		},
		{
			ID: "AOV231", Severity: Info, Title: "Any of the user's certificates may be used",
			Why:    "Where a user has several certificates for client authentication, Windows may choose the wrong one, or ask.",
			Remedy: "Name the issuing authority in FilteringInfo/CAHashList, or a usage in ClientAuthEKUList.",
			run:    checkFilterMissing,
		},
		{
			ID: "AOV232", Severity: Error, Title: "An object identifier isn't one",
			Why:    "EKUOID and Eku hold numbers with dots, such as 1.3.6.1.5.5.7.3.2. Anything else matches no certificate.",
			Remedy: "Write the number of the usage.",
			visit:  checkOID,
		},
		{
			ID: "AOV233", Severity: Warning, Title: "Users are known by passwords",
			Why:    "Passwords can be guessed and phished, and NTLM hashes of MSCHAPv2 can be broken. Credential Guard blocks the use of the logon's password.",
			Remedy: "Use certificates: PEAP-TLS, or EAP-TLS.",
			run:    checkPasswords,
		},
		{
			ID: "AOV234", Severity: Warning, Title: "Conditional access can't choose its certificate",
			Why:    "With DeviceCompliance the certificate comes from Entra. A filter by issuers of one's own excludes it, and without the usage \"AAD Conditional Access\" another certificate may be used in its place, unchecked.",
			Remedy: "List the usage 1.3.6.1.4.1.311.87 in ClientAuthEKUList, and disable CAHashList.",
			run:    checkConditionalAccess,
		},
		{
			ID: "AOV235", Severity: Warning, Title: "Single sign-on of conditional access doesn't say which certificate",
			Why:    "Sso chooses the certificate for servers behind the VPN by usage and issuer. Without them, the short-lived one of Entra is used, which domain controllers don't take.",
			Remedy: "Set Eku to 1.3.6.1.5.5.7.3.2 and IssuerHash to the root of your own authority.",
			run:    checkSSO,
		},
		{
			ID: "AOV236", Severity: Warning, Title: "The method is one that this program doesn't know",
			Why:    "Always On VPN uses EAP-TLS (13), and PEAP (25) with TLS or MSCHAPv2 (26) in it. Other methods need something installed on each computer.",
			Remedy: "Make sure that every computer has the method.",
			run:    checkMethod,
		},
	}
}

// validations are ServerValidation of PEAP and of TLS, those that are there.
func (k *check) validations() []*Node {
	var list []*Node
	for _, n := range []*Node{k.eap.peap, k.eap.tls} {
		if v := n.child("ServerValidation"); v != nil {
			list = append(list, v)
		}
	}
	return list
}

func checkServerNamesMissing(k *check) {
	for _, v := range k.validations() {
		n := v.child("ServerNames")
		switch {
		case n == nil:
			k.report(v, nil, "<ServerValidation> of %s names no server", k.methodOf(v))
		case k.text(n) == "":
			k.report(n, nil, "<ServerNames> of %s is empty", k.methodOf(v))
		}
	}
	for _, n := range []*Node{k.eap.peap, k.eap.tls} {
		if n != nil && n.child("ServerValidation") == nil {
			k.report(n, nil, "there is no <ServerValidation> for %s", k.methodOf(n))
		}
	}
}

// methodOf names the method that an element is of.
func (k *check) methodOf(n *Node) string {
	if n.Space == eapPEAPSpace {
		return "PEAP"
	}
	return "TLS"
}

func checkServerNamesList(k *check) {
	for _, v := range k.validations() {
		n := v.child("ServerNames")
		text := k.text(n)
		if !strings.ContainsAny(text, `,"' `) || strings.ContainsAny(text, `\[]{}()*+?^$|`) {
			continue // a regular expression may have them all
		}
		names := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(`,;"' `, r) })
		var fix []Edit
		if len(names) > 0 && !slices.ContainsFunc(names, func(s string) bool { return !hostName(s) }) {
			fix = k.setValue(n, strings.Join(names, ";"))
		}
		k.reportValue(n, fix, "%.60q must be names with semicolons between them", text)
	}
}

func checkServerNamesDiffer(k *check) {
	if k.eap.peap == nil || k.eap.tls == nil {
		return
	}
	outer, inner := k.eap.peap.child("ServerValidation"), k.eap.tls.child("ServerValidation")
	if outer == nil || inner == nil {
		return
	}
	names := func(v *Node) []string {
		list := k.items(v.child("ServerNames"), ";")
		slices.Sort(list)
		return list
	}
	a, b := names(outer), names(inner)
	if len(a) > 0 && len(b) > 0 && !slices.EqualFunc(a, b, strings.EqualFold) {
		k.reportValue(inner.child("ServerNames"), nil, "TLS takes %s, and PEAP %s", strings.Join(b, ";"), strings.Join(a, ";"))
	}
	if a, b := k.doc.thumbprints(outer.all("TrustedRootCA")), k.doc.thumbprints(inner.all("TrustedRootCA")); len(a) > 0 && len(b) > 0 && !sameThumbprints(a, b) {
		k.report(inner.child("TrustedRootCA"), nil, "TLS trusts other roots than PEAP")
	}
}

func sameThumbprints(a, b []Thumbprint) bool {
	known := make(map[Thumbprint]struct{}, len(b))
	for _, t := range b {
		known[t] = struct{}{}
	}
	for _, t := range a {
		if _, ok := known[t]; !ok {
			return false
		}
	}
	return len(a) == len(b)
}

func checkAcceptServerName(k *check) {
	look := func(v, extensions *Node) {
		if v == nil || len(k.items(v.child("ServerNames"), ";")) == 0 {
			return
		}
		switch n := extensions.child("AcceptServerName"); {
		case n == nil:
			k.report(v.child("ServerNames"), nil, "there is no <AcceptServerName>true</AcceptServerName> for %s, so that the names aren't checked", k.methodOf(v))
		case !k.isTrue(n):
			k.reportValue(n, nil, "the names of %s aren't checked", k.methodOf(v))
		}
	}
	look(k.eap.peap.child("ServerValidation"), k.eap.peap.child("PeapExtensions"))
	look(k.eap.tls.child("ServerValidation"), k.eap.tls)
}

func checkPerformValidation(k *check) {
	for _, n := range []*Node{k.eap.peap.at("PeapExtensions/PerformServerValidation"), k.eap.tls.child("PerformServerValidation")} {
		if n != nil && k.text(n) != "" && !k.isTrue(n) {
			k.reportValue(n, nil, "the server isn't checked")
		}
	}
}

func checkRootMissing(k *check) {
	for _, v := range k.validations() {
		if v.child("TrustedRootCA") == nil {
			k.report(v, nil, "<ServerValidation> of %s has no <TrustedRootCA>", k.methodOf(v))
		}
	}
}

// holdsThumbprint reports whether an element holds one thumbprint.
func holdsThumbprint(n *Node) bool {
	return n.spec != nil && n.Space != "" && (n.spec.Name == "TrustedRootCA" || n.spec.Name == "IssuerHash")
}

func checkThumbprint(k *check, n *Node) {
	if !holdsThumbprint(n) {
		if n.spec != nil && n.spec.Name == "IssuerHash" {
			for _, s := range strings.FieldsFunc(k.text(n), func(r rune) bool { return r == ',' || r == ';' }) {
				if _, err := ParseThumbprint(s); err != nil {
					k.reportValue(n, nil, "%.60q isn't a SHA-1 thumbprint, which has 40 hexadecimal digits", strings.TrimSpace(s))
				}
			}
		}
		return
	}
	if _, err := ParseThumbprint(k.doc.Value(n)); err != nil {
		k.reportValue(n, nil, "%.60q isn't a SHA-1 thumbprint, which has 40 hexadecimal digits", k.text(n))
	}
}

func checkThumbprintForm(k *check, n *Node) {
	if !holdsThumbprint(n) || !k.strict() {
		return
	}
	if t, err := ParseThumbprint(k.doc.Value(n)); err == nil && k.doc.inner(n) != t.String() {
		k.reportValue(n, k.setValue(n, t.String()), "Windows writes it %q", t)
	}
}

func checkPrompt(k *check) {
	for _, v := range k.validations() {
		n := v.child("DisableUserPromptForServerValidation")
		if !k.alwaysOn() || k.isTrue(n) {
			continue
		}
		var fix []Edit
		if n != nil && len(k.items(v.child("ServerNames"), ";")) > 0 && v.child("TrustedRootCA") != nil {
			fix = k.setValue(n, "true")
		}
		at := n
		if at == nil {
			at = v
		}
		k.report(at, fix, "users may be asked whether to trust the server of %s", k.methodOf(v))
	}
}

func checkCryptoBinding(k *check) {
	if k.eap.peap == nil || k.eap.method == PEAPTLS && k.eap.inner == nil {
		return
	}
	switch n := k.eap.peap.child("RequireCryptoBinding"); {
	case n == nil:
		k.report(k.eap.peap, nil, "there is no <RequireCryptoBinding>true</RequireCryptoBinding>")
	case !k.isTrue(n):
		k.reportValue(n, nil, "RequireCryptoBinding is %s", k.text(n))
	}
}

// filtering is FilteringInfo, or nil.
func (k *check) filtering() *Node { return k.eap.tls.at("TLSExtensions/FilteringInfo") }

func checkEKUNames(k *check) {
	info := k.filtering()
	known := map[string]bool{}
	for _, m := range info.child("EKUMapping").all("EKUMap") {
		known[k.text(m.child("EKUName"))] = true
	}
	for _, list := range []string{"ClientAuthEKUList", "AnyPurposeEKUList"} {
		for _, m := range info.child(list).all("EKUMapInList") {
			if n := m.child("EKUName"); n != nil && !known[k.text(n)] {
				k.reportValue(n, nil, "%.60q isn't in <EKUMapping>", k.text(n))
			}
		}
	}
}

func checkFilterMissing(k *check) {
	if k.eap.tls != nil && k.filtering() == nil && k.eap.tls.at("CredentialsSource/SmartCard") == nil {
		k.report(k.eap.tls, nil, "there is no filter by issuer or usage")
	}
}

func checkOID(k *check, n *Node) {
	if n.spec == nil || n.spec.Name != "EKUOID" && n.spec.Path() != "VPNProfile/DeviceCompliance/Sso/Eku" {
		return
	}
	for s := range strings.SplitSeq(k.text(n), ",") {
		if s = strings.TrimSpace(s); s != "" && !isOID(s) {
			k.reportValue(n, nil, "%.60q isn't an object identifier", s)
		}
	}
}

func checkPasswords(k *check) {
	switch {
	case k.eap.methodKnown && k.eap.method == PEAPMSCHAPv2:
		k.report(k.eap.inner, nil, "PEAP-MSCHAPv2 uses passwords")
	case k.is(k.auth.child("UserMethod"), "MSChapv2"):
		k.reportValue(k.auth.child("UserMethod"), nil, "MSCHAPv2 uses passwords")
	}
}

func checkConditionalAccess(k *check) {
	compliance := k.root.child("DeviceCompliance")
	if !k.isTrue(compliance.child("Enabled")) || k.eap.tls == nil {
		return
	}
	info := k.filtering()
	if list := info.child("CAHashList"); list != nil && strings.EqualFold(attrOf(list, "Enabled"), "true") {
		k.report(list, nil, "CAHashList excludes the certificates of Entra: set Enabled to false")
	}
	f := k.doc.certificateFilter(info)
	if !slices.ContainsFunc(f.EKUs, func(e EKU) bool { return e.OID == conditionalAccessOID }) {
		k.report(compliance, nil, "EAP doesn't ask for the usage %s (AAD Conditional Access)", conditionalAccessOID)
	}
}

func checkSSO(k *check) {
	sso := k.root.at("DeviceCompliance/Sso")
	if sso == nil || !k.isTrue(sso.child("Enabled")) {
		return
	}
	for _, name := range []string{"Eku", "IssuerHash"} {
		if sso.child(name) == nil {
			k.report(sso, nil, "<Sso> has no <%s>", name)
		}
	}
	if n := sso.child("IssuerHash"); n != nil && strings.Contains(k.text(n), ";") {
		k.reportValue(n, nil, "the reference has commas between hashes, not semicolons")
	}
}

func checkMethod(k *check) {
	if k.eap.outer == nil || k.eap.methodKnown || k.eap.outerNumber == "" || k.eap.outerNumber == eapTypePEAP && k.eap.innerNumber == "" {
		return
	}
	k.report(k.eap.outer, nil, "the method is %s, in PEAP %q", k.eap.outerNumber, k.eap.innerNumber)
}
