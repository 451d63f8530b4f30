package geo

import (
	"net/netip"
	"slices"
)

// A CountryMap tells the country of each address, faster than a database does. It
// is for counting. It is immutable.
type CountryMap struct {
	m     *prefixMap
	names []string
}

// maxCountries bounds a CountryMap; ISO 3166 has fewer than 700 pairs of letters.
const maxCountries = 700

// NewCountryMap asks a Locator where all addresses are. progress is as for
// [Policy.Compile].
func NewCountryMap(l Locator, progress func(done float64) error) (*CountryMap, error) {
	m := &CountryMap{names: []string{""}}
	index := map[string]uint32{"": 0}
	var err error
	m.m, err = buildMap(func(a netip.Addr) (uint32, netip.Prefix) {
		p, block := l.Locate(a)
		n, ok := index[p.Country]
		if !ok && len(m.names) < maxCountries { // what else a database has counts as unknown
			n = uint32(len(m.names))
			index[p.Country] = n
			m.names = append(m.names, p.Country)
		}
		return n, block
	}, progress)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Countries returns the names of the countries, by the numbers of Find. The first
// is empty, and means that the country isn't known.
func (m *CountryMap) Countries() []string { return slices.Clone(m.names) }

// Find returns the number of an address's country. It doesn't allocate.
func (m *CountryMap) Find(a netip.Addr) int {
	n, _ := m.m.find(a.Unmap())
	return int(n)
}
