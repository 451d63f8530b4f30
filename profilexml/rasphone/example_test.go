package rasphone_test

import (
	"fmt"

	"github.com/aovlb/aovlb/profilexml/rasphone"
)

func ExamplePhonebook_Apply() {
	book, err := rasphone.Parse([]byte("[Always On VPN]\r\nVpnStrategy=6\r\nIpInterfaceMetric=0\r\n"))
	if err != nil {
		panic(err)
	}
	metric, err := rasphone.ParseSetting("IpInterfaceMetric=3")
	if err != nil {
		panic(err)
	}
	after, changes, err := book.Apply(rasphone.Edit{
		Entries: []string{"Always On VPN"},
		Set:     []rasphone.Setting{rasphone.IKEv2SSTP.Setting(), metric},
	})
	if err != nil {
		panic(err)
	}
	for _, c := range changes {
		fmt.Println(c)
	}
	fmt.Printf("%q\n", after.Bytes())
	// Output:
	// [Always On VPN] VpnStrategy: 6 (SstpFirst) -> 14 (Ikev2Sstp)
	// [Always On VPN] IpInterfaceMetric: 0 -> 3
	// "[Always On VPN]\r\nVpnStrategy=14\r\nIpInterfaceMetric=3\r\n"
}

func ExampleEntry_Routes() {
	book, err := rasphone.Parse([]byte("[a]\r\nNumRoutes=1\r\nRoutes=0100000002000000080000000A0000000000000000000000000000000000000000000000\r\n"))
	if err != nil {
		panic(err)
	}
	for _, e := range book.Entries() {
		fmt.Println(e.Routes())
	}
	// Output: [10.0.0.0/8] <nil>
}
