package ikev2

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Report is what a Tracker makes of all that it has seen. It is plain data.
type Report struct {
	// Began and Ended are the times of the first and the last event.
	Began time.Time `json:"began"`
	Ended time.Time `json:"ended"`
	// Counts are what was seen.
	Counts Counts `json:"counts"`
	// Conversations are in the order in which they began, Findings in that of
	// their severity.
	Conversations []Summary `json:"conversations"`
	Findings      []Finding `json:"findings"`
}

// An Outcome says what became of a conversation.
type Outcome uint8

const (
	// OutcomeOpen: it isn't clear.
	OutcomeOpen Outcome = iota
	// OutcomeEstablished: there is, or was, a tunnel.
	OutcomeEstablished
	// OutcomeFailed: there was none.
	OutcomeFailed
)

func (o Outcome) String() string {
	switch o {
	case OutcomeOpen:
		return "open"
	case OutcomeEstablished:
		return "established"
	case OutcomeFailed:
		return "failed"
	}
	return fmt.Sprintf("Outcome(%d)", uint8(o))
}

// MarshalText returns the Outcome as String does.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// A Summary is one conversation: an IKE SA, with those it was renewed by.
type Summary struct {
	// SPI is the initiator SPI it began with, SPIs all of them.
	SPI  string   `json:"spi"`
	SPIs []string `json:"spis"`
	// Client and Gateway are where they were last.
	Client  netip.AddrPort `json:"client"`
	Gateway netip.AddrPort `json:"gateway"`
	// Names of the gateways that IKE_SA_INIT and IKE_AUTH came to, as far as
	// known: an address, or what the balancer calls them.
	InitAt string `json:"initAt,omitempty"`
	AuthAt string `json:"authAt,omitempty"` // likewise
	// Midway says that its beginning wasn't seen.
	Midway  bool      `json:"midway,omitempty"`
	Began   time.Time `json:"began"`
	Ended   time.Time `json:"ended"` // of the last packet
	Outcome Outcome   `json:"outcome"`
	// Cause is the finding that made it fail.
	Cause FindingID `json:"cause,omitempty"`
	// Suite is what was agreed on, Offer what the client offered.
	Suite string   `json:"suite,omitempty"`
	Offer []string `json:"offer,omitempty"`
	// ClientFragmentation and GatewayFragmentation say who announced IKE
	// fragmentation; ClientNAT and GatewayNAT whose address isn't what the
	// other side sees, or who pretends so.
	ClientFragmentation  bool `json:"clientFragmentation"`
	GatewayFragmentation bool `json:"gatewayFragmentation"`
	ClientNAT            bool `json:"clientNAT"`
	GatewayNAT           bool `json:"gatewayNAT"`
	// ClientVendors and GatewayVendors are who they say made them.
	ClientVendors  []string `json:"clientVendors,omitempty"`
	GatewayVendors []string `json:"gatewayVendors,omitempty"`
	// ESPFromClient and ESPFromGateway count packets of the tunnel.
	ESPFromClient  uint64 `json:"espFromClient"`
	ESPFromGateway uint64 `json:"espFromGateway"`
	// Renewals and Moves count new SPIs and changes of address.
	Renewals int `json:"renewals"`
	Moves    int `json:"moves"`
	// Steps are the timeline.
	Steps []Step `json:"steps"`
}

// A Step is one line of a timeline.
type Step struct {
	// Packet is its number in the capture; 0 if it has none.
	Packet int `json:"packet,omitempty"`
	// Time is when that was, At how long after the first event of all.
	Time time.Time `json:"time"`
	At   Seconds   `json:"at"`
	// From is "client", "gateway" or "network".
	From string `json:"from"`
	// Text says what happened.
	Text string `json:"text"`
}

// Report says what happened in all conversations that are kept, up to the last
// event.
func (t *Tracker) Report() *Report {
	r := &Report{Began: t.began, Ended: t.end, Counts: t.count, Conversations: []Summary{}, Findings: []Finding{}}
	var all []Finding
	for _, c := range t.conversations() {
		d := diagnosis{c: c, began: t.began, end: t.end, blind: t.NoESP}
		d.run()
		r.Conversations = append(r.Conversations, d.summary())
		all = append(all, d.findings...)
	}
	r.Findings = merge(all)
	if r.Findings == nil {
		r.Findings = []Finding{}
	}
	return r
}

// Bounds of what a merged Finding lists.
const (
	maxEvidence = 12
	maxListed   = 8
)

