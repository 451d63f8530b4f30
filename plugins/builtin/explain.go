package builtin

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
)

// maxFound bounds how many clients of one address Explain returns, per group.
const maxFound = 100

// An Explanation says where a client is or would go, in one group, and why.
type Explanation struct {
	// Group is the affinity group, Asked what was looked for in it.
	Group string `json:"group"`
	Asked string `json:"asked"`
	// Known says that the client is in the group's table; Client is then what
	// is known of it.
	Known  bool    `json:"known"`
	Client *Client `json:"client,omitempty"`
	// Backend is where its next packet goes; empty if that isn't settled.
	Backend string `json:"backend,omitempty"`
	// Steps say how that comes about, in words.
	Steps []string `json:"steps"`
}

// A Client is what a group's table knows of a client.
type Client struct {
	// Names are all that it is known by, latest first.
	Names []string `json:"names"`
	// Source is the address it was last heard from.
	Source string `json:"source"`
	// Backend is where it is, Why how it came there.
	Backend string `json:"backend"`
	Why     string `json:"why"`
	// Stage is half-open or established.
	Stage string `json:"stage"`
	// Since is when it was recorded, Seen when it was last heard of.
	Since time.Time `json:"since"`
	Seen  time.Time `json:"seen"`
	// Streams is how many open connections keep it.
	Streams int `json:"streams,omitempty"`
}

// question is a Verdict that a client might cause, and what it stands for.
type question struct {
	asked string
	v     lb.Verdict
	flow  lb.Flow
	fresh bool // about a new client; so that not being known is no answer
	part  bool // a user's name or station alone; known users mostly have both
}

// Explain says, for each group that could have it, which backend a client has
// and why, or would get. The client is an address, an address and port, an IKE
// initiator SPI (16 hex digits), an ESP SPI (8 hex digits), or a RADIUS user: the
// User-Name, a space and the Calling-Station-Id as the NAS sends them, or the one
// of them that it sends. It changes nothing.
func (d *Driver) Explain(client string) ([]Explanation, error) {
	client = strings.TrimSpace(client)
	if client == "" || len(client) > 253 {
		return nil, fmt.Errorf("builtin: explain: name a client by its address, SPI or user")
	}
	r := d.current()
	var out []Explanation
	for _, g := range r.groups {
		out = append(out, g.explain(client, r.protocols(g))...)
	}
	return out, nil
}

// protocols are those of g's listeners, with a port of each.
func (r *running) protocols(g *group) map[plugins.Protocol]uint16 {
	out := make(map[plugins.Protocol]uint16)
	for _, l := range r.listeners {
		if l.group == g {
			out[l.spec.Protocol] = l.spec.Address.Port()
		}
	}
	return out
}

func (g *group) explain(client string, has map[plugins.Protocol]uint16) []Explanation {
	var out []Explanation
	if a, ap, ok := parseAddr(client); ok {
		out = g.at(a, ap)
		if !ap.IsValid() {
			out = append(out, g.ask(g.newcomer(a, has), true)...)
		}
		return out
	}
	return g.ask(g.named(client, has), false)
}

// parseAddr reads an address, with or without a port.
func parseAddr(s string) (netip.Addr, netip.AddrPort, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap(), netip.AddrPort{}, true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
		return ap.Addr(), ap, true
	}
	return netip.Addr{}, netip.AddrPort{}, false
}

// at returns the known clients at an address, or at one port of it.
func (g *group) at(a netip.Addr, ap netip.AddrPort) []Explanation {
	var out []Explanation
	source := lb.AddrKey(a)
	for c := range g.balancer.Table.Clients() {
		if !isAt(&c, source, ap) {
			continue
		}
		asked := "address " + a.String()
		if ap.IsValid() {
			asked = "flow from " + ap.String()
		}
		out = append(out, g.known(asked, &c))
		if len(out) == maxFound {
			break
		}
	}
	return out
}

