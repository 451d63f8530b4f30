// Command directaccess answers what DirectAccess clients ask before and beside
// their tunnel, while a company moves from DirectAccess to Always On VPN: the web
// probe host, by HTTP, the network location server, by HTTPS, and the DNS names
// of both and of the ISATAP router.
//
// Where they are depends on which site serves, as for a VPN: each site has a
// machine with this program, and each program answers DNS for all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/aovlb/aovlb/geo/geodns"
	"github.com/aovlb/aovlb/lb"
)

// A Site is a place with a machine that answers probes.
type Site struct {
	Name   string
	Addr   netip.Addr
	ISATAP netip.Addr // the router; not valid if there is none
}

// zone has the names that DirectAccess knows clients by. The connectivity host is
// the same everywhere: 127.0.0.1, and what NAT64 makes of it.
func zone(domain string, nat64 netip.Addr) (*geodns.Zone, error) {
	text := "$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n" +
		"directaccess-corpConnectivityHost A 127.0.0.1\n"
	if nat64.IsValid() {
		text += fmt.Sprintf("directaccess-corpConnectivityHost AAAA %v\n", nat64)
	}
	return geodns.ParseZone(strings.NewReader(text), domain, "directaccess")
}

// plan has a name answered by the first of some sites that is up.
func plan(sites []geo.Site) (*geo.Plan, error) {
	return (&geo.Policy{Method: geo.First}).Compile(sites, nil, nil)
}

// A Responder is the DNS side.
type Responder struct {
	DNS    *geodns.Server
	Health *geo.Health

	names map[*geodns.Name]*geo.Plan
}

// NewResponder makes the DNS side for some sites.
func NewResponder(domain string, nat64 netip.Addr, sites []Site) (*Responder, error) {
	z, err := zone(domain, nat64)
	if err != nil {
		return nil, err
	}
	var web, isatap []geo.Site
	for i, s := range sites {
		site := geo.Site{Name: s.Name, Priority: i, Gateways: []geo.Gateway{{Name: "web", Addrs: []netip.Addr{s.Addr}}}}
		web = append(web, site)
		if s.ISATAP.IsValid() {
			site.Gateways = []geo.Gateway{{Name: "web", Addrs: []netip.Addr{s.ISATAP}}}
			isatap = append(isatap, site)
		}
	}
	r := &Responder{DNS: new(geodns.Server), Health: new(geo.Health), names: make(map[*geodns.Name]*geo.Plan)}
	var names []*geodns.Name
	for name, list := range map[string][]geo.Site{"directaccess-WebProbeHost": web, "nls": web, "isatap": isatap} {
		if len(list) == 0 {
			continue
		}
		p, err := plan(list)
		if err != nil {
			return nil, err
		}
		n := &geodns.Name{Name: name + "." + domain}
		r.names[n], names = p, append(names, n)
	}
	if err := r.DNS.Set([]*geodns.Zone{z}, names); err != nil {
		return nil, err
	}
	return r, r.Health.Set(web...)
}

// Update has the names answered by what is known of the sites.
func (r *Responder) Update() {
	v := r.Health.View()
	for n, p := range r.names {
		n.Update(p.Select(v, n.Name))
	}
}

// Watch has each site's web server asked, and the answers follow, until ctx ends.
func (r *Responder) Watch(ctx context.Context, sites []Site, port uint16) error {
	pool := new(lb.Pool)
	var list []lb.Backend
	for _, s := range sites {
		list = append(list, lb.Backend{Name: s.Name, Addr: s.Addr})
	}
	if err := pool.Set(list...); err != nil {
		return err
	}
	m := &lb.Monitor{Pool: pool, Checks: []lb.Check{{Name: "http", Prober: lb.ProberFunc(probe), Port: port}}}
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	for {
		changed := pool.Changed()
		for _, b := range pool.View().Members {
			state := geo.Up
			if b.State == lb.Down {
				state = geo.Down
			}
			if err := r.Health.Mark(b.Name, "web", state, b.Cause); err != nil {
				return err
			}
		}
		r.Update()
		select {
		case <-changed:
		case err := <-done:
			return err
		}
	}
}

