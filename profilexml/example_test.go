package profilexml_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/aovlb/aovlb/profilexml"
)

// A profile that was typed by hand is checked, and fixed where that is safe.
func ExampleChecker() {
	d, err := profilexml.ParseString(`<VPNProfile>
  <AlwaysOn>True</AlwaysOn>
  <TrustedNetworkDetection>corp.example.com</TrustedNetworkDetection>
  <DeviceTunnel>true</DeviceTunnel>
  <NativeProfile>
    <Servers>vpn.example.com;vpn.example.com</Servers>
    <RoutingPolicyType>ForceTunnel</RoutingPolicyType>
    <NativeProtocolType>IKEv2</NativeProtocolType>
    <Authentication>
      <MachineMethod>Certificate</MachineMethod>
    </Authentication>
  </NativeProfile>
</VPNProfile>`)
	if err != nil {
		fmt.Println(err)
		return
	}
	c := &profilexml.Checker{Windows: profilexml.Windows11v23H2}
	for _, f := range c.Check(d) {
		fmt.Println(f.String())
	}
	d, fixed, err := c.Fix(d)
	fmt.Println(len(fixed), err)
	fmt.Println(d.Text[:strings.Index(d.Text, "  <Trusted")])
	// Output:
	// 2:13: error AOV017: "True" must be written true
	// 4:3: info AOV610: it works on the editions Enterprise and Education only
	// 4:3: warning AOV016: <DeviceTunnel> stands behind <TrustedNetworkDetection>, and Windows reads it back before
	// 5:3: warning AOV120: without <CryptographySuite> Windows offers 3DES, SHA1 and DH group 2 first
	// 7:24: error AOV603: a device tunnel can't be a force tunnel
	// 2 <nil>
	// <VPNProfile>
	//   <AlwaysOn>true</AlwaysOn>
	//   <DeviceTunnel>true</DeviceTunnel>
}

// A device tunnel as it is recommended, laid out for Intune.
func ExampleNewDeviceTunnel() {
	p := profilexml.NewDeviceTunnel("vpn.example.com")
	p.Route = []profilexml.Route{profilexml.RouteTo(netip.MustParsePrefix("10.0.0.1/32"))}
	p.NativeProfile.CryptographySuite = nil
	d, err := p.Document(profilexml.OrderReadback)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(profilexml.Format(d, profilexml.ChannelStyle()).Text)
	// Output:
	// <VPNProfile><AlwaysOn>true</AlwaysOn><DeviceTunnel>true</DeviceTunnel><NativeProfile><Servers>vpn.example.com;vpn.example.com</Servers><RoutingPolicyType>SplitTunnel</RoutingPolicyType><NativeProtocolType>IKEv2</NativeProtocolType><Authentication><MachineMethod>Certificate</MachineMethod></Authentication><DisableClassBasedDefaultRoute>true</DisableClassBasedDefaultRoute></NativeProfile><Route><Address>10.0.0.1</Address><PrefixSize>32</PrefixSize><Metric>1</Metric></Route></VPNProfile>
}

// What Windows reads back is compared with what was sent.
func ExampleDiff() {
	sent, err := profilexml.ParseString("<VPNProfile><AlwaysOn>true</AlwaysOn><DnsSuffix>corp.example.com</DnsSuffix></VPNProfile>")
	if err != nil {
		fmt.Println(err)
		return
	}
	back, err := profilexml.ParseString("<VPNProfile><DnsSuffix>corp.example.com</DnsSuffix><RegisterDNS>true</RegisterDNS></VPNProfile>")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, d := range profilexml.Diff(sent, back, profilexml.DiffOptions{Readback: true}) {
		fmt.Println(d.Text)
	}
	// Output:
	// AlwaysOn is gone: it was true
	// RegisterDNS is new: true
}