func isAt(c *lb.Client, source lb.Key, ap netip.AddrPort) bool {
	if !ap.IsValid() {
		return c.Source == source
	}
	for _, k := range c.Names {
		if k.Flow().Client == ap {
			return true
		}
	}
	return false
}

// known explains a client of the table: by its own names, as its next packet
// would be.
func (g *group) known(asked string, c *lb.Client) Explanation {
	var v lb.Verdict
	copy(v.Keys[:], c.Names)
	e := g.convert(question{asked: asked, v: v})
	return e
}

// newcomer is what a new client from a would be, for each protocol.
func (g *group) newcomer(a netip.Addr, has map[plugins.Protocol]uint16) []question {
	var out []question
	source := g.made.affinity == plugins.AffinitySource
	for proto, port := range has {
		q := question{
			asked: fmt.Sprintf("a new %s client from %v", proto, a), fresh: true,
			flow: lb.Flow{Client: netip.AddrPortFrom(a, 0), Service: port},
		}
		switch {
		case (proto == plugins.ProtocolRADIUS || proto == plugins.ProtocolRadSec) && !source:
			continue // its users don't go by address
		case (proto == plugins.ProtocolIKEv2 || proto == plugins.ProtocolSSTP) && !source:
			q.v = lb.Verdict{Begin: true, Hints: [2]lb.Key{lb.AddrKey(a)}, Pick: lb.AddrKey(a)}
		default:
			q.v, _ = lb.ByAddr{}.Sniff(nil, q.flow)
		}
		out = append(out, q)
	}
	return out
}

// named is what a text that isn't an address could name.
func (g *group) named(client string, has map[plugins.Protocol]uint16) []question {
	var out []question
	if _, ok := has[plugins.ProtocolIKEv2]; ok {
		text, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(client), "0x"), "_")
		n, err := strconv.ParseUint(text, 16, 64)
		switch {
		case err != nil:
		case len(text) == 16:
			out = append(out, question{asked: "IKE SPI " + text, v: lb.Verdict{Miss: lb.MissAsk, Keys: [lb.MaxKeys]lb.Key{ikev2.SPIKey(ikev2.SPI(n))}}})
		case len(text) == 8:
			out = append(out, question{asked: "ESP SPI " + text, v: lb.Verdict{Miss: lb.MissAsk, Keys: [lb.MaxKeys]lb.Key{ikev2.ESPKey(uint32(n))}}})
		}
	}
	for _, p := range []plugins.Protocol{plugins.ProtocolRADIUS, plugins.ProtocolRadSec} {
		if port, ok := has[p]; ok {
			out = append(out, users(client, port)...)
			break
		}
	}
	return out
}

// users are the RADIUS users that a text could name. The table knows a user by
// name and station together, so one of them finds only who has no other.
func users(client string, port uint16) []question {
	list := []question{
		userQuestion("user "+client, client, "", port),
		userQuestion("station "+client, "", client, port),
	}
	// A name may have spaces, a station has none.
	if i := strings.LastIndexByte(client, ' '); i > 0 {
		name, station := strings.TrimSpace(client[:i]), client[i+1:]
		q := userQuestion("user "+name+" at "+station, name, station, port)
		q.part = false
		list = slices.Insert(list, 0, q)
	}
	return slices.DeleteFunc(list, func(q question) bool { return q.v.Keys[0].IsZero() })
}

func userQuestion(asked, name, station string, port uint16) question {
	flow := lb.Flow{Client: netip.AddrPortFrom(netip.IPv4Unspecified(), 1), Service: port}
	v := radius.Classifier{}.Classify(accessRequest(name, station), flow)
	// Of a request only the user is known here.
	v.Keys = [lb.MaxKeys]lb.Key{v.Keys[2]}
	return question{asked: "RADIUS " + asked, v: v, flow: flow, part: true}
}

// accessRequest is an Access-Request with a User-Name and a Calling-Station-Id,
// or one of them: enough to be classified.
func accessRequest(name, station string) []byte {
	b := make([]byte, 20, 24+len(name)+len(station))
	b[0] = 1
	for attr, value := range map[byte]string{1: name, 31: station} {
		if value != "" {
			b = append(b, attr, byte(2+len(value)))
			b = append(b, value...)
		}
	}
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	return b
}

