package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
)

var profileFromCommand = command{
	name: "from-deployment", usage: "[--server NAME] [--type user|device] … FILE", short: "make the profile of the clients of a balancer", run: runProfileFrom,
}

func runProfileFrom(_ context.Context, env *environment, args []string) error {
	fs := flag.NewFlagSet("profile from-deployment", flag.ContinueOnError)
	r := profileRequest{protocol: ""}
	r.flags(fs)
	r.protocol = ""
	fs.Lookup("protocol").DefValue = "what the listeners serve"
	policy := fs.String("server-script", "", "write the PowerShell for the gateways' policy to this `file`, or - for standard output, in place of the profile unless that has a file")
	args, err := parse(env, fs, args, 1)
	if err != nil {
		return err
	}
	s, err := readConfig(args[0])
	if err != nil {
		return err
	}
	if err := r.fromDeployment(&s.config.Deployment); err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	p, err := r.profile()
	if err != nil {
		return err
	}
	script, err := serverScript(p)
	if err != nil {
		return err
	}
	switch *policy {
	case "":
	case "-":
		if _, err := fmt.Fprint(env.stdout, script); err != nil || r.out == "" {
			return err
		}
	default:
		if err := replaceFile(*policy, []byte(script)); err != nil {
			return err
		}
	}
	return r.deliver(env, p)
}

// fromDeployment fills in what a deployment says: the gateways' names, the
// protocols, and which public addresses must not be led into the tunnel.
func (r *profileRequest) fromDeployment(d *plugins.Deployment) error {
	f := found{served: map[plugins.Protocol]bool{}}
	for i := range d.Sites {
		f.site(&d.Sites[i])
	}
	if d.Geo != nil {
		f.geo(d.Geo)
	}
	if r.protocol == "" {
		switch {
		case f.served[plugins.ProtocolIKEv2]:
			r.protocol = "IKEv2"
		case f.served[plugins.ProtocolSSTP]:
			r.protocol = "SSTP"
		default:
			return errors.New("no listener serves ikev2 or sstp, so that there is no VPN to make a profile for; if other gateways do, give --protocol")
		}
	}
	if len(r.servers) == 0 {
		if r.servers = f.names; len(r.servers) == 0 {
			return errors.New("it doesn't say the gateways' public name: give --server, or set host in an sstp check")
		}
		slices.Sort(r.servers)
		r.servers = slices.Compact(r.servers)
	}
	return r.excludePublic(f.public)
}

// found is what a deployment says of its VPN.
type found struct {
	served map[plugins.Protocol]bool
	names  list
	public []netip.Addr
}

func (f *found) site(s *plugins.Site) {
	for _, g := range s.Groups {
		vpn := false
		for _, l := range g.Listeners {
			f.served[l.Protocol] = true
			if l.Protocol != plugins.ProtocolIKEv2 && l.Protocol != plugins.ProtocolSSTP {
				continue
			}
			vpn = true
			if !l.Address.Addr().IsUnspecified() {
				f.public = append(f.public, l.Address.Addr().Unmap())
			}
		}
		if pool := s.Pool(g.Pool); pool != nil && vpn {
			f.names = append(f.names, checkedNames(pool)...)
		}
	}
	for _, c := range s.Certificates {
		if c.ACME != nil {
			f.names = append(f.names, c.ACME.Host)
		}
	}
}

// geo takes the names that clients of all sites use in place of those of each
// site.
func (f *found) geo(g *plugins.Geo) {
	var names list
	for _, n := range g.Names {
		if !strings.Contains(n.Name, "*") {
			names = append(names, strings.TrimSuffix(n.Name, "."))
		}
	}
	if len(names) > 0 {
		f.names = names
	}
	for _, s := range g.Sites {
		for _, w := range s.Gateways {
			f.public = append(f.public, w.Addresses...)
		}
	}
}

// checkedNames are the names that the gateways are asked for.
func checkedNames(p *plugins.Pool) list {
	var names list
	for _, c := range p.Checks {
		if c.Type != plugins.CheckSSTP || c.Host == "" {
			continue
		}
		if _, err := netip.ParseAddr(c.Host); err != nil {
			names = append(names, c.Host)
		}
	}
	return names
}

// excludePublic keeps the balancer's own addresses out of the routes: the tunnel
// can't go through itself.
func (r *profileRequest) excludePublic(public []netip.Addr) error {
	networks, err := networksOf(r.routes)
	if err != nil {
		return err
	}
	for _, p := range networks {
		for _, a := range public {
			if own := netip.PrefixFrom(a, a.BitLen()).String(); p.Contains(a) && !slices.Contains(r.excluded, own) {
				r.excluded = append(r.excluded, own)
			}
		}
	}
	return nil
}
