package mmdb

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aovlb/aovlb/geo"
	"github.com/oschwald/maxminddb-golang/v2"
)

// MaxSize is how large a database may be, in bytes.
const MaxSize = 1 << 30

// ErrUnsuitable says that a database is sound but has nothing that tells where
// addresses are.
var ErrUnsuitable = errors.New("mmdb: the database doesn't tell where addresses are")

// A Database is one database, held in memory. It is immutable and safe for
// concurrent use.
type Database struct {
	r    *maxminddb.Reader
	kind kind
}

var _ geo.Locator = (*Database)(nil)

// kind is the form of a database's records.
type kind uint8

const (
	nested kind = iota // GeoIP2's: country.iso_code and so on
	flat               // country_code and so on
)

// Open reads a database from a file and checks it from end to end, which takes
// seconds with a large one. The file is read once and may then be changed or
// removed: a database mapped from a file kills the process when the file is
// truncated.
func Open(name string) (*Database, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("mmdb: %w", err)
	}
	if st.Size() > MaxSize {
		return nil, fmt.Errorf("mmdb: %s has %d bytes, more than %d", name, st.Size(), MaxSize)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("mmdb: %w", err)
	}
	d, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d, nil
}

// Parse returns the database in data, which it keeps and which must not be
// changed. It checks it from end to end.
func Parse(data []byte) (d *Database, err error) {
	// Bytes from outside: whatever the library overlooks must not end the
	// program.
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("mmdb: the database is damaged: %v", p)
		}
	}()
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, fmt.Errorf("mmdb: %w", err)
	}
	if err := r.Verify(); err != nil {
		return nil, fmt.Errorf("mmdb: the database is damaged: %w", err)
	}
	d = &Database{r: r}
	if err := d.inspect(); err != nil {
		return nil, err
	}
	return d, nil
}

// inspect looks at the first records for what they are like.
func (d *Database) inspect() error {
	const enough = 1000
	seen := 0
	for res := range d.r.Networks() {
		var rec record
		if err := res.Decode(&rec); err != nil {
			return fmt.Errorf("mmdb: a record is of another form: %w", err)
		}
		if rec.CountryCode != "" || rec.FlatContinent != "" {
			d.kind = flat
			return nil
		}
		if rec.place() != (geo.Place{}) {
			return nil
		}
		if seen++; seen > enough {
			break
		}
	}
	return fmt.Errorf("%w: it is of type %q", ErrUnsuitable, d.r.Metadata.DatabaseType)
}

// record is what is read of a record, in either form.
type record struct {
	Continent struct {
		Code string `maxminddb:"code"`
	} `maxminddb:"continent"`
	Country struct {
		ISO string `maxminddb:"iso_code"`
	} `maxminddb:"country"`
	Registered struct {
		ISO string `maxminddb:"iso_code"`
	} `maxminddb:"registered_country"`
	Subdivisions []struct {
		ISO string `maxminddb:"iso_code"`
	} `maxminddb:"subdivisions"`
	Location struct {
		Latitude  *float64 `maxminddb:"latitude"`
		Longitude *float64 `maxminddb:"longitude"`
	} `maxminddb:"location"`
	ASN uint32 `maxminddb:"autonomous_system_number"`

	// The flat form.
	CountryCode   string `maxminddb:"country_code"`
	FlatContinent string `maxminddb:"continent_code"`
	FlatASN       any    `maxminddb:"asn"`
}

// place returns what a record tells, with the country where an address is
// registered if nobody knows where it is used.
func (r *record) place() (p geo.Place) {
	p.Continent, p.Country = r.Continent.Code, r.Country.ISO
	if p.Country == "" {
		p.Country = r.Registered.ISO
	}
	if p.Country == "" {
		p.Country = strings.ToUpper(r.CountryCode)
	}
	if p.Continent == "" {
		p.Continent = strings.ToUpper(r.FlatContinent)
	}
	if len(r.Subdivisions) > 0 && r.Subdivisions[0].ISO != "" {
		p.Subdivision = p.Country + "-" + r.Subdivisions[0].ISO
	}
	if lat, lon := r.Location.Latitude, r.Location.Longitude; lat != nil && lon != nil && valid(*lat, *lon) {
		p.Latitude, p.Longitude, p.Located = *lat, *lon, true
	}
	p.ASN = r.ASN
	if p.ASN == 0 {
		p.ASN = number(r.FlatASN)
	}
	return p
}

// number reads 64500, "64500" and "AS64500".
func number(v any) uint32 {
	switch v := v.(type) {
	case uint64:
		return uint32(min(v, 1<<32-1))
	case string:
		n, err := strconv.ParseUint(strings.TrimPrefix(v, "AS"), 10, 32)
		if err == nil {
			return uint32(n)
		}
	}
	return 0
}

// valid refuses what is no point on the earth, not-a-number too.
func valid(lat, lon float64) bool {
	return lat >= -90 && lat <= 90 && lon >= -180 && lon <= 180
}

// Locate returns where an address is. What can't be read counts as unknown.
func (d *Database) Locate(addr netip.Addr) (geo.Place, netip.Prefix) {
	res := d.r.Lookup(addr)
	block := res.Prefix()
	if !block.IsValid() || block.Addr().Is4() != addr.Is4() || !block.Contains(addr) {
		// A database of IPv4 only, asked for IPv6, knows none of it.
		block, _ = addr.Prefix(0)
		return geo.Place{}, block
	}
	var rec record
	if !res.Found() || res.Decode(&rec) != nil {
		return geo.Place{}, block
	}
	return rec.place(), block
}

// Type returns what the database says it is, such as GeoLite2-City.
func (d *Database) Type() string { return d.r.Metadata.DatabaseType }

// Built returns when it was made.
func (d *Database) Built() time.Time { return d.r.Metadata.BuildTime() }
