package profilexml

import "strings"

// authenticationRules are about how the user or the computer is known.
func authenticationRules() []Rule {
	return []Rule{
		{
			ID: "AOV201", Severity: Error, Title: "EAP has no configuration",
			Why:    "UserMethod Eap says that EAP is used, and not which method, which servers, which certificates.",
			Remedy: "Add Eap/Configuration with EapHostConfig.",
			run:    checkEAPMissing,
		},
		{
			ID: "AOV202", Severity: Error, Title: "The user and the computer are both authenticated",
			Why:    "A profile authenticates the user by UserMethod, or the computer by MachineMethod Certificate. With both, Windows takes one and nobody says which.",
			Remedy: "Make two profiles: a user tunnel, and a device tunnel.",
			run:    checkBothMethods,
		},
		{
			ID: "AOV203", Severity: Error, Title: "MSCHAPv2 can't be used with IKEv2",
			Why:    "IKEv2 knows certificates and EAP. UserMethod MSChapv2 is for SSTP, L2TP and PPTP.",
			Remedy: "Use UserMethod Eap, with PEAP-MSCHAPv2 if it must be passwords.",
			run:    checkMSCHAPv2,
		},
		{
			ID: "AOV204", Severity: Warning, Title: "Credentials are remembered where there are none", Fixable: true,
			Why:    "With certificates there is no password to remember, and Windows asks for one at odd times.",
			Remedy: "Remove RememberCredentials.",
			run:    checkRemember,
		},
		{
			ID: "AOV205", Severity: Error, Title: "Nobody says how the user or the computer is known",
			Why:    "Authentication has neither UserMethod nor MachineMethod.",
			Remedy: "Add UserMethod Eap with its configuration, or MachineMethod Certificate.",
			run:    checkNoMethod,
		},
		{
			ID: "AOV206", Severity: Warning, Title: "MachineMethod Eap is missing beside UserMethod Eap", Fixable: true,
			Why:    "Windows 11 reads MachineMethod Eap back where UserMethod is Eap, and Intune takes that for a difference. Documentation that calls the value invalid is older.",
			Remedy: "Add MachineMethod Eap behind UserMethod.",
			run:    checkMachineEAP,
		},
		{
			ID: "AOV207", Severity: Warning, Title: "EAP is configured and not used",
			Why:    "The configuration of EAP is there, and UserMethod isn't Eap.",
			Remedy: "Set UserMethod to Eap, or remove the configuration.",
			run:    checkEAPUnused,
		},
	}
}

func checkEAPMissing(k *check) {
	if n := k.auth.child("UserMethod"); k.is(n, "Eap") && k.auth.child("Eap") == nil {
		k.reportValue(n, nil, "UserMethod is Eap, and there is no <Eap> with its configuration")
	}
}

func checkBothMethods(k *check) {
	if m := k.auth.child("MachineMethod"); k.is(m, "Certificate") && k.auth.child("UserMethod") != nil {
		k.reportValue(m, nil, "there are both UserMethod and MachineMethod Certificate")
	}
}

func checkMSCHAPv2(k *check) {
	n := k.auth.child("UserMethod")
	if k.is(n, "MSChapv2") && k.usesIKEv2() && k.protocol() != "Automatic" {
		k.reportValue(n, nil, "MSChapv2 can't be used with IKEv2")
	}
}

// usesPasswords reports whether users have passwords to remember.
func (k *check) usesPasswords() bool {
	return k.is(k.auth.child("UserMethod"), "MSChapv2") || k.eap.methodKnown && k.eap.method == PEAPMSCHAPv2
}

func checkRemember(k *check) {
	n := k.root.child("RememberCredentials")
	certificates := k.eap.methodKnown && k.eap.method != PEAPMSCHAPv2 || k.is(k.auth.child("MachineMethod"), "Certificate")
	if k.isTrue(n) && certificates && !k.usesPasswords() {
		k.report(n, k.remove(n), "there are certificates and no credentials to remember")
	}
}

func checkNoMethod(k *check) {
	if k.auth != nil && k.auth.child("UserMethod") == nil && k.auth.child("MachineMethod") == nil {
		k.report(k.auth, nil, "<Authentication> has neither <UserMethod> nor <MachineMethod>")
	}
}

func checkMachineEAP(k *check) {
	n := k.auth.child("UserMethod")
	if k.strict() && k.is(n, "Eap") && k.auth.child("MachineMethod") == nil {
		k.report(n, k.insertAfter(n, "<MachineMethod>Eap</MachineMethod>"), "there is no <MachineMethod>Eap</MachineMethod>, which Windows 11 reads back")
	}
}

func checkEAPUnused(k *check) {
	if n := k.auth.child("Eap"); n != nil && k.auth.child("UserMethod") != nil && !k.is(k.auth.child("UserMethod"), "Eap") {
		k.report(n, nil, "<Eap> isn't used with UserMethod %s", k.text(k.auth.child("UserMethod")))
	}
}

