package profilexml

import (
	"net/netip"
	"slices"
	"strings"
)

// protocolRules are about the tunnel protocol.
func protocolRules() []Rule {
	return []Rule{
		{
			ID: "AOV101", Severity: Error, Title: "Automatic ignores CryptographySuite",
			Why:    "With NativeProtocolType Automatic, Windows doesn't apply the suite. The client offers its weak defaults, the gateway refuses them, and the connection ends in error 800, or falls back to SSTP if that works.",
			Remedy: "Use NativeProtocolType IKEv2, and set the strategy in the phonebook if SSTP is wanted as a fallback (VpnStrategy 14); or leave the suite out.",
			run:    checkAutomaticSuite,
		},
		{
			ID: "AOV102", Severity: Warning, Title: "Automatic tries SSTP first",
			Why:    "Automatic in a profile means SSTP, IKEv2, PPTP, L2TP in this order. Clients that reach the SSTP listener never use IKEv2.",
			Remedy: "Use IKEv2, and set VpnStrategy 14 or 8 in the phonebook for a fallback to SSTP; on Windows 11 a ProtocolList can say the order.",
			run:    checkAutomaticOrder,
		},
		{
			ID: "AOV103", Severity: Error, Title: "The protocol is newer than the oldest Windows",
			Why:    "SSTP and ProtocolList in NativeProtocolType are of Windows 11. Earlier releases refuse them.",
			Remedy: "Use IKEv2, and set VpnStrategy in the phonebook: 5 is SSTP only, 14 IKEv2 and then SSTP.",
			run:    checkProtocolSince,
		},
		{
			ID: "AOV104", Severity: Error, Title: "There is no NativeProtocolType",
			Why:    "The CSP requires it. What Windows does without differs between channels.",
			Remedy: "Say the protocol.",
			run:    checkProtocolMissing,
		},
		{
			ID: "AOV105", Severity: Error, Title: "ProtocolList and NativeProtocolType don't go together",
			Why:    "The list is used with NativeProtocolType ProtocolList only, and that needs the list.",
			Remedy: "Have both, or neither.",
			run:    checkProtocolList,
		},
		{
			ID: "AOV115", Severity: Warning, Title: "ProtocolList can't be read back through WMI",
			Why:    "Windows keeps it as VpnStrategy 15, and WMI's PS_VpnConnection fails on that value, so that scripts that read the connection back, or look for it, break.",
			Remedy: "Deliver it by Intune, or use IKEv2 and set VpnStrategy 14 in the phonebook.",
			run:    checkProtocolListWMI,
		},
		{
			ID: "AOV106", Severity: Warning, Title: "The protocol is outdated",
			Why:    "PPTP is broken, and L2TP with a pre-shared key is as good as the secrecy of a key that is in every profile. RRAS of Windows Server 2025 no longer accepts either by default.",
			Remedy: "Use IKEv2, or SSTP.",
			run:    checkOldProtocol,
		},
		{
			ID: "AOV107", Severity: Warning, Title: "A secret is in the profile",
			Why:    "Whoever may read the profile, or the phonebook, or what MDM logs, has it.",
			Remedy: "Use certificates.",
			visit:  checkSecrets,
		},
	}
}

// gatewayRules are about the gateways, and settings of protocols.
func gatewayRules() []Rule {
	return []Rule{
		{
			ID: "AOV108", Severity: Error, Title: "A server isn't a name or an address",
			Why:    "Servers holds names or addresses as DNS knows them. With https://, a port, a path, quotation marks or a wildcard the client can't find it.",
			Remedy: "Write the public name, such as vpn.example.com.",
			run:    checkServers,
		},
		{
			ID: "AOV109", Severity: Warning, Title: "A server has no friendly name", Fixable: true,
			Why:    "Windows reads Servers back as address;address then. Intune on Windows 11 takes that for a difference and applies the profile again and again.",
			Remedy: "Write the server twice: vpn.example.com;vpn.example.com.",
			run:    checkServerNames,
		},
		{
			ID: "AOV110", Severity: Warning, Title: "A server is given by its address",
			Why:    "The client compares what it dials with the names in the gateway's certificate: error 13801 if the certificate doesn't have the address. And the address can't be moved to another site.",
			Remedy: "Use the name that is in the certificate.",
			run:    checkServerAddresses,
		},
		{
			ID: "AOV111", Severity: Error, Title: "There are both a native and a plug-in profile, or none",
			Why:    "A profile is either of the VPN that Windows has built in, or of an app.",
			Remedy: "Have either NativeProfile or PluginProfile.",
			run:    checkKind,
		},
		{
			ID: "AOV112", Severity: Warning, Title: "A setting is for a protocol that isn't used",
			Why:    "NetworkOutageTime, DisableIKEv2Fragmentation, PlumbIKEv2TSAsRoutes and CryptographySuite are settings of IKEv2, and L2tpPsk of L2TP.",
			Remedy: "Remove the setting, or use the protocol.",
			run:    checkUnusedSettings,
		},
		{
			ID: "AOV113", Severity: Warning, Title: "IKE messages aren't fragmented",
			Why:    "A message with certificates is larger than a packet. Many home routers and mobile networks drop fragments of IP, so that clients there end in error 809.",
			Remedy: "Remove DisableIKEv2Fragmentation, and set EnableServerFragmentation on the gateways.",
			run:    checkFragmentation,
		},
		{
			ID: "AOV114", Severity: Warning, Title: "The connection may be unencrypted",
			Why:    "DataEncryption None and Optional let the client connect without encryption where the gateway allows it.",
			Remedy: "Use Require or Max, or leave it out.",
			run:    checkDataEncryption,
		},
	}
}