// probe asks as a client does.
func probe(ctx context.Context, target netip.AddrPort) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target.String()+"/", nil)
	if err != nil {
		return err
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %d", res.StatusCode)
	}
	return nil
}

// Page is what clients get: that there is an answer is all they look at.
func Page() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		_, _ = fmt.Fprintln(w, "It is here.")
	})
	return mux
}

// serveHTTP serves the page until ctx ends; with a certificate by TLS.
func serveHTTP(ctx context.Context, addr, cert, key string) error {
	s := &http.Server{Addr: addr, Handler: Page(), ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second, IdleTimeout: 10 * time.Second, MaxHeaderBytes: 8 << 10}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if cert != "" {
		return s.ListenAndServeTLS(cert, key)
	}
	return s.ListenAndServe()
}

// parseSites reads "hq=10.0.0.1,10.0.0.254 dr=10.1.0.1".
func parseSites(s string) (sites []Site, err error) {
	for f := range strings.FieldsSeq(s) {
		name, addrs, ok := strings.Cut(f, "=")
		web, router, two := strings.Cut(addrs, ",")
		site := Site{Name: name}
		if site.Addr, err = netip.ParseAddr(web); !ok || err != nil {
			return nil, fmt.Errorf("site %q is not like hq=10.0.0.1,10.0.0.254", f)
		}
		if two {
			if site.ISATAP, err = netip.ParseAddr(router); err != nil {
				return nil, fmt.Errorf("site %s: its ISATAP router: %w", name, err)
			}
		}
		sites = append(sites, site)
	}
	if len(sites) == 0 {
		return nil, errors.New("there is no site")
	}
	return sites, nil
}

func main() {
	domain := flag.String("domain", "da.corp.example.com", "the `zone` to answer for, delegated to this machine")
	list := flag.String("sites", "hq=127.0.0.1,127.0.0.254", "the sites: `name=web[,isatap]`, the preferred first")
	nat64 := flag.String("nat64", "", "the `address` of IPv6 that NAT64 makes of 127.0.0.1")
	listen := flag.String("dns", "127.0.0.1:5300", "answer DNS at this `address`")
	web := flag.String("http", "127.0.0.1:8080", "be the web probe host at this `address`")
	nls := flag.String("https", "", "be the network location server at this `address`")
	cert, key := flag.String("cert", "", "its certificate `file`"), flag.String("key", "", "its key `file`")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *domain, *list, *nat64, *listen, *web, *nls, *cert, *key); err != nil && ctx.Err() == nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, domain, list, nat64, listen, web, nls, cert, key string) error {
	sites, err := parseSites(list)
	if err != nil {
		return err
	}
	at, err := netip.ParseAddrPort(web)
	if err != nil {
		return err
	}
	mapped, _ := netip.ParseAddr(nat64) // not valid if it is empty
	r, err := NewResponder(domain, mapped, sites)
	if err != nil {
		return err
	}
	pc, err := net.ListenPacket("udp", listen)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return errors.Join(err, pc.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	parts := []func() error{
		func() error { return r.DNS.ServePacket(ctx, pc) },
		func() error { return r.DNS.ServeStream(ctx, l) },
		func() error { return r.Watch(ctx, sites, at.Port()) },
		func() error { return serveHTTP(ctx, web, "", "") },
	}
	if nls != "" {
		parts = append(parts, func() error { return serveHTTP(ctx, nls, cert, key) })
	}
	errs := make(chan error, len(parts))
	for _, p := range parts {
		go func() { errs <- p() }()
	}
	ends := []error{<-errs}
	cancel()
	for range len(parts) - 1 {
		ends = append(ends, <-errs) // what ends because of cancel
	}
	return ends[0]
}