// eapRules are about the form of EapHostConfig.
func eapRules() []Rule {
	return []Rule{
		{
			ID: "AOV210", Severity: Error, Title: "EapHostConfig is escaped", Fixable: true,
			Why:    "Within ProfileXML the configuration of EAP is XML like the rest. It is escaped only in the CSP's own node Eap/Configuration. Windows finds no configuration in text.",
			Remedy: "Put the XML itself into Configuration.",
			run:    checkEAPEscaped,
		},
		{
			ID: "AOV211", Severity: Error, Title: "Configuration has no EapHostConfig",
			Why:    "There is nothing for EAP to work with. Samples have a comment here, for what must be put in.",
			Remedy: "Take EapHostConfig from a connection that works, or have it built.",
			run:    checkEAPEmpty,
		},
		{
			ID: "AOV212", Severity: Error, Title: "A namespace of EAP is wrong", Fixable: true,
			Why:    "Namespaces are names, compared letter by letter: they begin with http://www.microsoft.com/provisioning/. Documentation once had https://, and Windows answers such profiles with \"a general error occurred\".",
			Remedy: "Write the namespace as it is.",
			visit:  checkEAPSpace,
		},
		{
			ID: "AOV213", Severity: Error, Title: "The types of the EAP method differ",
			Why:    "The Type in EapMethod says which method is used, and the Type in Config whose settings these are.",
			Remedy: "Have both be 13 for TLS, or 25 for PEAP.",
			run:    checkEAPTypes,
		},
		{
			ID: "AOV214", Severity: Warning, Title: "Elements of EAP are out of order", Fixable: true,
			Why:    "EAP checks its configuration against schemas that fix the order, and refuses the whole of it otherwise.",
			Remedy: "Put the elements into the order of the schema.",
			visit:  checkEAPOrder,
		},
	}
}

func checkEAPEscaped(k *check) {
	n := k.auth.at("Eap/Configuration")
	if n == nil || n.hasElements() {
		return
	}
	text := k.text(n)
	if !strings.HasPrefix(text, "<") {
		return
	}
	var fix []Edit
	if inner, err := ParseString(text); err == nil && inner.Root.Local == "EapHostConfig" && len(text) < DefaultMaxBytes/4 {
		fix = []Edit{{n.OpenEnd, n.CloseStart, text[inner.Root.Start:inner.Root.End]}}
	}
	k.reportValue(n, fix, "EapHostConfig is escaped text here, and must be XML")
}

func checkEAPEmpty(k *check) {
	n := k.auth.at("Eap/Configuration")
	if n != nil && n.child("EapHostConfig") == nil && !strings.HasPrefix(k.text(n), "<") {
		k.report(n, nil, "<Configuration> has no <EapHostConfig>")
	}
}

// eapSpaces are all namespaces of EAP here.
var eapSpaces = []string{eapHostSpace, eapCommonSpace, eapBaseSpace, eapTLSSpace, eapTLS2Space, eapTLS3Space, eapPEAPSpace, eapPEAP2Space, eapCHAPSpace}

// wrongEAPSpace returns the namespace that an unknown element was probably meant
// to be in, "" if that isn't what is wrong with it.
func (k *check) wrongEAPSpace(n *Node) string {
	if n.Parent == nil || n.Parent.spec == nil || n.spec != nil {
		return ""
	}
	for _, space := range eapSpaces {
		if looksLike(n.Space, space) && n.Parent.spec.child(n.Local, space) != nil {
			return space
		}
	}
	return ""
}

// looksLike reports whether a namespace is wrong by its scheme, its case, or a
// slash or space too many.
func looksLike(space, real string) bool {
	clean := func(s string) string {
		s = strings.ToLower(strings.TrimSpace(s))
		s = strings.TrimSuffix(s, "/")
		return strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	}
	return space != real && clean(space) == clean(real)
}

func checkEAPSpace(k *check, n *Node) {
	space := k.wrongEAPSpace(n)
	if space == "" {
		return
	}
	var fix []Edit
	// The declaration may stand further out. Every one that looks like it and
	// isn't is as wrong.
	for m := n; m != nil && fix == nil; m = m.Parent {
		for i := range m.Attrs {
			if a := &m.Attrs[i]; a.declares() && a.Value == n.Space {
				fix = []Edit{{a.ValueStart, a.ValueEnd, space}}
			}
		}
	}
	k.report(n, fix, "<%s> is in the namespace %q, and must be in %q", n.Name(), n.Space, space)
}

func checkEAPTypes(k *check) {
	n := k.eap
	if n.outer == nil || n.methodNumber == "" || n.outerNumber == "" {
		return
	}
	if n.methodNumber != n.outerNumber {
		k.reportValue(n.outer.child("Type"), nil, "the Type is %s here and %s in <EapMethod>", n.outerNumber, n.methodNumber)
	}
	for _, e := range []*Node{n.outer, n.inner} {
		want := map[string]string{eapTypeTLS: eapTLSSpace, eapTypePEAP: eapPEAPSpace, eapTypeMSCHAPv2: eapCHAPSpace}[k.text(e.child("Type"))]
		if t := e.child("EapType"); t != nil && t.spec != nil && want != "" && t.Space != want {
			k.report(t, nil, "the Type is %s, and these are the settings of another method", k.text(e.child("Type")))
		}
	}
}

func checkEAPOrder(k *check, n *Node) {
	if n.spec == nil || n.spec.Type != Group || n.Space == "" {
		return
	}
	if c, before := misplaced(n); c != nil {
		k.report(c, k.reorder(n), "<%s> must stand before <%s>", c.Name(), before.Name())
	}
}
