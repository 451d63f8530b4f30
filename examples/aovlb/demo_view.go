package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// demoPicture is what a view shows at one moment.
type demoPicture struct {
	at    time.Duration
	title string
	hosts []demoHostPicture
}

// demoHostPicture is a gateway, or a RADIUS server.
type demoHostPicture struct {
	name, addr string
	radius     bool
	state      string // as the driver says
	clients    int    // as its own books say
	rate       int    // packets a second, likewise
}

// picture looks at everything. rates turns totals into packets a second.
func (p *demoPlay) picture(ctx context.Context, rates demoRates) demoPicture {
	books := p.world.books()
	clients, packets := make(map[string]int), make(map[string]uint64)
	for _, host := range books.where() {
		clients[host]++
	}
	for _, v := range books.visits {
		if !v.Rekeyed { // a rekeyed session goes on with the count of its predecessor
			packets[v.host] += v.Packets
		}
	}
	for _, v := range books.logins {
		packets[v.host] += v.Packets
		if v.Ended.IsZero() {
			clients[v.host]++
		}
	}
	p.mu.Lock()
	pic := demoPicture{at: time.Since(p.began), title: p.title}
	p.mu.Unlock()
	for _, h := range p.world.hosts() {
		pic.hosts = append(pic.hosts, demoHostPicture{
			name: h.name, addr: h.addr.String(), radius: h.nps != nil, state: p.world.state(ctx, h.name),
			clients: clients[h.name], rate: rates.of(h.name, packets[h.name], books.at),
		})
	}
	return pic
}

// demoRates remembers totals.
type demoRates map[string]demoRate

type demoRate struct {
	total uint64
	at    time.Time
	rate  float64
}

// of returns the rate, smoothed so that it can be read.
func (r demoRates) of(name string, total uint64, at time.Time) int {
	was, known := r[name]
	now := demoRate{total, at, was.rate}
	if passed := at.Sub(was.at).Seconds(); known && passed > 0 {
		latest := float64(total-min(was.total, total)) / passed
		now.rate += (latest - was.rate) * min(1, 2*passed)
	}
	r[name] = now
	return int(now.rate + 0.5)
}

// draw shows pictures until the function that it returns is called.
func (p *demoPlay) draw(ctx context.Context) (stop func()) {
	if p.view == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		rates := make(demoRates)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				p.view.Picture(p.picture(ctx, rates))
			}
		}
	})
	return func() { cancel(); wg.Wait() }
}

// plainView prints lines, for logs and for terminals that can't be redrawn.
type plainView struct {
	w io.Writer

	mu    sync.Mutex
	shown time.Duration
}

func (v *plainView) Event(at time.Duration, text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fmt.Fprintf(v.w, "%5.1f s  %s\n", at.Seconds(), text)
}

// Picture prints a line a second.
func (v *plainView) Picture(p demoPicture) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p.at < v.shown {
		return
	}
	v.shown = p.at.Truncate(time.Second) + time.Second
	var b strings.Builder
	fmt.Fprintf(&b, "%5.1f s ", p.at.Seconds())
	for _, h := range p.hosts {
		fmt.Fprintf(&b, "  %s %s %d", h.name, h.state, h.clients)
	}
	fmt.Fprintln(v.w, b.String())
}

// liveView redraws a table in place.
type liveView struct {
	w io.Writer

	mu     sync.Mutex
	events []string
	lines  int // on the screen
}

const (
	shownEvents = 9
	barWidth    = 26
)

func (v *liveView) Event(at time.Duration, text string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, fmt.Sprintf("%5.1f s  %s", at.Seconds(), text))
	if n := len(v.events) - shownEvents; n > 0 {
		v.events = v.events[n:]
	}
}

// The colours of states, as terminals know them.
var stateColour = map[string]string{"up": "\x1b[32m", "draining": "\x1b[33m", "down": "\x1b[31m"}

func (v *liveView) Picture(p demoPicture) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var b strings.Builder
	if v.lines > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.lines)
	}
	v.lines = 0
	line := func(format string, args ...any) {
		fmt.Fprintf(&b, format+"\x1b[K\n", args...)
		v.lines++
	}
	// All lines are shorter than 80 columns: one that is too long for the screen
	// would count as one, and take two.
	line("\x1b[1maovlb demo\x1b[0m  %5.1f s  %s", p.at.Seconds(), p.title)
	line("")
	line("  %-6s%-13s%-10s%8s  %-*s%10s", "", "", "state", "clients", barWidth, "", "packets/s")
	most := barWidth
	for _, h := range p.hosts {
		most = max(most, h.clients)
	}
	for _, h := range p.hosts {
		bar := strings.Repeat("█", h.clients*barWidth/most)
		line("  %-6s%-13s%s%-10s\x1b[0m%8d  %-*s%10d", h.name, h.addr, stateColour[h.state], h.state, h.clients, barWidth, bar, h.rate)
	}
	line("")
	for i := range shownEvents {
		if i < len(v.events) {
			line("  %s", v.events[i])
		} else {
			line("")
		}
	}
	fmt.Fprint(v.w, b.String())
}
