package main

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/profilexml"
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
	policy := fs.String("server-script", "", "write the PowerShell for the gateways' policy to this `file`, or - for standard output in place of the profile")
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
	script := serverScript(p)
	switch *policy {
	case "":
	case "-":
		_, err := fmt.Fprint(env.stdout, script)
		return err
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
	served := map[plugins.Protocol]bool{}
	var names list
	var public []netip.Addr
	for i := range d.Sites {
		s := &d.Sites[i]
		for _, g := range s.Groups {
			for _, l := range g.Listeners {
				served[l.Protocol] = true
				if vpn := l.Protocol == plugins.ProtocolIKEv2 || l.Protocol == plugins.ProtocolSSTP; vpn && !l.Address.Addr().IsUnspecified() {
					public = append(public, l.Address.Addr().Unmap())
				}
			}
			if pool := s.Pool(g.Pool); pool != nil {
				names = append(names, checkedNames(pool)...)
			}
		}
	}
	if r.protocol == "" {
		switch {
		case served[plugins.ProtocolIKEv2]:
			r.protocol = "IKEv2"
		case served[plugins.ProtocolSSTP]:
			r.protocol = "SSTP"
		default:
			return fmt.Errorf("no listener serves ikev2 or sstp, so that there is no VPN to make a profile for")
		}
	}
	if len(r.servers) == 0 {
		slices.Sort(names)
		r.servers = slices.Compact(names)
	}
	if len(r.servers) == 0 {
		return fmt.Errorf("it doesn't say the gateways' public name: give --server, or set host in an sstp check")
	}
	return r.excludePublic(public)
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
	for _, s := range r.routes {
		p, err := parseNetwork(s)
		if err != nil {
			return err
		}
		for _, a := range public {
			if own := netip.PrefixFrom(a, a.BitLen()).String(); p.Contains(a) && !slices.Contains(r.excluded, own) {
				r.excluded = append(r.excluded, own)
			}
		}
	}
	return nil
}

// serverScript is what the gateways must be told.
func serverScript(p *profilexml.Profile) string {
	var s strings.Builder
	s.WriteString("# Run on each RRAS gateway, as an administrator. Connections end when RRAS restarts.\n")
	if n := p.NativeProfile; n != nil && n.CryptographySuite != nil {
		s.WriteString(n.CryptographySuite.ServerCommand() + "\n")
	}
	s.WriteString("New-ItemProperty -Path 'HKLM:\\SYSTEM\\CurrentControlSet\\Services\\RemoteAccess\\Parameters\\Ikev2' -Name EnableServerFragmentation -PropertyType DWord -Value 1 -Force\n")
	s.WriteString("Restart-Service -Name RemoteAccess -PassThru\n")
	return s.String()
}
