package profilexml

// The namespaces of EAP.
const (
	eapHostSpace   = "http://www.microsoft.com/provisioning/EapHostConfig"
	eapCommonSpace = "http://www.microsoft.com/provisioning/EapCommon"
	eapBaseSpace   = "http://www.microsoft.com/provisioning/BaseEapConnectionPropertiesV1"
	eapTLSSpace    = "http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV1"
	eapTLS2Space   = "http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV2"
	eapTLS3Space   = "http://www.microsoft.com/provisioning/EapTlsConnectionPropertiesV3"
	eapPEAPSpace   = "http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV1"
	eapPEAP2Space  = "http://www.microsoft.com/provisioning/MsPeapConnectionPropertiesV2"
	eapCHAPSpace   = "http://www.microsoft.com/provisioning/MsChapV2ConnectionPropertiesV1"
)

// newContent is the content table. Children stand in the order in which Windows
// reads them back; where nobody has published that, next to what they resemble.
//
// Nodes that the CSP's reference dates to Windows 11 21H2, and that public
// builds have honoured only since 24H2, are dated to 24H2.
func newContent() *Element {
	return &Element{
		Name: "VPNProfile", Type: Group, Required: true, About: "The profile.",
		Children: append([]*Element{
			{
				Name: "ProfileName", Type: Text, Schema: 1,
				About: "A name.", Trap: "Windows ignores it: the name comes from the OMA-URI or the InstanceID.",
			},
			{
				Name: "EdpModeId", Type: Text, Schema: 2, Since: Windows10v1511,
				About: "The enterprise ID of Windows Information Protection whose apps connect the VPN.", Trap: "Windows Information Protection is retired.",
			},
			{
				Name: "RememberCredentials", Type: Boolean, Schema: 3, Since: Windows10v1511, Default: "false",
				About: "Keeps the user's name and password.", Trap: "With certificates there is nothing to keep, and Windows may ask for credentials at odd times.",
			},
			{
				Name: "AlwaysOn", Type: Boolean, Schema: 4, Since: Windows10v1511, Default: "false",
				About: "Connects without being asked, at logon and when the network changes.", Trap: "Only one profile of a user can do so, and any other spelling than true leaves the profile half applied.",
			},
			{
				Name: "AlwaysOnActive", Type: Boolean, Since: Windows10v1511, Default: "true",
				About: "Whether \"connect automatically\" is ticked when the profile is made.",
			},
			{
				Name: "DeviceTunnel", Type: Boolean, Schema: 10, Since: Windows10v1709, Scope: DeviceScope, Default: "false",
				About: "Connects the computer before anybody logs on.", Trap: "IKEv2 with a machine certificate and split tunnelling only; one on a machine; Enterprise or Education edition.",
			},
			{
				Name: "LockDown", Type: Boolean, Schema: 9, Since: Windows10v1511, Scope: DeviceScope, Default: "false",
				About: "Allows no network but this VPN.", Trap: "It can't be disconnected, no other profile can be used, and a mistake in it cuts the computer off.",
			},
			{
				Name: "DnsSuffix", Type: List, Separator: ",", Schema: 5, Since: Windows10v1511,
				About: "DNS suffixes. The first is the connection's own, and all go to the search list.",
			},
			{
				Name: "TrustedNetworkDetection", Type: List, Separator: ",", Schema: 6, Since: Windows10v1511,
				About: "DNS suffixes of networks in which the VPN doesn't connect by itself.",
				Trap:  "Without it, Windows takes the names of DomainNameInformation.",
			},
			{
				Name: "DisableAdvancedOptionsEditButton", Type: Boolean, Schema: 7, Since: Windows11v22H2,
				About: "Greys out the button that edits the connection.", Trap: "The reference says Windows 11 21H2; it works from 22H2 on.",
			},
			{
				Name: "DisableDisconnectButton", Type: Boolean, Schema: 8, Since: Windows11v22H2,
				About: "Greys out the button that disconnects.", Trap: "The reference says Windows 11 21H2; it works from 22H2 on.",
			},
			{
				Name: "ByPassForLocal", Type: Boolean, Schema: 12, Since: Windows10v1511,
				About: "Meant to keep local addresses from the proxy.", Trap: "Reserved: it has no effect.",
			},
			{
				Name: "RequireVpnClientAppUI", Type: Boolean, Schema: 13, Since: Windows11v21H2, Scope: UserScope,
				About: "For plug-in profiles whose app must show something to connect.",
			},
			deviceCompliance(),
			proxyElement(),
			apnBinding(),
			pluginProfile(),
			nativeProfile(),
			appTrigger(),
			routeElement(),
			trafficFilter(),
			domainNameInformation(),
			{
				Name: "RegisterDNS", Type: Boolean, Schema: 11, Since: Windows10v1709, Default: "false",
				About: "Registers the VPN's address in DNS.", Trap: "In one of the two tunnels only, or they fight over the record.",
			},
		}, newElements()...),
	}
}

