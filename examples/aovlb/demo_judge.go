package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aovlb/aovlb/internal/standin"
)

// demoSummary is what came of a demo.
type demoSummary struct {
	// Kept says that every promise was.
	Kept bool `json:"kept"`
	// Seconds is how long it took.
	Seconds  float64       `json:"seconds"`
	Promises []demoPromise `json:"promises"`
	// Gateways are the totals in the gateways' and servers' books.
	Gateways []demoTotals `json:"gateways"`
	Servers  []demoTotals `json:"servers"`
}

// demoPromise is one promise, and what happened.
type demoPromise struct {
	Name    string `json:"name"`
	Promise string `json:"promise"`
	Kept    bool   `json:"kept"`
	Found   string `json:"found"`
}

// demoTotals are the totals of one host.
type demoTotals struct {
	Name     string              `json:"name"`
	Sessions int                 `json:"sessions"`
	Packets  uint64              `json:"packets"`
	IKE      *standin.IKECounts  `json:"ike,omitempty"`
	SSTP     *standin.SSTPCounts `json:"sstp,omitempty"`
	NPS      *standin.NPSCounts  `json:"nps,omitempty"`
}

// settle is how long after a drain a packet may still be under way.
const settle = 100 * time.Millisecond

// judge compares what was promised with what the hosts' books say.
func (p *demoPlay) judge() *demoSummary {
	s := &demoSummary{Kept: true, Seconds: time.Since(p.began).Round(10 * time.Millisecond).Seconds()}
	add := func(name, promise string, kept bool, found string, args ...any) {
		s.Promises = append(s.Promises, demoPromise{name, promise, kept, fmt.Sprintf(found, args...)})
		s.Kept = s.Kept && kept
	}
	p.judgeArrival(add)
	p.judgeTravel(add)
	p.judgeDrain(add)
	p.judgeKill(add)
	p.judgeRevival(add)
	p.judgeUsers(add)
	for _, h := range p.world.gateways {
		ike, sstp := h.ike.Counts(), h.sstp.Counts()
		t := demoTotals{Name: h.name, IKE: &ike, SSTP: &sstp}
		t.count(append(h.ike.Sessions(), h.sstp.Sessions()...))
		s.Gateways = append(s.Gateways, t)
	}
	for _, h := range p.world.servers {
		nps := h.nps.Counts()
		t := demoTotals{Name: h.name, NPS: &nps}
		t.count(h.nps.Sessions())
		s.Servers = append(s.Servers, t)
	}
	return s
}

func (t *demoTotals) count(list []standin.Session) {
	t.Sessions = len(list)
	for _, s := range list {
		t.Packets += s.Packets
	}
}

// addPromise takes a promise and what was found.
type addPromise func(name, promise string, kept bool, found string, args ...any)

func (p *demoPlay) judgeArrival(add addPromise) {
	crowd, where := &p.world.crowd, p.arrived.where()
	last := p.began
	for _, v := range p.arrived.visits {
		if v.Established.After(last) {
			last = v.Established
		}
	}
	want := crowd.first + demoSSTP
	add("arrival", "every client is let in", len(where) == want,
		"%d of %d clients were connected after %s", len(where), want, seconds(last.Sub(p.began)))

	var begun, split uint64
	for _, h := range p.world.gateways {
		c := h.ike.Counts()
		begun += c.Begun
		split += c.SplitAuth
	}
	add("ports", "UDP 500 and 4500 of a client lead to the same gateway", split == 0 && where[crowd.unpaired] != "",
		"%d handshakes began on 500 and moved to 4500, one of them from another address; %s",
		begun, noneOf(split, "reached another gateway"))

	at := make(map[string]int)
	for c := range crowd.behindNAT {
		if host := where[c]; host != "" {
			at[host]++
		}
	}
	counts := slices.Sorted(maps.Values(at))
	total := 0
	for _, n := range counts {
		total += n
	}
	// The first few stay together on purpose: they could be tunnels of one computer.
	add("nat", "clients behind one address spread over the gateways", len(at) > 1,
		"%d clients behind one address were at %d gateways: %s", total, len(at), sums(counts))

	together := func(b demoBooks) bool {
		m := b.where()
		return m[crowd.pair[0]] != "" && m[crowd.pair[0]] == m[crowd.pair[1]]
	}
	ok := together(p.arrived) && together(p.killed) && together(p.returned) && together(p.ended)
	found := "they were at one gateway, and when it died they came back at one"
	if !ok {
		found = "they were at different gateways, or at none"
	}
	add("pair", "the device tunnel and the user tunnel of one computer stay together", ok, found)
}

