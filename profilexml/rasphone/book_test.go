package rasphone

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// fixture reads a phone book of testdata.
func fixture(t testing.TB, name string) *Phonebook {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, string(b))
}

func mustParse(t testing.TB, text string) *Phonebook {
	t.Helper()
	p, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// windowsEntry returns an entry with all the keys that Windows 11 writes, in its
// order, with CR LF. Values are by key; others are 0 or empty.
func windowsEntry(name string, values map[string]string) string {
	defaults := map[string]string{
		"Encoding": "1", "PBVersion": "8", "Type": "2", "UseRasCredentials": "1", "VpnStrategy": "7", "DataEncryption": "256", "AuthRestrictions": "128",
		"LowDateTime": "-1234567890", "HighDateTime": "31112345", "DialParamsUID": "12345678", "Guid": "0123456789ABCDEF0123456789ABCDEF",
		"PreferredPort": "VPN2-0", "PreferredDevice": "WAN Miniport (IKEv2)", "IpAddress": "0.0.0.0", "Ipv6Address": "::", "RouteVersion": "1",
		"IpAssign": "1", "IpNameAssign": "1",
	}
	empty := " CustomDialDll CustomDialFunc CustomRasDialDll PrerequisiteEntry PrerequisitePbk IpDnsSuffix IDI IDR PreSharedKey SecurityDescriptor " +
		"ApnInfoProviderId ApnInfoUsername ApnInfoPassword ApnInfoAccessPoint DeviceComplianceSsoEku DeviceComplianceSsoIssuer WebAuthClientId " +
		"ProvisioningAuthority ManagementApp "
	var b strings.Builder
	line := func(k, v string) { b.WriteString(k + "=" + v + "\r\n") }
	b.WriteString("[" + name + "]\r\n")
	for _, k := range mainOrder {
		switch k {
		case "CustomAuthData", "CustomIPSecPolicies", "Routes", "NrptRules", "TrustedNetworks", "DnsSuffixSearchList", "PerAppTrafficFilters", "ServerListServerName", "ServerListFriendlyName":
			for v := range strings.SplitSeq(values[k], " ") {
				if v != "" {
					line(k, v)
				}
			}
			continue
		}
		v, ok := values[k]
		if !ok {
			v, ok = defaults[k]
		}
		if !ok && !strings.Contains(empty, " "+k+" ") {
			v = "0"
		}
		line(k, v)
	}
	b.WriteString("\r\nNETCOMPONENTS=\r\nms_msclient=1\r\nms_server=1\r\n\r\nMEDIA=rastapi\r\nPort=VPN2-0\r\nDevice=WAN Miniport (IKEv2)\r\n\r\nDEVICE=vpn\r\n")
	for _, k := range deviceOrder[1:] {
		v := values[k]
		if k == "PhoneNumber" && v == "" {
			v = "vpn.example.com"
		}
		line(k, v)
	}
	b.WriteString("\r\n")
	return b.String()
}

// crowd returns a phone book of n entries.
func crowd(n int) []byte {
	var b strings.Builder
	for i := range n {
		b.WriteString(windowsEntry(fmt.Sprintf("VPN %d", i), nil))
	}
	return []byte(b.String())
}
