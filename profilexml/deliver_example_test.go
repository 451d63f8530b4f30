package profilexml_test

import (
	"fmt"

	"github.com/aovlb/aovlb/profilexml"
)

func ExampleDelivery() {
	doc, err := profilexml.NewDeviceTunnel("vpn.example.com").Document(profilexml.OrderReadback)
	if err != nil {
		panic(err)
	}
	d := &profilexml.Delivery{Name: "Device Tunnel", Document: doc}
	uri, err := d.OMAURI()
	if err != nil {
		panic(err)
	}
	fmt.Println(uri)
	delivered, err := d.Profile()
	if err != nil {
		panic(err)
	}
	fmt.Println(delivered.Text[:60])
	// Output:
	// ./Device/Vendor/MSFT/VPNv2/Device%20Tunnel/ProfileXML
	// <VPNProfile><AlwaysOn>true</AlwaysOn><DeviceTunnel>true</Dev
}

func ExampleServerSetup() {
	s := profilexml.ServerSetup{UserMethods: []string{"EAP"}, NoRestart: true}
	script, err := s.Script()
	if err != nil {
		panic(err)
	}
	fmt.Print(script)
	// Output:
	// # Sets up an RRAS gateway for Always On VPN. It must be run on it as an administrator.
	// $ErrorActionPreference = 'Stop'
	// Set-VpnAuthProtocol `
	//     -UserAuthProtocolAccepted EAP `
	//     -PassThru
}
