package peers

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// An Acceptance is what a responder accepts at one of its addresses.
type Acceptance struct {
	// Addr is given to the Host's loopback interface. The zero Addr means any
	// that the Host has.
	Addr netip.Addr
	// IKE are proposals, as strongSwan spells them.
	IKE string
}

// Responder starts a strongSwan in the namespace that judges what it is offered in
// IKE_SA_INIT, and has no tunnels to give. settings are added to the charon section
// of strongswan.conf. It accepts nothing until Accept says what.
func (h *Host) Responder(settings map[string]string) *Swan {
	h.net.t.Helper()
	s := h.swan(settings)
	s.configure(map[string][]byte{"swanctl.conf": nil})
	s.Start()
	return s
}

// Accept sets what a responder accepts; what it accepted before counts no more.
func (s *Swan) Accept(all ...Acceptance) {
	t := s.Host.net.t
	t.Helper()
	var conf strings.Builder
	conf.WriteString("connections {\n")
	for i, a := range all {
		local := "%any"
		if a.Addr.IsValid() {
			local = a.Addr.String()
			s.Host.IP(fmt.Sprintf("address replace %v/%d dev lo", a.Addr, a.Addr.BitLen()))
		}
		fmt.Fprintf(&conf, `	p%d {
		version = 2
		local_addrs = %s
		proposals = %s
		fragmentation = yes
		local {
			auth = psk
		}
		remote {
			auth = psk
		}
	}
`, i, local, a.IKE)
	}
	conf.WriteString("}\n")
	if err := write(s.Dir, map[string][]byte{"swanctl.conf": []byte(conf.String())}); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 5*time.Second, "loading what "+s.Host.Name+" accepts", func() error {
		_, err := s.swanctl("--load-conns")
		return err
	})
}

var saCounts = regexp.MustCompile(`IKE_SAs: (\d+) total, (\d+) half-open`)

// Counts returns how many IKE SAs the daemon has, and how many of them are
// half-open.
func (s *Swan) Counts() (total, halfOpen int, err error) {
	out, err := s.swanctl("--stats")
	if err != nil {
		return 0, 0, err
	}
	m := saCounts.FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("peers: %s tells no counts: %q", s.Host.Name, out)
	}
	total, terr := strconv.Atoi(m[1])
	halfOpen, herr := strconv.Atoi(m[2])
	return total, halfOpen, errors.Join(terr, herr)
}
