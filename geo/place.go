package geo

import (
	"math"
	"net/netip"
)

// A Place is where an address or a site is. The zero Place is nowhere.
type Place struct {
	// Continent is AF, AN, AS, EU, NA, OC or SA.
	Continent string
	// Country is two letters, of ISO 3166-1.
	Country string
	// Subdivision is a state or province by ISO 3166-2, such as US-WA.
	Subdivision string
	// ASN is the number of the autonomous system; 0 if it isn't known.
	ASN uint32
	// Coordinates are where it is on the map, if Located.
	Coordinates
	// Located says that the Coordinates are known.
	Located bool
	// Network is the name of the organisation's own network, if it is one.
	Network string
}

// Coordinates are a point on the earth, in degrees: Latitude -90 to 90, to the
// north, Longitude -180 to 180, to the east.
type Coordinates struct {
	Latitude, Longitude float64
}

// earthRadius is the mean radius in kilometres.
const earthRadius = 6371.0

// Distance returns how far apart two points are, along the surface, in
// kilometres.
func Distance(a, b Coordinates) float64 {
	rad := func(deg float64) float64 { return deg * math.Pi / 180 }
	// The haversine formula, which is exact for points close to each other.
	sinLat := math.Sin(rad(b.Latitude-a.Latitude) / 2)
	sinLon := math.Sin(rad(b.Longitude-a.Longitude) / 2)
	h := sinLat*sinLat + math.Cos(rad(a.Latitude))*math.Cos(rad(b.Latitude))*sinLon*sinLon
	return 2 * earthRadius * math.Asin(math.Sqrt(min(1, h)))
}

// A Locator knows where addresses are.
type Locator interface {
	// Locate returns where addr is, and the largest block around it in which
	// that is true of every address. Of an address that it doesn't know it
	// returns the zero Place, and likewise the block. Addresses of IPv4 come
	// and go as such, not mapped into IPv6. It is called from any goroutine.
	Locate(addr netip.Addr) (Place, netip.Prefix)
}

// Nowhere is a Locator that knows no address.
type Nowhere struct{}

// Locate returns the zero Place and all addresses of the family.
func (Nowhere) Locate(addr netip.Addr) (Place, netip.Prefix) { return Place{}, whole(addr) }

// whole returns all addresses of addr's family.
func whole(addr netip.Addr) netip.Prefix {
	if addr.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// Merge returns a Locator that asks each of several in turn and fills in what
// the ones before didn't know: a database of cities, then one of autonomous
// systems. What is known of a place on the map (continent, country,
// subdivision, coordinates) is taken from the first that knows the country or
// the coordinates, as a whole.
func Merge(list ...Locator) Locator { return merged(list) }

type merged []Locator

func (m merged) Locate(addr netip.Addr) (Place, netip.Prefix) {
	var all Place
	block := whole(addr)
	for _, l := range m {
		p, n := l.Locate(addr)
		if n.Bits() > block.Bits() {
			block = n
		}
		if all.Network == "" {
			all.Network = p.Network
		}
		if all.ASN == 0 {
			all.ASN = p.ASN
		}
		if all.Country == "" && all.Continent == "" && !all.Located {
			all.Continent, all.Country, all.Subdivision = p.Continent, p.Country, p.Subdivision
			all.Coordinates, all.Located = p.Coordinates, p.Located
		}
	}
	return all, block
}
