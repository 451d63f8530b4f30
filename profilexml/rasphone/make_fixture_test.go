package rasphone

import (
	"net/netip"
	"os"
	"strings"
	"testing"
)

// TestMakeFixture makes testdata/office.pbk anew if it is asked to: a phone book
// in the form of Windows 11, with a device tunnel, a user tunnel with everything,
// and one that a script has damaged.
func TestMakeFixture(t *testing.T) {
	if os.Getenv("UPDATE") == "" {
		t.Skip("testdata/office.pbk is only made anew with UPDATE=1 in the environment")
	}
	lines := func(b []byte) string { return strings.Join(EncodeBinary(b), " ") }
	must := func(b []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return lines(b)
	}
	p := netip.MustParsePrefix
	a := netip.MustParseAddr
	text := windowsEntry("Device Tunnel", map[string]string{"DeviceTunnel": "1", "AuthRestrictions": "2048", "AlwaysOnCapable": "1", "PrivateNetwork": "1"}) +
		windowsEntry("Always On – Büro", map[string]string{
			"VpnStrategy": "6", "CustomAuthKey": "25", "NumCustomPolicy": "1", "CustomIPSecPolicies": lines(EncodePolicies([]Policy{{2, 5, 3, 6, 3, 4}})),
			"NumServers": "2", "ServerListServerName": "vpn1.example.com vpn2.example.com", "ServerListFriendlyName": "One Two",
			"NumRoutes": "3", "Routes": must(EncodeRoutes([]Route{{Prefix: p("10.0.0.0/8"), Metric: 1}, {Prefix: p("10.9.0.0/16"), Exclude: true, Metric: 1}, {Prefix: p("2001:db8::/32"), Metric: 5}})),
			"NumNrptRules": "2", "NrptRules": must(EncodeNameRules([]NameRule{{Type: SuffixRule, Name: ".corp.example.com", Servers: []netip.Addr{a("10.0.0.53"), a("2001:db8::53")}}, {Type: SuffixRule, Name: ".cloud.example.com"}})),
			"NumTrustedNetworks": "1", "TrustedNetworks": must(EncodeNames([]string{"corp.example.com"})),
			"NumDnsSearchSuffixes": "2", "DnsSuffixSearchList": must(EncodeNames([]string{"corp.example.com", "bücher.example"})),
			"IpInterfaceMetric": "3", "NetworkOutageTime": "1800", "AlwaysOnCapable": "1", "Options": "2", "FlagsSet": "8419",
		}) +
		strings.Replace(windowsEntry("B?ro", map[string]string{
			"VpnStrategy": "15", "DisableIKENameEkuCheck": "1", "DisableMobility": "1", "NetworkOutageTime": "60", "NumRoutes": "12", "NumTrustedNetworks": "1",
			"TrustedNetworks": "00", "DataEncryption": "8", "IpInterfaceMetric": "10000",
		}), "ShowMonitorIconInTaskBar=0\r\n", "ShowMonitorIconInTaskBar=0\nUseRasCredentials=0 \nnetworkOutagetime=5\r\nwhat\r\n", 1)
	if err := os.WriteFile("testdata/office.pbk", []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
