package profilexml

// eapHostConfig is the content table of EAP: the methods that Always On VPN
// uses. The order is that of Microsoft's schemas, which Windows insists on here.
func eapHostConfig() *Element {
	return &Element{
		Name: "EapHostConfig", Space: eapHostSpace, Type: Group, Required: true, About: "The settings of EAP.",
		Children: []*Element{
			{
				Name: "EapMethod", Space: eapHostSpace, Type: Group, Required: true, About: "The method.",
				Children: []*Element{
					{Name: "Type", Space: eapCommonSpace, Type: Number, Least: 1, Most: 254, Required: true, About: "The number of the method: 13 is TLS, 25 PEAP, 26 MSCHAPv2.", Trap: "The Type in Config must be the same."},
					{Name: "VendorId", Space: eapCommonSpace, Type: Number, Most: 16777215, About: "0 for these methods."},
					{Name: "VendorType", Space: eapCommonSpace, Type: Number, Most: 4294967295, About: "0 for these methods."},
					{Name: "AuthorId", Space: eapCommonSpace, Type: Number, Most: 4294967295, About: "0: Microsoft's own."},
				},
			},
			{
				Name: "Config", Space: eapHostSpace, Type: Group, Required: true, About: "The settings of the method.",
				Children: []*Element{eapElement(eapPEAPType(), eapTLSType(), eapCHAPType())},
			},
		},
	}
}

// eapElement is Eap with what its EapType can be.
func eapElement(types ...*Element) *Element {
	return &Element{
		Name: "Eap", Space: eapBaseSpace, Type: Group, Required: true, About: "A method and its settings.",
		Children: append([]*Element{
			{Name: "Type", Space: eapBaseSpace, Type: Number, Least: 1, Most: 254, Required: true, About: "The number of the method."},
		}, types...),
	}
}

func eapValidation(space string) *Element {
	return &Element{
		Name: "ServerValidation", Space: space, Type: Group, About: "How the RADIUS server is checked.",
		Children: []*Element{
			{Name: "DisableUserPromptForServerValidation", Space: space, Type: Boolean, About: "Fails, rather than ask the user, when the server can't be checked.", Trap: "False has users asked at logon, and they say yes to anything."},
			{Name: "ServerNames", Space: space, Type: List, Separator: ";", About: "Names in the server's certificate; regular expressions are allowed.", Trap: "Checked only if AcceptServerName is true; PEAP and the TLS in it each have their own."},
			{Name: "TrustedRootCA", Space: space, Type: Text, Repeats: true, About: "The SHA-1 thumbprint of the root of the server's certificate.", Trap: "The root, not the authority that issues; without one, every root on the machine is trusted."},
		},
	}
}

func eapPEAPType() *Element {
	space := eapPEAPSpace
	return &Element{
		Name: "EapType", Space: space, Type: Group, About: "Protected EAP.",
		Children: []*Element{
			eapValidation(space),
			{Name: "FastReconnect", Space: space, Type: Boolean, About: "Resumes an earlier session."},
			{Name: "InnerEapOptional", Space: space, Type: Boolean, About: "Lets the server leave the inner method out."},
			eapElement(eapTLSType(), eapCHAPType()),
			{Name: "EnableQuarantineChecks", Space: space, Type: Boolean, About: "Network Access Protection, which is retired."},
			{Name: "RequireCryptoBinding", Space: space, Type: Boolean, About: "Insists that both ends of PEAP are the ends of the inner method.", Trap: "Without it, somebody in between can relay the inner method."},
			{
				Name: "PeapExtensions", Space: space, Type: Group, About: "What later versions of Windows added.",
				Children: []*Element{
					{Name: "PerformServerValidation", Space: eapPEAP2Space, Type: Boolean, About: "Checks the server."},
					{Name: "AcceptServerName", Space: eapPEAP2Space, Type: Boolean, About: "Checks the server's name."},
				},
			},
		},
	}
}

func eapTLSType() *Element {
	space := eapTLSSpace
	return &Element{
		Name: "EapType", Space: space, Type: Group, About: "TLS: a certificate.",
		Children: []*Element{
			{
				Name: "CredentialsSource", Space: space, Type: Group, About: "Where the certificate is.",
				Children: []*Element{
					{Name: "SmartCard", Space: space, Type: Text, About: "On a smart card."},
					{
						Name: "CertificateStore", Space: space, Type: Group, About: "In the store of the user.",
						Children: []*Element{{Name: "SimpleCertSelection", Space: space, Type: Boolean, About: "Chooses a certificate without asking, if it can."}},
					},
				},
			},
			eapValidation(space),
			{Name: "DifferentUsername", Space: space, Type: Boolean, About: "Asks for another name than the certificate's."},
			{Name: "PerformServerValidation", Space: eapTLS2Space, Type: Boolean, About: "Checks the server."},
			{Name: "AcceptServerName", Space: eapTLS2Space, Type: Boolean, About: "Checks the server's name."},
			{
				Name: "TLSExtensions", Space: eapTLS2Space, Type: Group, About: "What later versions of Windows added.",
				Children: []*Element{eapFilteringInfo()},
			},
		},
	}
}

func eapFilteringInfo() *Element {
	space := eapTLS3Space
	name := func() *Element {
		return &Element{Name: "EKUName", Space: space, Type: Text, Required: true, About: "A name for the usage.", Trap: "It must be one of EKUMapping."}
	}
	return &Element{
		Name: "FilteringInfo", Space: space, Type: Group, About: "Which certificates may be used.",
		Children: []*Element{
			{
				Name: "CAHashList", Space: space, Type: Group, Attrs: []string{"Enabled"}, About: "The authorities that may have issued it.",
				Children: []*Element{{Name: "IssuerHash", Space: space, Type: Text, Repeats: true, About: "The SHA-1 thumbprint of one."}},
			},
			{
				Name: "EKUMapping", Space: space, Type: Group, About: "Names for usages.",
				Children: []*Element{{
					Name: "EKUMap", Space: space, Type: Group, Repeats: true, About: "One of them.",
					Children: []*Element{name(), {Name: "EKUOID", Space: space, Type: Text, Required: true, About: "Its object identifier."}},
				}},
			},
			{
				Name: "ClientAuthEKUList", Space: space, Type: Group, Attrs: []string{"Enabled"}, About: "Usages that it must have beside client authentication, all of them.",
				Children: []*Element{{Name: "EKUMapInList", Space: space, Type: Group, Repeats: true, About: "One of them.", Children: []*Element{name()}}},
			},
			{Name: "AllPurposeEnabled", Space: space, Type: Boolean, About: "Takes certificates without any usage too."},
			{
				Name: "AnyPurposeEKUList", Space: space, Type: Group, Attrs: []string{"Enabled"}, About: "Usages that a certificate for any purpose must have.",
				Children: []*Element{{Name: "EKUMapInList", Space: space, Type: Group, Repeats: true, About: "One of them.", Children: []*Element{name()}}},
			},
		},
	}
}

func eapCHAPType() *Element {
	return &Element{
		Name: "EapType", Space: eapCHAPSpace, Type: Group, About: "MSCHAPv2: a password.",
		Children: []*Element{{Name: "UseWinLogonCredentials", Space: eapCHAPSpace, Type: Boolean, About: "Uses the name and password of the logon."}},
	}
}