// newElements are those of Windows 11 24H2, which public builds have only since
// then.
func newElements() []*Element {
	return []*Element{
		{
			Name: "NetworkOutageTime", Type: Number, Most: 4294967295, Since: Windows11v24H2,
			About: "How long an IKEv2 connection outlives its network, in seconds; 0 is no limit.", Trap: "Before 24H2 only the phonebook can say so.",
		},
		{
			Name: "IPv4InterfaceMetric", Type: Number, Least: 1, Most: 9999, Since: Windows11v24H2,
			About: "The metric of the interface for IPv4.", Trap: "Before 24H2 only the phonebook can say so.",
		},
		{
			Name: "IPv6InterfaceMetric", Type: Number, Least: 1, Most: 9999, Since: Windows11v24H2,
			About: "The metric of the interface for IPv6.", Trap: "Before 24H2 only the phonebook can say so.",
		},
		{
			Name: "UseRasCredentials", Type: Boolean, Since: Windows11v24H2, Default: "true",
			About: "Uses the VPN's credentials for servers behind it.", Trap: "Before 24H2 only the phonebook can say so. False is for devices that are joined to Entra only.",
		},
		{
			Name: "DataEncryption", Type: Enumeration, Values: []string{"None", "Require", "Max", "Optional"}, Since: Windows11v24H2, Default: "Require",
			About: "Whether the connection must be encrypted.",
		},
		{
			Name: "PrivateNetwork", Type: Boolean, Since: Windows11v24H2, Default: "true",
			About: "Gives the connection the private profile of the firewall.",
		},
		{
			Name: "DisableIKEv2Fragmentation", Type: Boolean, Since: Windows11v24H2, Default: "false",
			About: "Sends IKE messages whole.", Trap: "Networks that drop IP fragments then end in error 809.",
		},
	}
}

