package keepalived

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A service is what IPVS balances, as /proc/net/ip_vs tells it.
type service struct {
	key     string // as keysOf has it
	servers []destination
}

// A destination is a server of a service.
type destination struct {
	address          netip.Addr
	weight           int
	active, inactive int64
}

// keysOf returns the keys of the services that a file asks for: its protocol and
// address, or its mark.
func keysOf(list []block) []string {
	var out []string
	for i := range list {
		if k := keyOf(&list[i]); k != "" {
			out = append(out, k)
		}
	}
	return out
}

func keyOf(b *block) string {
	w := strings.Fields(b.head)
	if len(w) != 3 || w[0] != "virtual_server" {
		return ""
	}
	if w[1] == "fwmark" {
		return "FWM " + w[2]
	}
	for _, l := range b.lines {
		if p, ok := strings.CutPrefix(l, "protocol "); ok {
			return p + " " + w[1] + " " + w[2]
		}
	}
	return ""
}

// parseServices reads /proc/net/ip_vs.
func parseServices(text string) ([]service, error) {
	var out []service
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		switch {
		case len(w) < 2 || w[0] == "IP" || w[0] == "Prot" || w[1] == "RemoteAddress:Port":
		case w[0] == "FWM":
			m, err := strconv.ParseUint(w[1], 16, 32)
			if err != nil {
				return nil, fmt.Errorf("the list of IPVS can't be read: %.100q", line)
			}
			out = append(out, service{key: "FWM " + strconv.FormatUint(m, 10)})
		case w[0] == "->":
			d, err := parseDestination(w)
			if err != nil || len(out) == 0 {
				return nil, fmt.Errorf("the list of IPVS can't be read: %.100q", line)
			}
			s := &out[len(out)-1]
			s.servers = append(s.servers, d)
		default:
			a, err := parseHex(w[1])
			if err != nil {
				return nil, fmt.Errorf("the list of IPVS can't be read: %.100q", line)
			}
			out = append(out, service{key: fmt.Sprintf("%s %v %d", w[0], a.Addr(), a.Port())})
		}
	}
	return out, nil
}

func parseDestination(w []string) (destination, error) {
	if len(w) != 6 {
		return destination{}, fmt.Errorf("%d columns", len(w))
	}
	a, err := parseHex(w[1])
	d := destination{address: a.Addr()}
	if err == nil {
		d.weight, err = strconv.Atoi(w[3])
	}
	if err == nil {
		d.active, err = strconv.ParseInt(w[4], 10, 64)
	}
	if err == nil {
		d.inactive, err = strconv.ParseInt(w[5], 10, 64)
	}
	return d, err
}

// parseHex reads C000020A:01F4, or an IPv6 address in brackets with its port.
func parseHex(s string) (netip.AddrPort, error) {
	host, port, ok := cutLast(s, ":")
	n, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	if six, ok := strings.CutPrefix(host, "["); ok {
		a, err := netip.ParseAddr(strings.TrimSuffix(six, "]"))
		return netip.AddrPortFrom(a, uint16(n)), err
	}
	b, err := hex.DecodeString(host)
	a, ok := netip.AddrFromSlice(b)
	if err != nil || !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	return netip.AddrPortFrom(a, uint16(n)), nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// lacks returns the keys that no service has.
func lacks(list []service, keys []string) []string {
	var out []string
	for _, k := range keys {
		if !slices.ContainsFunc(list, func(s service) bool { return s.key == k }) {
			out = append(out, k)
		}
	}
	return out
}