// merge makes one Finding of those that differ only in the conversation.
func merge(all []Finding) []Finding {
	var out []Finding
	for _, f := range all {
		i := slices.IndexFunc(out, func(o Finding) bool { return o.ID == f.ID && o.Severity == f.Severity && o.What == f.What })
		if i < 0 {
			out = append(out, f)
			continue
		}
		o := &out[i]
		o.Times += f.Times
		o.Evidence = append(o.Evidence, f.Evidence[:min(len(f.Evidence), maxEvidence-min(len(o.Evidence), maxEvidence))]...)
		if len(o.SPIs) < maxListed {
			o.SPIs = append(o.SPIs, f.SPIs...)
		}
		for _, a := range f.Clients {
			if len(o.Clients) < maxListed && !slices.Contains(o.Clients, a) {
				o.Clients = append(o.Clients, a)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return int(b.Severity) - int(a.Severity) })
	return out
}

func (d *diagnosis) summary() Summary {
	c := d.c
	s := Summary{
		SPI: c.sas[0].spi.String(), Client: c.client, Gateway: c.gateway, InitAt: c.initAt, AuthAt: c.authAt,
		Midway: c.midway, Began: c.began, Ended: c.last, Outcome: d.outcome, Cause: d.cause,
		ClientFragmentation: c.fragmentation[sideClient], GatewayFragmentation: c.fragmentation[sideGateway],
		ClientNAT: c.nat[sideClient], GatewayNAT: c.nat[sideGateway],
		ClientVendors: slices.Clone(c.vendors[sideClient]), GatewayVendors: slices.Clone(c.vendors[sideGateway]),
		ESPFromClient: c.esp[sideClient], ESPFromGateway: c.esp[sideGateway],
		Renewals: len(c.sas) - 1, Moves: len(c.moves), Steps: d.steps(),
	}
	for _, a := range c.sas {
		s.SPIs = append(s.SPIs, a.spi.String())
	}
	if len(c.suite.Transforms) > 0 {
		s.Suite = c.suite.String()
	}
	for _, p := range c.offered() {
		s.Offer = append(s.Offer, p.String())
	}
	return s
}

// steps is the timeline of the conversation.
func (d *diagnosis) steps() []Step {
	var out []Step
	add := func(at time.Time, packet int, from, text string) {
		out = append(out, Step{Packet: packet, Time: at, At: d.at(at), From: from, Text: text})
	}
	c := d.c
	for _, x := range c.exchanges {
		if x.request.seen() {
			add(x.request.first, x.request.packet, x.by.String(), d.describe(x, &x.request, false))
		}
		if x.response.seen() {
			add(x.response.first, x.response.packet, x.by.other().String(), d.describe(x, &x.response, true))
		}
	}
	for _, m := range c.moves {
		add(m.at, m.packet, "client", fmt.Sprintf("comes from %v, no longer from %v", m.to, m.from))
	}
	for _, i := range c.icmp {
		text := fmt.Sprintf("ICMP from %v: %v, about a datagram of the %v", i.reporter, i.kind, i.by)
		if i.mtu > 0 {
			text += fmt.Sprintf("; the next link takes %d octets", i.mtu)
		}
		add(i.at, i.packet, "network", text)
	}
	slices.SortStableFunc(out, func(a, b Step) int { return a.Time.Compare(b.Time) })
	return out
}

// describe puts a flight into words.
func (d *diagnosis) describe(x *round, f *flight, response bool) string {
	var b strings.Builder
	what := "request"
	if response {
		what = "response"
	}
	fmt.Fprintf(&b, "%v %s %d, %d octets", x.kind, what, x.id, f.size())
	fmt.Fprintf(&b, ", port %d", f.port)
	if n := f.fragments.Total(); n > 0 {
		fmt.Fprintf(&b, ", %d IKE fragments", n)
		if !f.fragments.Whole() {
			fmt.Fprintf(&b, " of which %s never came", f.fragments.Missing())
		}
	}
	if f.ipFragments > 1 {
		fmt.Fprintf(&b, ", in %d IP fragments", f.ipFragments)
	}
	if f.incomplete > 0 {
		fmt.Fprintf(&b, ", %s without its other IP fragments", times(f.incomplete))
	}
	if f.notify != 0 {
		fmt.Fprintf(&b, ": %v", f.notify)
		if f.notify == NotifyInvalidKEPayload {
			fmt.Fprintf(&b, ", wants %v", d.c.wanted)
		}
	}
	if f.cookie {
		b.WriteString(", with the cookie")
	}
	if f.times > 1 {
		fmt.Fprintf(&b, ", sent %d times until %v", f.times, d.at(f.last))
	}
	switch {
	case response:
		fmt.Fprintf(&b, ", after %v", x.took().Round(10*time.Microsecond))
		if x.intoRekey {
			b.WriteString(": a new IKE SA")
		}
	case d.unanswered(x):
		b.WriteString(", never answered")
	}
	return b.String()
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func (d *diagnosis) at(t time.Time) Seconds { return Seconds(t.Sub(d.began)) }
