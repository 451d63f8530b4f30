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
	out := *c
	out.fill()
	return out
}

func (c *Check) fill() {
	c.Name = cmp.Or(c.Name, string(c.Type))
	if c.Port == 0 {
		c.Port = map[CheckType]int{CheckIKEv2: 500, CheckSSTP: 443, CheckRADIUS: 1812, CheckRadSec: 2083, CheckHTTPS: 443}[c.Type]
		switch {
		case c.Type == CheckRADIUS && c.Accounting:
			c.Port = 1813
		case c.Type == CheckHTTPS && c.PlainHTTP:
			c.Port = 80
		}
	}
	c.Interval = cmp.Or(c.Interval, Duration(5*time.Second))
	c.Timeout = cmp.Or(c.Timeout, min(Duration(2*time.Second), c.Interval))
	c.Rise, c.Fall = cmp.Or(c.Rise, 2), cmp.Or(c.Fall, 3)
	if c.Type == CheckSSTP {
		c.Expect = cmp.Or(c.Expect, 401)
	}
}

// BySource reports whether the clients of a listener of g are known by their
// addresses, rather than by what they speak.
func (g *Group) BySource(l *Listener) bool {
	return g.Affinity == AffinitySource || l.Protocol == ProtocolUDP || l.Protocol == ProtocolTCP
}