func (p *demoPlay) judgeTravel(add addPromise) {
	crowd := &p.world.crowd
	before, after := p.arrived.where(), p.travelled.where()
	good := 0
	for _, m := range crowd.movers {
		name, moved := m.tunnel.Name, false
		for _, v := range p.travelled.of(name) {
			moved = moved || v.Moves > 0
		}
		if moved && before[name] != "" && before[name] == after[name] && p.travelled.began(name) == 1 {
			good++
		}
	}
	add("move", "who changes to another network keeps the gateway", good == len(crowd.movers),
		"%d of %d did, one of them with an SPI that no packet had shown yet", good, len(crowd.movers))
}

func (p *demoPlay) judgeDrain(add addPromise) {
	kept, had := 0, 0
	for client, host := range p.drained.where() {
		if host != p.drainee.name {
			continue
		}
		had++
		before, _ := p.drained.now(client)
		after, ok := p.undrained.now(client)
		if ok && after.host == host && after.Packets > before.Packets && p.undrained.began(client) == p.drained.began(client) {
			kept++
		}
	}
	add("drain-keeps", "a drained gateway keeps its clients", kept == had && had > 0, "%d of %d clients of %s went on there", kept, had, p.drainee.name)

	since, taken := p.drained.at.Add(settle), 0
	for _, v := range p.undrained.visits {
		if v.host == p.drainee.name && !v.Rekeyed && v.Begun.After(since) {
			taken++
		}
	}
	where, elsewhere := p.undrained.where(), 0
	for _, client := range p.late {
		if where[client] != "" && where[client] != p.drainee.name {
			elsewhere++
		}
	}
	add("drain-takes", "and takes no new ones", taken == 0 && elsewhere == len(p.late),
		"%s, %d of %d new clients were at others", noneOf(uint64(taken), "came to "+p.drainee.name), elsewhere, len(p.late))
}

func (p *demoPlay) judgeKill(add addPromise) {
	where := p.killed.where()
	var times []time.Duration
	lost, others, kept := 0, 0, 0
	var packets, missing uint64
	for client, host := range where {
		if host == p.victim.name {
			lost++
			if now, ok := p.returned.now(client); ok && now.host != p.victim.name && now.Established.After(p.killed.at) {
				times = append(times, now.Established.Sub(p.killed.at))
			}
			continue
		}
		others++
		before, _ := p.killed.now(client)
		after, ok := p.returned.now(client)
		if ok && after.host == host && after.Packets > before.Packets && p.returned.began(client) == p.killed.began(client) {
			kept++
			packets += after.Packets - before.Packets
			if after.Highest > 0 {
				missing += (after.Highest - after.Packets) - (before.Highest - before.Packets)
			}
		}
	}
	slices.Sort(times)
	found := fmt.Sprintf("%d of %d clients of %s were back", len(times), lost, p.victim.name)
	if len(times) > 0 {
		found += fmt.Sprintf(" after %s (median; %s at most)", seconds(times[len(times)/2]), seconds(times[len(times)-1]))
	}
	add("kill-returns", "when a gateway dies, its clients come back at others", len(times) == lost && lost > 0, "%s", found)
	add("kill-others", "and the others notice nothing", kept == others && others > 0 && missing*100 <= packets,
		"%d of %d clients of living gateways kept theirs; %d of their %d packets got lost", kept, others, missing, packets+missing)
}

