package capture_test

import (
	"fmt"
	"os"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
)

// Say what went wrong in a capture.
func ExampleRead() {
	f, err := os.Open("../testdata/captures/fragments-dropped-gateway.pcap")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer f.Close()
	var t ikev2.Tracker
	if _, err := capture.Read(f, &t); err != nil {
		fmt.Println(err)
		return
	}
	for _, x := range t.Report().Findings {
		fmt.Println(x.Severity, x.ID, x.Windows)
		fmt.Println(x.Title)
	}
	// Output:
	// error auth-ip-fragments [809]
	// IKE_AUTH is too large for one packet, and its IP fragments are lost
}
