package builtin

import (
	"net"
	"net/netip"
	"testing"

	"github.com/aovlb/aovlb/sstp"
)

// turned returns a driver in whose renewal ras1 is done, and ras2, which gets no
// new clients, waits for the one that it has to leave.
func (s *ringSite) turned() *Driver {
	s.t.Helper()
	s.hooks()
	l := &s.dep.Sites[0].Groups[0].Listeners[0]
	l.BackendPort = s.dep.Sites[0].Pools[0].Checks[0].Port
	file := s.dep.Sites[0].Certificates[0].CertFile
	newRingCert(s.t, file)
	d, _ := s.serve()
	stay(s.t, d, l.Address, "ras2")
	next := newRingCert(s.t, file)
	s.apply(d)
	waitRing(s.t, d, "ras2's turn", func(c CertificateStats) bool {
		return expects(c, "ras1") == next && c.Renewal.Gateways[1].Phase == sstp.PhaseEmptying
	})
	return d
}

// stay connects until a backend has a client.
func stay(t *testing.T, d *Driver, at netip.AddrPort, backend string) {
	t.Helper()
	for range 64 {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if _, err := c.Write([]byte("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		st, err := d.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range st.Pools[0].Backends {
			if b.Name == backend && b.Clients != nil && *b.Clients > 0 {
				return
			}
		}
	}
	t.Fatalf("no client came to %s", backend)
}

func backendState(t *testing.T, d *Driver, name string) string {
	t.Helper()
	st, err := d.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range st.Pools[0].Backends {
		if b.Name == name {
			return string(b.State)
		}
	}
	return ""
}

// TestRenewalTurnedBack: the way back is taken while the second gateway is
// emptied. It still has the hash of before, so it serves again at once, and the
// first one can be changed.
func TestRenewalTurnedBack(t *testing.T) {
	s := newRingSite(t)
	d := s.turned()
	if err := d.Renew(t.Context(), "", true); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the second gateway's return", func(CertificateStats) bool { return backendState(t, d, "ras2") == "up" })
	c := waitRing(t, d, "the way back", func(c CertificateStats) bool { return c.Renewal.Gateways[0].Phase > sstp.PhaseWaiting })
	old := expects(c, "ras2")
	if c.Renewal.To != old {
		t.Errorf("ras2 is held to expect %v, and the way back is to %v", old, c.Renewal.To)
	}
	// The file still has the newer certificate. To read it again is no reason to
	// turn round once more, nor is that to be done by itself later.
	s.apply(d)
	if c = d.Certificates()[0]; c.Renewal.To != old {
		t.Fatal("a reload has turned the renewal round")
	}
	c = waitRing(t, d, "the end", func(c CertificateStats) bool { return !c.Renewal.Ended.IsZero() })
	s.apply(d)
	if c = d.Certificates()[0]; c.Renewal.To != old || c.Ring.Current != old {
		t.Errorf("a reload has begun a renewal to %v", c.Renewal.To)
	}
	// Until somebody wants it.
	if err := d.Renew(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the newer certificate", func(c CertificateStats) bool { return expects(c, "ras1") != old && c.Renewal.To != old })
}

// TestRenewalOvertaken: a newer certificate comes while the second gateway is
// emptied for the one before.
func TestRenewalOvertaken(t *testing.T) {
	s := newRingSite(t)
	d := s.turned()
	newest := newRingCert(t, s.dep.Sites[0].Certificates[0].CertFile)
	s.apply(d)
	waitRing(t, d, "the newest at ras1", func(c CertificateStats) bool { return expects(c, "ras1") == newest })
}

// TestRenewalOvertakenAndKilled: a gateway is being changed when a newer
// certificate comes and waits for its administrator, and then the process ends. The
// next one must not lead clients to that gateway, whose hash nobody knows.
func TestRenewalOvertakenAndKilled(t *testing.T) {
	s := newRingSite(t)
	file := s.dep.Sites[0].Certificates[0].CertFile
	newRingCert(t, file)
	d, end := s.serve()
	newRingCert(t, file)
	s.apply(d)
	if err := d.Renew(t.Context(), "", false); err != nil {
		t.Fatal(err)
	}
	waitRing(t, d, "the question", func(c CertificateStats) bool { return c.Waiting == "ras1" })
	newRingCert(t, file)
	s.apply(d)
	c := waitRing(t, d, "the newest", func(c CertificateStats) bool { return c.Renewal.Paused })
	if g := c.Renewal.Gateways[0]; g.Gateway != "ras1" || g.Phase != sstp.PhaseWaiting {
		t.Fatalf("got %+v", g)
	}
	if got := backendState(t, d, "ras1"); got == "up" {
		t.Error("ras1 gets clients, and nobody knows its hash")
	}
	end()
	d, _ = s.serve()
	waitRing(t, d, "ras2", func(CertificateStats) bool { return backendState(t, d, "ras2") == "up" })
	if got := backendState(t, d, "ras1"); got == "up" {
		t.Error("after a restart ras1 gets clients, and nobody knows its hash")
	}
}