func nativeProfile() *Element {
	return &Element{
		Name: "NativeProfile", Type: Group, Schema: 21, Since: Windows10v1511,
		About: "The VPN that Windows has built in.",
		Children: []*Element{
			{
				Name: "Servers", Type: List, Separator: ",", Required: true, Schema: 1,
				About: "The gateways: address;friendly name, and more of them after commas.", Trap: "Windows reads back address;address where no friendly name was given, and Windows 11 with Intune takes the difference for a change.",
			},
			{
				Name: "RoutingPolicyType", Type: Enumeration, Values: []string{"SplitTunnel", "ForceTunnel"}, Schema: 2, Default: "SplitTunnel",
				About: "Whether all traffic goes through the VPN, or only what Route says.",
			},
			{
				Name: "NativeProtocolType", Type: Enumeration, Values: []string{"IKEv2", "SSTP", "Automatic", "ProtocolList", "L2TP", "PPTP"},
				Spellings: map[string]string{"ikev2": "IKEv2"}, Schema: 3,
				About: "The tunnel protocol. SSTP and ProtocolList are of Windows 11.",
				Trap:  "Automatic tries SSTP first, then IKEv2, PPTP and L2TP, and ignores CryptographySuite.",
			},
			{
				Name: "ProtocolList", Type: Group, Since: Windows11v21H2,
				About: "Protocols in the order in which they are tried, with NativeProtocolType ProtocolList.",
				Children: []*Element{
					{
						Name: "NativeProtocol", Type: Group, Required: true, Repeats: true, About: "One of them.",
						Children: []*Element{{Name: "Type", Type: Enumeration, Values: []string{"Pptp", "L2tp", "Ikev2", "Sstp"}, Required: true, About: "Its name."}},
					},
					{Name: "RetryTimeInHours", Type: Number, Most: 500000, Default: "168", About: "After how long the first is tried again, once another one has worked."},
				},
			},
			{
				Name: "Authentication", Type: Group, Required: true, Schema: 8, About: "How the user or the computer is known.",
				Children: []*Element{
					{Name: "UserMethod", Type: Enumeration, Values: []string{"Eap", "MSChapv2"}, Schema: 1, About: "How the user is known."},
					{Name: "MachineMethod", Type: Enumeration, Values: []string{"Certificate", "Eap"}, Schema: 3, About: "How the computer is known: by its certificate, in a device tunnel.", Trap: "Windows reads Eap back beside the UserMethod Eap; Intune on Windows 11 wants it to be there."},
					{
						Name: "Certificate", Type: Group, About: "Reserved.",
						Children: []*Element{{Name: "Issuer", Type: Text, About: "Reserved."}, {Name: "Eku", Type: Text, About: "Reserved."}},
					},
					{
						Name: "Eap", Type: Group, Schema: 2, About: "The settings of EAP.",
						Children: []*Element{{
							Name: "Configuration", Type: Group, Required: true, Schema: 1, About: "EapHostConfig, as XML.",
							Trap:     "It is XML within XML here, and escaped only in the CSP's own node.",
							Children: []*Element{eapHostConfig()},
						}},
					},
				},
			},
			cryptographySuite(),
			{
				Name: "DisableClassBasedDefaultRoute", Type: Boolean, Schema: 5, Since: Windows10v1607, Default: "false",
				About: "Leaves out the route to the class A, B or C network of the VPN's address.", Trap: "Needs Route, and is no use with ForceTunnel.",
			},
			{Name: "PlumbIKEv2TSAsRoutes", Type: Boolean, Schema: 6, Since: Windows10v2004, Default: "false", About: "Makes routes of the traffic selectors that the gateway sends."},
			{Name: "L2tpPsk", Type: Text, Schema: 4, Since: Windows10v1607, About: "The pre-shared key of L2TP.", Trap: "It is there for everybody to read."},
		},
	}
}

func cryptographySuite() *Element {
	suite := &Element{
		Name: "CryptographySuite", Type: Group, Schema: 7, Since: Windows10v1607,
		About: "The one proposal that an IKEv2 client makes. The gateway must have the same.",
		Trap:  "Without it Windows offers 3DES, SHA1 and DH group 2 too.",
	}
	about := map[string]string{
		"AuthenticationTransformConstants": "The integrity of ESP; with GCM the same as the cipher.",
		"CipherTransformConstants":         "The cipher of ESP.",
		"PfsGroup":                         "The group for new keys of ESP. A difference shows only at the first rekey.",
		"DHGroup":                          "The group of the IKE SA.",
		"IntegrityCheckMethod":             "The integrity of the IKE SA, and its random function; with GCM that alone.",
		"EncryptionMethod":                 "The cipher of the IKE SA.",
	}
	for i, f := range suiteFields {
		suite.Children = append(suite.Children, &Element{
			Name: f.name, Type: Enumeration, Values: f.names(), Spellings: f.spellings(), Required: true, Schema: i + 1, About: about[f.name],
		})
	}
	return suite
}