func checkAutomaticSuite(k *check) {
	if k.suite != nil && k.protocol() == "Automatic" {
		k.report(k.suite, nil, "CryptographySuite is ignored with NativeProtocolType Automatic, and IKEv2 then fails with error 800")
	}
}

func checkAutomaticOrder(k *check) {
	if k.protocol() == "Automatic" {
		k.reportValue(k.native.child("NativeProtocolType"), nil, "Automatic tries SSTP before IKEv2, and PPTP before L2TP")
	}
}

func checkProtocolSince(k *check) {
	if p := k.protocol(); (p == "SSTP" || p == "ProtocolList") && !k.Windows.is11() {
		k.reportValue(k.native.child("NativeProtocolType"), nil, "%s needs Windows 11, and this is for %v", p, k.Windows)
	}
}

func checkProtocolMissing(k *check) {
	if k.native != nil && k.native.child("NativeProtocolType") == nil {
		k.report(k.native, nil, "<NativeProfile> has no <NativeProtocolType>")
	}
}

func checkProtocolList(k *check) {
	list := k.native.child("ProtocolList")
	switch p := k.protocol(); {
	case p == "ProtocolList" && list == nil:
		k.reportValue(k.native.child("NativeProtocolType"), nil, "there is no <ProtocolList>")
	case p != "ProtocolList" && list != nil:
		k.report(list, nil, "<ProtocolList> is used only with NativeProtocolType ProtocolList")
	}
}

func checkProtocolListWMI(k *check) {
	if n := k.native.child("NativeProtocolType"); k.Channel == WMI && k.protocol() == "ProtocolList" {
		k.reportValue(n, nil, "scripts can't read a connection with ProtocolList back")
	}
}

func checkOldProtocol(k *check) {
	n := k.native.child("NativeProtocolType")
	if p := k.protocol(); p == "PPTP" || p == "L2TP" {
		k.reportValue(n, nil, "%s is outdated", p)
	}
	for _, t := range k.native.child("ProtocolList").all("NativeProtocol") {
		if p := t.child("Type"); k.is(p, "Pptp") || k.is(p, "L2tp") {
			k.reportValue(p, nil, "%s is outdated", k.text(p))
		}
	}
}

func checkSecrets(k *check, n *Node) {
	if isSecret(n) && k.text(n) != "" {
		k.report(n, nil, "<%s> is a secret that everybody with the profile can read", n.Name())
	}
}

func isSecret(n *Node) bool {
	if n.spec == nil || n.spec.Type != Text || n.Space != "" {
		return false
	}
	p := n.spec.Path()
	return p == "VPNProfile/NativeProfile/L2tpPsk" || p == "VPNProfile/APNBinding/Password"
}

// servers calls f for each server: its address and its friendly name.
func (k *check) servers(f func(n *Node, address, name string, named bool)) {
	n := k.native.child("Servers")
	for _, s := range k.items(n, ",") {
		address, name, named := strings.Cut(s, ";")
		f(n, strings.TrimSpace(address), strings.TrimSpace(name), named && name != "")
	}
}

func checkServers(k *check) {
	k.servers(func(n *Node, address, _ string, _ bool) {
		if !isAddr(address) && !hostName(address) {
			k.reportValue(n, nil, "%.60q is neither the name of a host nor an address", address)
		}
	})
}

func checkServerNames(k *check) {
	if !k.strict() {
		return
	}
	n := k.native.child("Servers")
	var list []string
	missing, odd := "", false
	k.servers(func(_ *Node, address, name string, named bool) {
		if !named {
			missing, name = address, address
		}
		odd = odd || !isAddr(address) && !hostName(address)
		list = append(list, address+";"+name)
	})
	if missing == "" {
		return
	}
	var fix []Edit
	if !odd {
		fix = k.setValue(n, strings.Join(list, ","))
	}
	k.reportValue(n, fix, "Windows reads %.60q back with a friendly name: write %s;%s", missing, missing, missing)
}

func checkServerAddresses(k *check) {
	k.servers(func(n *Node, address, _ string, _ bool) {
		if a, err := netip.ParseAddr(address); err == nil {
			k.reportValue(n, nil, "%v is an address: certificates have names", a)
		}
	})
}

func checkKind(k *check) {
	plugin := k.root.child("PluginProfile")
	switch {
	case k.root == nil:
	case k.native == nil && plugin == nil:
		k.report(k.root, nil, "there is neither <NativeProfile> nor <PluginProfile>")
	case k.native != nil && plugin != nil:
		k.report(plugin, nil, "there are both <NativeProfile> and <PluginProfile>")
	}
}

func checkUnusedSettings(k *check) {
	used := k.protocols()
	if len(used) == 0 {
		return
	}
	unused := func(n *Node, protocol string) {
		if n != nil && !slices.Contains(used, protocol) {
			k.report(n, nil, "<%s> is a setting of %s, which isn't used", n.Name(), protocol)
		}
	}
	for _, name := range []string{"CryptographySuite", "PlumbIKEv2TSAsRoutes"} {
		unused(k.native.child(name), "IKEv2")
	}
	for _, name := range []string{"NetworkOutageTime", "DisableIKEv2Fragmentation"} {
		unused(k.root.child(name), "IKEv2")
	}
	unused(k.native.child("L2tpPsk"), "L2TP")
}

func checkFragmentation(k *check) {
	if n := k.root.child("DisableIKEv2Fragmentation"); k.isTrue(n) {
		k.reportValue(n, nil, "IKE messages are sent whole, and networks that drop IP fragments end in error 809")
	}
}

func checkDataEncryption(k *check) {
	if n := k.root.child("DataEncryption"); k.is(n, "None") || k.is(n, "Optional") {
		k.reportValue(n, nil, "DataEncryption %s allows connections without encryption", k.text(n))
	}
}