func (g *group) ask(list []question, all bool) []Explanation {
	var out []Explanation
	for _, q := range list {
		e := g.convert(q)
		if all || e.Known || len(list) == 1 {
			out = append(out, e)
		}
	}
	if len(out) == 0 && len(list) > 0 {
		out = append(out, g.convert(list[0]))
	}
	return out
}

func (g *group) convert(q question) Explanation {
	e := g.balancer.Explain(&q.v, q.flow)
	out := Explanation{Group: g.name, Asked: q.asked, Known: e.Client != nil, Steps: e.Steps}
	for i := range out.Steps {
		out.Steps[i] = g.readable(out.Steps[i], &q.v)
	}
	if e.Route.Member != nil {
		out.Backend = e.Route.Member.Name
	}
	if e.Client != nil {
		out.Client = g.client(e.Client)
	}
	if q.fresh && e.Client == nil && e.Err == nil && e.Route.Why == lb.WhyPicked && q.v.Keys[0].IsZero() {
		// Which one is picked depends on what isn't known here.
		out.Backend = ""
		out.Steps = append(out.Steps[:len(out.Steps)-1], "it would be picked a backend by a name that it brings: "+g.shares())
	}
	if q.part && e.Client == nil {
		out.Backend = ""
		out.Steps = append(out.Steps[:max(len(out.Steps)-1, 0)],
			`a user is known by both User-Name and Calling-Station-Id if the NAS sends both: ask for "NAME STATION"`)
	}
	return out
}

// shares says who takes new clients.
func (g *group) shares() string {
	v := g.pool.lb.View()
	sum := 0
	for _, m := range v.Ready {
		sum += m.Share
	}
	var parts []string
	for _, m := range v.Ready {
		parts = append(parts, fmt.Sprintf("%s %d%%", m.Name, m.Share*100/max(sum, 1)))
	}
	if len(parts) == 0 {
		return "none takes new clients"
	}
	return strings.Join(parts, ", ")
}

func (g *group) client(c *lb.Client) *Client {
	out := &Client{
		Source: c.Source.Addr().String(), Stage: c.Stage.String(), Why: c.Why.String(),
		Since: c.Since.Round(0), Seen: c.Seen.Round(0), Streams: c.Streams, Backend: "one that is gone",
	}
	if m := g.pool.lb.View().Member(c.Backend); m != nil {
		out.Backend = m.Name
	}
	for _, k := range c.Names {
		out.Names = append(out.Names, nameOf(k))
	}
	return out
}

// readable replaces the keys in a step by what they stand for.
func (g *group) readable(step string, v *lb.Verdict) string {
	for _, k := range append(v.Keys[:], v.Hints[:]...) {
		if !k.IsZero() {
			step = strings.ReplaceAll(step, k.String(), nameOf(k))
		}
	}
	return step
}

// nameOf says what a key stands for.
func nameOf(k lb.Key) string {
	_, id, _ := strings.Cut(k.String(), ":")
	switch k.Space() {
	case lb.SpaceAddr:
		return "address " + k.Addr().String()
	case lb.SpaceFlow:
		return fmt.Sprintf("flow %v to port %d", k.Flow().Client, k.Flow().Service)
	case ikev2.SpaceSPI:
		return "IKE SPI " + id
	case ikev2.SpaceESP:
		if b, err := hex.DecodeString(id); err == nil && len(b) == 8 {
			return "ESP SPI " + hex.EncodeToString(b[4:])
		}
		return "ESP SPI " + id
	case radius.SpaceUser:
		return "RADIUS user #" + id
	case radius.SpaceState:
		return "RADIUS conversation #" + id
	case radius.SpaceSession:
		return "RADIUS session #" + id
	case radius.SpaceRequest:
		return "RADIUS request #" + id
	}
	return k.String()
}