func deviceCompliance() *Element {
	return &Element{
		Name: "DeviceCompliance", Type: Group, Schema: 16, Since: Windows10v1607,
		About: "Entra conditional access: a short-lived certificate for compliant devices.",
		Children: []*Element{
			{Name: "Enabled", Type: Boolean, Required: true, Schema: 1, Default: "false", About: "Turns it on."},
			{
				Name: "Sso", Type: Group, Schema: 2, About: "Which certificate is used after the check, where it isn't that of the VPN.",
				Children: []*Element{
					{Name: "Enabled", Type: Boolean, Required: true, Schema: 1, Default: "false", About: "Turns it on."},
					{Name: "Eku", Type: List, Separator: ",", Schema: 2, About: "Object identifiers that the certificate's extended key usage must have."},
					{Name: "IssuerHash", Type: List, Separator: ",", Schema: 3, About: "Hashes of the issuers that the certificate may have.", Trap: "The reference has commas between them, and Microsoft's example semicolons."},
				},
			},
		},
	}
}

func proxyElement() *Element {
	return &Element{
		Name: "Proxy", Type: Group, Schema: 14, Since: Windows10v1511,
		About: "The web proxy while connected.", Trap: "With split tunnelling it is ignored.",
		Children: []*Element{
			{
				Name: "Manual", Type: Group, Schema: 2, About: "A proxy by address. If there is AutoConfigUrl too, this one counts.",
				Children: []*Element{{Name: "Server", Type: Text, Required: true, Schema: 1, About: "Its address as host:port."}},
			},
			{Name: "AutoConfigUrl", Type: Text, Schema: 1, About: "The address of a PAC file."},
		},
	}
}

func apnBinding() *Element {
	return &Element{
		Name: "APNBinding", Type: Group, Schema: 15, Since: Windows10v1511, About: "Reserved.", Trap: "It has no effect.",
		Children: []*Element{
			{Name: "ProviderId", Type: Text, Schema: 1, About: "Reserved."},
			{Name: "AccessPointName", Type: Text, Schema: 2, About: "Reserved."},
			{Name: "UserName", Type: Text, Schema: 3, About: "Reserved."},
			{Name: "Password", Type: Text, Schema: 4, About: "Reserved."},
			{Name: "IsCompressionEnabled", Type: Boolean, Schema: 5, About: "Reserved."},
			{Name: "AuthenticationType", Type: Text, Schema: 6, About: "Reserved."},
		},
	}
}

func pluginProfile() *Element {
	return &Element{
		Name: "PluginProfile", Type: Group, Schema: 17, Since: Windows10v1511,
		About: "A VPN app from the Microsoft Store in place of what Windows has built in.",
		Children: []*Element{
			{Name: "ServerUrlList", Type: List, Separator: ";", Required: true, Schema: 1, About: "The servers."},
			{Name: "CustomConfiguration", Type: Opaque, Schema: 2, About: "What the app wants to know, as XML.", Trap: "It must be escaped: it is text within this XML."},
			{Name: "PluginPackageFamilyName", Type: Text, Required: true, Schema: 3, About: "The package family name of the app."},
		},
	}
}

func appTrigger() *Element {
	return &Element{
		Name: "AppTrigger", Type: Group, Repeats: true, Schema: 18, Since: Windows10v1511,
		About: "An app whose start connects the VPN.",
		Children: []*Element{{
			Name: "App", Type: Group, Required: true, Schema: 1, About: "The app.",
			Children: []*Element{{Name: "Id", Type: Text, Required: true, Schema: 1, About: "Its package family name, or the path of its program."}},
		}},
	}
}

