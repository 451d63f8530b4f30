package plugins

import (
	"cmp"
	"time"
)

// SSTPPath is the resource that clients of SSTP ask for (MS-SSTP 3.2.4.1), and that
// a gateway answers a HEAD request for with 401.
const SSTPPath = "/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/"

// Usual returns c with what its zero fields mean: the usual name, port, interval,
// timeout, rise, fall and status.
func (c *Check) Usual() Check {
	u := *c
	u.Name = cmp.Or(u.Name, string(u.Type))
	if u.Port == 0 {
		u.Port = map[CheckType]int{CheckIKEv2: 500, CheckSSTP: 443, CheckRADIUS: 1812, CheckRadSec: 2083, CheckHTTPS: 443}[u.Type]
		switch {
		case u.Type == CheckRADIUS && u.Accounting:
			u.Port = 1813
		case u.Type == CheckHTTPS && u.PlainHTTP:
			u.Port = 80
		}
	}
	u.Interval = cmp.Or(u.Interval, Duration(5*time.Second))
	u.Timeout = cmp.Or(u.Timeout, min(Duration(2*time.Second), u.Interval))
	u.Rise, u.Fall = cmp.Or(u.Rise, 2), cmp.Or(u.Fall, 3)
	if u.Type == CheckSSTP {
		u.Expect = cmp.Or(u.Expect, 401)
	}
	return u
}

// BySource reports whether the clients of a listener of g are known by their
// addresses, rather than by what they speak.
func (g *Group) BySource(l *Listener) bool {
	return g.Affinity == AffinitySource || l.Protocol == ProtocolUDP || l.Protocol == ProtocolTCP
}
