package ikev2

import (
	"fmt"
	"strings"
	"time"
)

// This file has what is remarkable about a conversation, whatever became of it.

func (d *diagnosis) remarks() {
	d.answersAsked()
	d.fragmentation()
	d.tooBig()
	d.weakness()
	d.slowness()
	d.moved()
	if c := d.c; c.truncated > 0 {
		f := d.finding(FindingTruncated, SeverityWarning, "the capture has only the beginnings of packets",
			"Of %d IKE messages only the first octets were captured, so proposals and announcements in them can't be read.", c.truncated)
		d.show(f, c.began, c.packet, "the conversation begins here")
		f.Advice = []Advice{{OnClient, "Capture whole packets.", []string{"tcpdump -s 0 -i any -w ike.pcap 'udp port 500 or udp port 4500 or ip[6:2] & 0x3fff != 0 or ip6[6] = 44 or icmp or icmp6'", "pktmon start --capture --pkt-size 0"}}}
		d.add(f)
	}
}

// answersAsked tells of cookies and groups that a gateway asked for.
func (d *diagnosis) answersAsked() {
	for _, x := range d.c.exchanges {
		if x.kind != ExchangeSAInit || x.response.notify == 0 || d.cause == FindingHalfOpenLimit || d.cause == FindingRefused {
			continue
		}
		var f *Finding
		switch x.response.notify {
		case NotifyCookie:
			f = d.finding(FindingCookie, SeverityInfo, "the gateway asks for cookies",
				"The gateway has many half-open handshakes and wants to see that the client is where it says. That costs a round trip; a balancer must bring the client back to the same gateway.")
		case NotifyInvalidKEPayload:
			f = d.finding(FindingInvalidKE, SeverityInfo, "the client guessed another group than the gateway wants",
				"The client began with %v and the gateway asked for %v, which costs a round trip. A client whose policy has one group alone guesses right.", d.firstGroup(x), d.c.wanted)
		default:
			continue
		}
		d.showResponse(f, x)
		d.add(f)
		return
	}
}

// firstGroup is the group of a request that was told to use another. Only the
// last is kept; if that is the one asked for, the first isn't known.
func (d *diagnosis) firstGroup(*round) string {
	if d.c.group == d.c.wanted {
		return "another group"
	}
	return d.c.group.String()
}

func (d *diagnosis) fragmentation() {
	c := d.c
	var cut *round
	for _, x := range c.exchanges {
		if x.request.ipFragments > 1 || x.response.ipFragments > 1 {
			cut = x
			break
		}
	}
	both := c.announced == [2]bool{true, true}
	switch {
	case d.outcome != OutcomeEstablished:
	case both && c.fragmentation[sideClient] != c.fragmentation[sideGateway]:
		f := d.finding(FindingFragmentationOneSide, SeverityWarning, "only one side announces IKE fragmentation",
			"As it is, %s: messages too large for one packet go in IP fragments, which many networks drop, and then clients fail with error 809.", d.fragmentationText())
		if cut != nil {
			f.What += " Here they arrived."
			d.show(f, cut.request.first, cut.request.packet, "%s", d.describe(cut, &cut.request, false))
		} else if x := c.lastOf(ExchangeSAInit); x != nil {
			d.showResponse(f, x)
		}
		if c.fragmentation[sideClient] {
			f.Advice = []Advice{{OnGateway, "See whether it is off.", []string{showServerFragmentation}}, adviseServerFragmentation()}
		} else {
			f.Advice = []Advice{adviseClientFragmentation()}
		}
		d.add(f)
	case cut != nil:
		f := d.finding(FindingIPFragments, SeverityInfo, "large messages went in IP fragments",
			"They arrived here, but many networks drop them. %s.", capital(d.fragmentationText()))
		d.show(f, cut.request.first, cut.request.packet, "%s", d.describe(cut, &cut.request, false))
		f.Advice = []Advice{adviseServerFragmentation(), adviseClientFragmentation()}
		d.add(f)
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (d *diagnosis) tooBig() {
	for i := range d.c.icmp {
		e := &d.c.icmp[i]
		if e.kind != ICMPTooBig {
			continue
		}
		f := d.finding(FindingPacketTooBig, SeverityWarning, "a link on the way is smaller than the packets",
			"%v says that a packet of the %v was too large for the next link", e.reporter, e.by)
		if e.mtu > 0 {
			f.What += fmt.Sprintf(", which takes %d octets", e.mtu)
		}
		f.What += ". Where such messages are dropped, large packets vanish without a trace: the tunnel comes up and then hangs, or doesn't come up at all."
		d.show(f, e.at, e.packet, "ICMP packet too big from %v", e.reporter)
		f.Advice = []Advice{
			{OnNetwork, "Let ICMP \"fragmentation needed\" (type 3, code 4) and ICMPv6 \"packet too big\" (type 2) pass.", nil},
			{OnClient, "Measure the way.", []string{testPath}},
		}
		d.add(f)
		return
	}
}

func (d *diagnosis) slowness() {
	for _, x := range d.c.exchanges {
		if !x.answered() || x.took() < slowAfter && x.request.times < slowTimes {
			continue
		}
		if x.request.times < 2 && x.took() < slowAfter {
			continue
		}
		f := d.finding(FindingSlow, SeverityWarning, "answers take seconds",
			"%v was sent %d times before its answer came: the %v is overloaded or waits for another server, or packets are lost on the way.", x.kind, x.request.times, x.by.other())
		d.showRequest(f, x)
		d.showResponse(f, x)
		f.Advice = []Advice{{OnGateway, "See whether the gateway has too little processor time, or waits for NPS, for a revocation list or for a domain controller.", nil}, adviseProbe()}
		d.add(f)
		return
	}
}

func (d *diagnosis) moved() {
	c := d.c
	if len(c.moves) == 0 {
		return
	}
	m := c.moves[0]
	first := c.lastOf(ExchangeSAInit)
	if auth := c.lastOf(ExchangeAuth); first != nil && auth != nil && len(c.moves) == 1 && !m.at.After(auth.request.first.Add(time.Millisecond)) {
		f := d.finding(FindingUnpairedNAT, SeverityInfo, "ports 500 and 4500 of a client come from different addresses",
			"The client's NAT sent UDP 500 from %v and UDP 4500 from %v. A balancer that goes by addresses takes it for two clients.", m.from.Addr(), m.to.Addr())
		d.show(f, m.at, m.packet, "comes from %v", m.to)
		f.Advice = []Advice{{OnBalancer, "Use affinity by SPI (affinity: protocol).", nil}}
		d.add(f)
		return
	}
	for _, f := range d.findings {
		if f.ID == FindingMoveLost {
			return
		}
	}
	f := d.finding(FindingMoved, SeverityInfo, "a client changed its address and kept its tunnel", "It went from %v to %v.", m.from.Addr(), m.to.Addr())
	for _, m := range c.moves[:min(len(c.moves), maxEvidence)] {
		d.show(f, m.at, m.packet, "comes from %v, no longer from %v", m.to, m.from)
	}
	d.add(f)
}
