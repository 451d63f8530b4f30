package sstp_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/sstp"
)

func ExampleProber() {
	gateway := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer gateway.Close()

	var check lb.Prober = &sstp.Prober{}
	err := check.Probe(context.Background(), netip.MustParseAddrPort(gateway.Listener.Addr().String()))
	fmt.Println(err)
	// Output:
	// sstp: HTTP status 503, want 401: the web server answers, but the SSTP service behind it doesn't; is the SstpSvc service running, and has it free ports? A balancer that reaches no gateway answers so too
}

func ExampleProber_Ask() {
	gateway := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Server", "Microsoft-HTTPAPI/2.0")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer gateway.Close()

	p := sstp.Prober{ServerName: "example.com"}
	res, err := p.Ask(context.Background(), netip.MustParseAddrPort(gateway.Listener.Addr().String()))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(res.Status, res.Server)
	fmt.Println("hash for the gateway's registry:", len(res.Fingerprint()), "hex digits")
	// Output:
	// 401 Microsoft-HTTPAPI/2.0
	// hash for the gateway's registry: 64 hex digits
}

func ExampleSniffer() {
	f := lb.Flow{Client: netip.MustParseAddrPort("192.0.2.7:50123"), Service: 443}
	v, more := sstp.Sniffer{Affinity: sstp.AffinitySource}.Sniff(nil, f)
	fmt.Println(v.Keys[0], more)
	// Output: 192.0.2.7 0
}
