package rasphone

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A Kind is what the value of a key is.
type Kind uint8

const (
	// Text is what is written.
	Text Kind = iota
	// Number is a decimal number.
	Number
	// Flag is 0 or 1.
	Flag
	// Words is a number that stands for something.
	Words
	// Binary is a list in hexadecimal, over several lines, or its length. The
	// functions for lists set it.
	Binary
)

var kindNames = [...]string{"text", "number", "flag", "words", "binary"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// A Word is what a number stands for.
type Word struct {
	Number uint32
	Name   string
}

// A Key is what is known about a key of an entry.
type Key struct {
	// Name is how Windows spells it, mistakes included.
	Name  string
	Group Group // Group is the part of an entry that it is in
	Kind  Kind  // Kind is what its value is
	// Least and Most bound a Number.
	Least, Most uint32
	// Words are the values of a Kind of Words.
	Words []Word
	// Opposite is a friendlier name, whose value is the opposite: Mobility is
	// off if DisableMobility is 1.
	Opposite string
	// Kept keys belong to Windows, and aren't changed by an [Edit] that doesn't
	// insist.
	Kept bool
	// Secret values aren't shown.
	Secret bool
	// Profile is the element of ProfileXML that sets it.
	Profile string
	// Does says what it does, or what to know about it.
	Does string
}

// keyTable has the keys that are worth knowing. All that an entry has, in their
// order, are in mainOrder and deviceOrder.
var keyTable = []Key{
	{
		Name: "VpnStrategy", Kind: Words, Words: strategyWords(), Profile: "NativeProtocolType",
		Does: "which protocols are tried, in which order; Windows rewrites it when another than the first succeeds",
	},
	{Name: "IpInterfaceMetric", Kind: Number, Most: 9999, Profile: "IPv4InterfaceMetric", Does: "metric of IPv4; 0 is automatic"},
	{Name: "Ipv6InterfaceMetric", Kind: Number, Most: 9999, Profile: "IPv6InterfaceMetric", Does: "metric of IPv6; 0 is automatic"},
	{Name: "DisableMobility", Kind: Flag, Opposite: "Mobility", Does: "1 turns MOBIKE off, so that IKEv2 doesn't survive a change of network"},
	{Name: "NetworkOutageTime", Kind: Number, Most: 1<<31 - 1, Profile: "NetworkOutageTime", Does: "how many seconds IKEv2 survives without a network; 0 is no limit; needs mobility"},
	{Name: "UseRasCredentials", Kind: Flag, Profile: "UseRasCredentials", Does: "1 uses the credentials of the VPN for servers behind it"},
	{Name: "CacheCredentials", Kind: Flag, Profile: "RememberCredentials", Does: "1 keeps the credentials"},
	{Name: "AutoLogon", Kind: Flag, Does: "1 uses the credentials of the Windows logon (MS-CHAPv2)"},
	{Name: "DisableIKENameEkuCheck", Kind: Flag, Opposite: "IKENameEkuCheck", Does: "1 has IKEv2 take a certificate with any name and usage: anybody with a certificate of the same root can play the gateway"},
	{Name: "DisableClassBasedDefaultRoute", Kind: Flag, Opposite: "ClassBasedDefaultRoute", Profile: "DisableClassBasedDefaultRoute", Does: "1 leaves out the route of the address class"},
	{Name: "PlumbIKEv2TSAsRoutes", Kind: Flag, Profile: "PlumbIKEv2TSAsRoutes", Does: "1 makes routes of the traffic selectors of the gateway"},
	{Name: "Disable_IKEv2_Fragmentation", Kind: Flag, Opposite: "IKEv2Fragmentation", Profile: "DisableIKEv2Fragmentation", Does: "1 sends IKE messages whole"},
	{Name: "PrivateNetwork", Kind: Flag, Profile: "PrivateNetwork", Does: "1 uses the private profile of the firewall"},
	{Name: "DeviceTunnel", Kind: Flag, Kept: true, Profile: "DeviceTunnel", Does: "1 for a device tunnel"},
	{Name: "AlwaysOnCapable", Kind: Flag, Profile: "AlwaysOn", Does: "1 for a connection that may connect by itself"},
	{Name: "AutoTiggerCapable", Kind: Flag, Profile: "AlwaysOn", Does: "1 for a connection with triggers; Windows misspells it"},
	{
		Name: "IpDnsFlags", Kind: Words, Words: []Word{{0, "none"}, {1, "register"}, {3, "register-suffix"}}, Profile: "RegisterDNS",
		Does: "whether the address is registered in DNS, with the connection's suffix too",
	},
	{Name: "IpPrioritizeRemote", Kind: Flag, Profile: "RoutingPolicyType", Does: "1 sends all IPv4 through the VPN (ForceTunnel)"},
	{Name: "Ipv6PrioritizeRemote", Kind: Flag, Profile: "RoutingPolicyType", Does: "1 sends all IPv6 through the VPN (ForceTunnel)"},
	{Name: "IpDnsSuffix", Kind: Text, Profile: "DnsSuffix", Does: "DNS suffix of the connection"},
	{Name: "IpNBTFlags", Kind: Flag, Does: "1 allows NetBIOS over TCP/IP"},
	{Name: "IpAssign", Kind: Words, Words: []Word{{1, "server"}, {2, "fixed"}}, Does: "where the address comes from"},
	{Name: "IpNameAssign", Kind: Words, Words: []Word{{1, "server"}, {2, "fixed"}}, Does: "where the addresses of DNS servers come from"},
	{Name: "Type", Kind: Words, Words: []Word{{1, "phone"}, {2, "vpn"}, {3, "direct"}, {5, "broadband"}}, Kept: true, Does: "what the entry is"},
	{
		Name: "DataEncryption", Kind: Words, Words: []Word{{0, "none"}, {8, "optional"}, {256, "require"}, {512, "max"}}, Profile: "DataEncryption",
		Does: "whether the connection must be encrypted",
	},
	{
		Name: "AuthRestrictions", Kind: Words, Words: []Word{{128, "eap"}, {512, "mschapv2"}, {2048, "machine-certificate"}}, Profile: "Authentication",
		Does: "how the client is known; other numbers are mixtures",
	},
	{
		Name: "CustomAuthKey", Kind: Words, Words: []Word{{0, "none"}, {13, "eap-tls"}, {25, "peap"}, {26, "eap-mschapv2"}}, Kept: true, Profile: "Eap",
		Does: "the EAP method that CustomAuthData is for",
	},
	{Name: "CustomAuthData", Kind: Binary, Kept: true, Profile: "Eap", Does: "the settings of EAP; Windows makes them"},
	{Name: "PreSharedKey", Kind: Text, Secret: true, Kept: true, Profile: "L2tpPsk", Does: "secret of L2TP"},
	{Name: "ApnInfoPassword", Kind: Text, Secret: true, Kept: true, Profile: "APNBinding", Does: "secret of mobile networks"},
	{Name: "NumCustomPolicy", Kind: Binary, Profile: "CryptographySuite", Does: "how many CustomIPSecPolicies there are"},
	{Name: "CustomIPSecPolicies", Kind: Binary, Profile: "CryptographySuite", Does: "the cryptography, see Suite"},
	{Name: "RouteVersion", Kind: Number, Most: 1, Kept: true, Does: "form of Routes"},
	{Name: "NumRoutes", Kind: Binary, Profile: "Route", Does: "how many Routes there are"},
	{Name: "Routes", Kind: Binary, Profile: "Route", Does: "networks behind the VPN"},
	{Name: "NumNrptRules", Kind: Binary, Profile: "DomainNameInformation", Does: "how many NrptRules there are"},
	{Name: "NrptRules", Kind: Binary, Profile: "DomainNameInformation", Does: "which DNS servers answer for which names"},
	{Name: "NumTrustedNetworks", Kind: Binary, Profile: "TrustedNetworkDetection", Does: "how many TrustedNetworks there are"},
	{Name: "TrustedNetworks", Kind: Binary, Profile: "TrustedNetworkDetection", Does: "networks that need no VPN, by their DNS suffixes"},
	{Name: "NumDnsSearchSuffixes", Kind: Binary, Profile: "DnsSuffix", Does: "how many DnsSuffixSearchList there are"},
	{Name: "DnsSuffixSearchList", Kind: Binary, Profile: "DnsSuffix", Does: "DNS suffixes that are tried"},
	{Name: "NumPerAppTrafficFilters", Kind: Binary, Profile: "TrafficFilter", Does: "how many PerAppTrafficFilters there are"},
	{Name: "PerAppTrafficFilters", Kind: Binary, Kept: true, Profile: "TrafficFilter", Does: "what may use the VPN, as rules of the firewall"},
	{Name: "NumServers", Kind: Binary, Kept: true, Profile: "Servers", Does: "how many servers are listed"},
	{Name: "Options", Kind: Number, Most: 1<<32 - 1, Kept: true, Profile: "DisableAdvancedOptionsEditButton, DisableDisconnectButton", Does: "bits: 8 hides the button that edits, 16 the one that disconnects; others are unknown"},
	{Name: "FlagsSet", Kind: Number, Most: 1<<32 - 1, Kept: true, Does: "which settings a profile made; unknown in detail"},
	{Name: "DeviceComplianceEnabled", Kind: Flag, Profile: "DeviceCompliance/Enabled", Does: "1 for Entra conditional access"},
	{Name: "DeviceComplianceSsoEnabled", Kind: Flag, Profile: "DeviceCompliance/Sso/Enabled", Does: "1 uses another certificate behind the VPN"},
	{Name: "DeviceComplianceSsoEku", Kind: Text, Profile: "DeviceCompliance/Sso/Eku", Does: "usage of that certificate"},
	{Name: "DeviceComplianceSsoIssuer", Kind: Text, Profile: "DeviceCompliance/Sso/IssuerHash", Does: "issuer of that certificate"},
	{Name: "UseMachineRootCert", Kind: Flag, Does: "1 trusts only one root for IKEv2"},
	{Name: "IdleDisconnectSeconds", Kind: Number, Most: 1<<31 - 1, Does: "disconnects after so many seconds without traffic; 0 is never"},
	{Name: "ExcludedProtocols", Kind: Number, Most: 1<<32 - 1, Does: "bits of network protocols that aren't used: 8 is IPv6, 4 is IPv4"},
	{Name: "ShowMonitorIconInTaskBar", Kind: Flag, Does: "1 shows an icon while connected"},
	{Name: "Encoding", Kind: Number, Most: 1, Kept: true, Does: "1 for UTF-8"},
	{Name: "PBVersion", Kind: Number, Most: 1<<32 - 1, Kept: true, Does: "form of the entry"},
	{Name: "LowDateTime", Kind: Text, Kept: true, Does: "when the entry was made"},
	{Name: "HighDateTime", Kind: Text, Kept: true, Does: "when the entry was made"},
	{Name: "DialParamsUID", Kind: Text, Kept: true, Does: "where Windows keeps the credentials"},
	{Name: "Guid", Kind: Text, Kept: true, Does: "who the connection is"},
	{Name: "PreferredPort", Kind: Text, Kept: true, Does: "port that was used last"},
	{Name: "PreferredDevice", Kind: Text, Kept: true, Does: "device that was used last"},
	{Name: "ms_msclient", Group: NetComponents, Kind: Flag, Does: "1 lets the connection use shares of others"},
	{Name: "ms_server", Group: NetComponents, Kind: Flag, Does: "1 shares with others over the connection"},
	{Name: "Port", Group: Media, Kind: Text, Kept: true, Does: "port that was used last"},
	{Name: "Device", Group: Media, Kind: Text, Kept: true, Does: "device that was used last"},
	{Name: "PhoneNumber", Group: Device, Kind: Text, Profile: "Servers", Does: "the gateway"},
	{Name: "Comment", Group: Device, Kind: Text, Does: "a remark"},
	{Name: "FriendlyName", Group: Device, Kind: Text, Does: "a name for the address"},
}

// mainOrder is the order of keys in the main group of an entry of PBVersion 8.
// A key that an entry lacks is put where it belongs.
var mainOrder = strings.Fields(`
Encoding PBVersion Type AutoLogon UseRasCredentials LowDateTime HighDateTime DialParamsUID Guid VpnStrategy
ExcludedProtocols LcpExtensions DataEncryption SwCompression NegotiateMultilinkAlways SkipDoubleDialDialog
DialMode OverridePref RedialAttempts RedialSeconds IdleDisconnectSeconds RedialOnLinkFailure CallbackMode
CustomDialDll CustomDialFunc CustomRasDialDll ForceSecureCompartment DisableIKENameEkuCheck AuthenticateServer
ShareMsFilePrint BindMsNetClient SharedPhoneNumbers GlobalDeviceSettings PrerequisiteEntry PrerequisitePbk
PreferredPort PreferredDevice PreferredBps PreferredHwFlow PreferredProtocol PreferredCompression
PreferredSpeaker PreferredMdmProtocol PreviewUserPw PreviewDomain PreviewPhoneNumber ShowDialingProgress
ShowMonitorIconInTaskBar CustomAuthKey CustomAuthData AuthRestrictions IpPrioritizeRemote IpInterfaceMetric
IpHeaderCompression IpAddress IpDnsAddress IpDns2Address IpWinsAddress IpWins2Address IpAssign IpNameAssign
IpDnsFlags IpNBTFlags TcpWindowSize UseFlags IpSecFlags IpDnsSuffix Ipv6Assign Ipv6Address Ipv6PrefixLength
Ipv6PrioritizeRemote Ipv6InterfaceMetric Ipv6NameAssign Ipv6DnsAddress Ipv6Dns2Address Ipv6Prefix
Ipv6InterfaceId DisableClassBasedDefaultRoute DisableMobility NetworkOutageTime IDI IDR ImsConfig IdiType
IdrType ProvisionType PreSharedKey CacheCredentials NumCustomPolicy CustomIPSecPolicies NumEku
UseMachineRootCert Disable_IKEv2_Fragmentation PlumbIKEv2TSAsRoutes NumServers ServerListServerName
ServerListFriendlyName RouteVersion NumRoutes Routes NumNrptRules NrptRules AutoTiggerCapable NumAppIds
NumClassicAppIds SecurityDescriptor ApnInfoProviderId ApnInfoUsername ApnInfoPassword ApnInfoAccessPoint
ApnInfoAuthentication ApnInfoCompression DeviceComplianceEnabled DeviceComplianceSsoEnabled
DeviceComplianceSsoEku DeviceComplianceSsoIssuer WebAuthEnabled WebAuthClientId FlagsSet Options
DisableDefaultDnsSuffixes NumTrustedNetworks TrustedNetworks NumDnsSearchSuffixes DnsSuffixSearchList
PowershellCreatedProfile ProxyFlags ProxySettingsModified ProvisioningAuthority AuthTypeOTP GREKeyDefined
NumPerAppTrafficFilters PerAppTrafficFilters AlwaysOnCapable DeviceTunnel PrivateNetwork ManagementApp`)

// deviceOrder is that of the group DEVICE.
var deviceOrder = strings.Fields(`
DEVICE PhoneNumber AreaCode CountryCode CountryID UseDialingRules Comment FriendlyName LastSelectedPhone
PromoteAlternates TryNextAlternateOnFail`)

func strategyWords() []Word {
	var list []Word
	for s, n := range strategyNames {
		list = append(list, Word{uint32(s), n})
	}
	slices.SortFunc(list, func(a, b Word) int { return int(a.Number) - int(b.Number) })
	return list
}

// Keys returns what is known about keys, those first that are set most.
func Keys() []Key { return slices.Clone(keyTable) }

// keyIndex finds keys by their name, and by their name in small letters.
var keyIndex = indexKeys()

func indexKeys() map[string]int {
	m := make(map[string]int, 2*len(keyTable))
	for i := range keyTable {
		m[strings.ToLower(keyTable[i].Name)] = i
	}
	for i := range keyTable {
		m[keyTable[i].Name] = i
	}
	return m
}

// LookupKey returns what is known about a key. Its name may be in any case,
// unless there are two that differ in nothing else.
func LookupKey(name string) (Key, bool) {
	i, ok := keyIndex[name]
	if !ok && !isGroupKey([]byte(name)) {
		i, ok = keyIndex[strings.ToLower(name)]
	}
	if !ok {
		return Key{}, false
	}
	return keyTable[i], true
}

// Describe returns what a value of the key means, "" if it is as it is written.
func (k *Key) Describe(value string) string {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || k.Kind != Words {
		return ""
	}
	for _, w := range k.Words {
		if w.Number == uint32(n) {
			return w.Name
		}
	}
	return ""
}

// parse returns how a value is written: it takes numbers, words, and on and off.
func (k *Key) parse(text string) (string, error) {
	switch k.Kind {
	case Flag:
		switch strings.ToLower(text) {
		case "1", "on", "yes", "true":
			return "1", nil
		case "0", "off", "no", "false":
			return "0", nil
		}
		return "", fmt.Errorf("%s can't be %.60q: it can be on or off", k.Name, text)
	case Number:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil || uint32(n) < k.Least || uint32(n) > k.Most {
			return "", fmt.Errorf("%s can't be %.60q: it is a number from %d to %d", k.Name, text, k.Least, k.Most)
		}
		return strconv.FormatUint(n, 10), nil
	case Words:
		return k.parseWord(text)
	case Binary:
		return "", fmt.Errorf("%s is a list in a form of its own, and can't be set as text", k.Name)
	}
	return text, checkValue(text)
}

func (k *Key) parseWord(text string) (string, error) {
	var names []string
	n, err := strconv.ParseUint(text, 10, 32)
	for _, w := range k.Words {
		if strings.EqualFold(w.Name, text) || err == nil && w.Number == uint32(n) {
			return strconv.FormatUint(uint64(w.Number), 10), nil
		}
		names = append(names, fmt.Sprintf("%s (%d)", w.Name, w.Number))
	}
	return "", fmt.Errorf("%s can't be %.60q: it can be %s", k.Name, text, strings.Join(names, ", "))
}

// KeysMarkdown returns the table of keys as Markdown.
func KeysMarkdown() string {
	var b strings.Builder
	b.WriteString("| key | values | in a profile | what it does |\n|---|---|---|---|\n")
	for i := range keyTable {
		k := &keyTable[i]
		name := "`" + k.Name + "`"
		if k.Group != Main {
			name = "`" + k.Group.String() + "/" + k.Name + "`"
		}
		if k.Opposite != "" {
			name += ", or its opposite `" + k.Opposite + "`"
		}
		does := k.Does
		if k.Kept {
			does += " (not changed without `--force`)"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", name, k.values(), k.Profile, does)
	}
	return b.String()
}

func (k *Key) values() string {
	switch k.Kind {
	case Flag:
		return "0, 1"
	case Number:
		return fmt.Sprintf("%d to %d", k.Least, k.Most)
	case Words:
		var list []string
		for _, w := range k.Words {
			list = append(list, fmt.Sprintf("%d `%s`", w.Number, w.Name))
		}
		return strings.Join(list, ", ")
	}
	return k.Kind.String()
}