func (p *demoPlay) judgeRevival(add addPromise) {
	where := p.ended.where()
	here, connected := 0, 0
	for _, client := range p.fresh {
		if where[client] != "" {
			connected++
		}
		if where[client] == p.victim.name {
			here++
		}
	}
	add("revival", "a gateway that lives again is used again", here > 0 && connected == len(p.fresh),
		"%s took %d of %d new clients", p.victim.name, here, connected)
}

func (p *demoPlay) judgeUsers(add addPromise) {
	logins := &p.world.crowd.logins
	var c standin.NPSCounts
	for _, h := range p.world.servers {
		n := h.nps.Counts()
		c.Accepts += n.Accepts
		c.Challenges += n.Challenges
		c.UnknownState += n.UnknownState
		c.Accounting += n.Accounting
		c.ForeignAccounting += n.ForeignAccounting
	}
	begun := uint64(logins.begun.Load())
	add("radius", "a RADIUS conversation stays at the server that began it", c.UnknownState == 0 && c.Accepts == begun && begun > 0,
		"%d of %d users were let in, after %d challenges; %s", c.Accepts, begun, c.Challenges,
		noneOf(c.UnknownState, "reached another server"))
	add("accounting", "and so does the user's accounting", c.ForeignAccounting == 0 && c.Accounting >= 2*begun,
		"%d accounting messages for %d users, %s", c.Accounting, begun, noneOf(c.ForeignAccounting, "reached another server"))

	since, taken, elsewhere := p.drained.at.Add(settle), 0, 0
	for _, v := range p.undrained.logins {
		switch {
		case !v.Begun.After(since):
		case v.host == "nps1":
			taken++
		default:
			elsewhere++
		}
	}
	add("radius-drain", "a drained RADIUS server gets no new users", taken == 0 && elsewhere > 0,
		"%s, nps2 took all %d", noneOf(uint64(taken), "came to nps1"), elsewhere)
	p.judgeAnswers(add)
}

// judgeAnswers is about what only clients can see.
func (p *demoPlay) judgeAnswers(add addPromise) {
	var answers, wrong uint64
	crowd := &p.world.crowd
	for _, m := range crowd.machines {
		wrong += m.WrongSource()
		for _, t := range m.Tunnels {
			s := t.Status()
			answers += s.Received
			wrong += s.Alien
		}
	}
	for _, c := range crowd.sstp {
		s := c.Status()
		answers += s.Received
		wrong += s.Alien
	}
	for _, n := range crowd.nas {
		wrong += n.Forged()
	}
	add("answers", "every answer is from the gateway the client is at, by the address it had asked", wrong == 0 && answers > 0,
		"clients checked %d answers by their keys, %s", answers, noneOf(wrong, "came from elsewhere"))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func noneOf(n uint64, what string) string {
	if n == 0 {
		return "none " + what
	}
	return fmt.Sprintf("%d %s", n, what)
}

func sums(list []int) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = fmt.Sprint(n)
	}
	return strings.Join(text, " + ")
}

// write prints the summary for people.
func (s *demoSummary) write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nWhat was promised, and what the gateways' own books say happened:\n\n")
	broken := 0
	for _, p := range s.Promises {
		mark := "✓"
		if !p.Kept {
			mark = "✗"
			broken++
		}
		fmt.Fprintf(&b, "  %s %s\n      %s\n", mark, p.Promise, p.Found)
	}
	if broken == 0 {
		fmt.Fprintf(&b, "\nAll %d promises were kept, in %.1f s.\n", len(s.Promises), s.Seconds)
	} else {
		fmt.Fprintf(&b, "\n%d of %d promises were BROKEN.\n", broken, len(s.Promises))
	}
	_, err := io.WriteString(w, b.String())
	return err
}
