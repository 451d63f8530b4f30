package rasphone

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A Route is a network that is reached through the VPN, or isn't.
type Route struct {
	Prefix  netip.Prefix // the network
	Exclude bool         // keeps it out of the VPN
	Metric  uint32       // 1 unless somebody chose another
	// Unknown is a number that is always zero in files that were seen. It is
	// kept.
	Unknown uint32
}

// String returns the route as ParseSetting reads it.
func (r Route) String() string {
	s := r.Prefix.String()
	if r.Exclude {
		s = "exclude:" + s
	}
	if r.Metric > 1 {
		s += "@" + strconv.FormatUint(uint64(r.Metric), 10)
	}
	return s
}

// The form of a route, and the families of Windows.
const (
	routeBytes = 36 // metric, family, prefix, 16 bytes of address, exclusion, unknown
	familyIPv4 = 2
	familyIPv6 = 23
)

// DecodeRoutes reads Routes. It fails at what it doesn't understand, so that
// nothing is lost when they are written again.
func DecodeRoutes(b []byte) ([]Route, error) {
	if len(b)%routeBytes != 0 {
		return nil, fmt.Errorf("it is %d bytes long, and each route has %d", len(b), routeBytes)
	}
	var list []Route
	for chunk := range slices.Chunk(b, routeBytes) {
		word := func(at int) uint32 { return binary.LittleEndian.Uint32(chunk[at:]) }
		addr, err := decodeAddr(word(4), chunk[12:28])
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", len(list)+1, err)
		}
		bits, exclude := word(8), word(28)
		if int64(bits) > int64(addr.BitLen()) || exclude > 1 {
			return nil, fmt.Errorf("route %d: prefix %d of %v, exclusion %d: no route", len(list)+1, bits, addr, exclude)
		}
		list = append(list, Route{netip.PrefixFrom(addr, int(bits)), exclude == 1, word(0), word(32)})
	}
	return list, nil
}

// decodeAddr reads an address in 16 bytes, of which IPv4 uses the first four.
func decodeAddr(family uint32, b []byte) (netip.Addr, error) {
	switch {
	case family == familyIPv6:
		return netip.AddrFrom16([16]byte(b)), nil
	case family != familyIPv4:
		return netip.Addr{}, fmt.Errorf("address family %d isn't known", family)
	case slices.ContainsFunc(b[4:], func(c byte) bool { return c != 0 }):
		return netip.Addr{}, errors.New("there is something after an IPv4 address")
	}
	return netip.AddrFrom4([4]byte(b)), nil
}

func appendAddr(b []byte, a netip.Addr) []byte {
	if a.Is4() {
		b = append(b, a.AsSlice()...)
		return append(b, make([]byte, 12)...)
	}
	return append(b, a.AsSlice()...)
}

func family(a netip.Addr) uint32 {
	if a.Is4() {
		return familyIPv4
	}
	return familyIPv6
}

// EncodeRoutes writes what DecodeRoutes reads.
func EncodeRoutes(list []Route) ([]byte, error) {
	if len(list) > maxItems {
		return nil, fmt.Errorf("there are more than %d routes", maxItems)
	}
	b := make([]byte, 0, len(list)*routeBytes)
	for _, r := range list {
		if !r.Prefix.IsValid() || r.Prefix.Addr().Zone() != "" {
			return nil, fmt.Errorf("%v is no network", r.Prefix)
		}
		b = binary.LittleEndian.AppendUint32(b, r.Metric)
		b = binary.LittleEndian.AppendUint32(b, family(r.Prefix.Addr()))
		b = binary.LittleEndian.AppendUint32(b, uint32(r.Prefix.Bits()))
		b = appendAddr(b, r.Prefix.Addr())
		var exclude uint32
		if r.Exclude {
			exclude = 1
		}
		b = binary.LittleEndian.AppendUint32(b, exclude)
		b = binary.LittleEndian.AppendUint32(b, r.Unknown)
	}
	return b, nil
}

// Routes returns the routes of the entry.
func (e Entry) Routes() ([]Route, error) { return listOf(e, "Routes", DecodeRoutes) }

// RoutesSetting returns the setting that gives an entry routes.
func RoutesSetting(list []Route) (Setting, error) {
	b, err := EncodeRoutes(list)
	if err != nil {
		return Setting{}, fmt.Errorf("Routes: %w", err)
	}
	return listSetting("Routes", "NumRoutes", len(list), b, inWords(list)), nil
}

// parseRoutes reads what [Route.String] writes, with commas between.
func parseRoutes(s string) ([]Route, error) {
	var list []Route
	for _, item := range splitList(s) {
		r := Route{Metric: 1}
		text, metric, ok := strings.Cut(item, "@")
		if ok {
			n, err := strconv.ParseUint(metric, 10, 32)
			if err != nil || n > 9999 {
				return nil, fmt.Errorf("the metric of %.60q isn't a number up to 9999", item)
			}
			r.Metric = uint32(n)
		}
		text, r.Exclude = strings.CutPrefix(text, "exclude:")
		var err error
		if a, aerr := netip.ParseAddr(text); aerr == nil && a.Zone() == "" {
			r.Prefix = netip.PrefixFrom(a, a.BitLen())
		} else if r.Prefix, err = netip.ParsePrefix(text); err != nil {
			return nil, fmt.Errorf("%.60q is no network: write 10.0.0.0/8, with exclude: before it or a metric such as @5 after it", item)
		}
		if r.Prefix != r.Prefix.Masked() {
			return nil, fmt.Errorf("%v isn't the address of a network: it is in %v", r.Prefix, r.Prefix.Masked())
		}
		list = append(list, r)
	}
	return list, nil
}