func routeElement() *Element {
	return &Element{
		Name: "Route", Type: Group, Repeats: true, Schema: 22, Since: Windows10v1511,
		About: "A network that is reached through the VPN, or isn't.",
		Children: []*Element{
			{Name: "Address", Type: Text, Required: true, Schema: 1, About: "The address of the network.", Trap: "An IPv6 route has the connection fail where the gateway gives no IPv6 address."},
			{Name: "PrefixSize", Type: Number, Most: 128, Required: true, Schema: 2, About: "How many bits of Address are the network."},
			{Name: "ExclusionRoute", Type: Boolean, Schema: 3, Since: Windows10v1607, Default: "false", About: "Keeps the network out of the VPN."},
			{Name: "Metric", Type: Number, Most: 4294967295, Schema: 4, Since: Windows10v1607, Default: "1", About: "The metric of the route."},
		},
	}
}

func trafficFilter() *Element {
	return &Element{
		Name: "TrafficFilter", Type: Group, Repeats: true, Schema: 20, Since: Windows10v1511,
		About: "Traffic that may use the VPN: all that a filter says must fit, and one of the filters.",
		Trap:  "As soon as there is one, everything else is blocked, both ways.",
		Children: []*Element{
			{
				Name: "App", Type: Group, Schema: 1, About: "The app.",
				Children: []*Element{{Name: "Id", Type: Text, Required: true, Schema: 1, About: "Its package family name, the path of its program, or SYSTEM."}},
			},
			{Name: "Claims", Type: Text, Schema: 2, About: "A security descriptor of users, as SDDL."},
			{Name: "Protocol", Type: Number, Most: 255, Schema: 3, About: "The IP protocol: 6 is TCP, 17 UDP."},
			{Name: "LocalPortRanges", Type: List, Separator: ",", Schema: 4, About: "Ports such as 10,20-50.", Trap: "Only with Protocol 6 or 17."},
			{Name: "RemotePortRanges", Type: List, Separator: ",", Schema: 5, About: "Ports such as 10,20-50.", Trap: "Only with Protocol 6 or 17."},
			{Name: "LocalAddressRanges", Type: List, Separator: ",", Schema: 6, About: "Addresses, prefixes, and ranges such as 10.0.0.1-10.0.0.9.", Trap: "Ignored in a filter that has RemoteAddressRanges."},
			{Name: "RemoteAddressRanges", Type: List, Separator: ",", Schema: 7, About: "Addresses, prefixes, and ranges such as 10.0.0.1-10.0.0.9."},
			{Name: "RoutingPolicyType", Type: Enumeration, Values: []string{"SplitTunnel", "ForceTunnel"}, Schema: 8, About: "Whether all traffic of the app goes through the VPN.", Trap: "Means something only with App."},
			{Name: "Direction", Type: Enumeration, Values: []string{"Outbound", "Inbound"}, Schema: 9, Since: Windows10v2004, Default: "Outbound", About: "Which way the traffic goes."},
		},
	}
}

func domainNameInformation() *Element {
	return &Element{
		Name: "DomainNameInformation", Type: Group, Repeats: true, Schema: 19, Since: Windows10v1511,
		About: "A rule of the Name Resolution Policy Table: which DNS servers answer for a name.",
		Trap:  "Not in a device tunnel if the user tunnel has rules too.",
		Children: []*Element{
			{Name: "DomainName", Type: Text, Required: true, Schema: 1, About: "The name: with a dot before it a suffix, without a host, and a dot alone is every name."},
			{Name: "DnsServers", Type: List, Separator: ",", Schema: 2, About: "Addresses of DNS servers. Without any, the name is kept out of the VPN's DNS.", Trap: "No spaces, or the rule isn't taken."},
			{Name: "WebProxyServers", Type: Text, Schema: 3, About: "A web proxy for the name. There can be one."},
			{Name: "AutoTrigger", Type: Boolean, Schema: 4, Since: Windows10v1607, Default: "false", About: "Connects the VPN when the name is looked up."},
			{Name: "Persistent", Type: Boolean, Schema: 5, Since: Windows10v1607, Default: "false", About: "Keeps the rule while not connected."},
		},
	}
}
