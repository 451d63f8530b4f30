package geodns

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// A Zone is the records of one zone, but for those that depend on who asks,
// which are [Name]s. It is immutable.
type Zone struct {
	// Keys sign it; nil leaves it unsigned. It may be set before the Zone is
	// given to a Server.
	Keys *Keys

	origin  wireName // lower case
	soa     *dns.SOA
	records map[wireName]map[uint16][]dns.RR // by owner in lower case, and type
}

// maxZoneRecords bounds a zone.
const maxZoneRecords = 1_000_000

// ParseZone reads a zone in master file form (RFC 1035 section 5). origin is the
// zone's name; file is the name for errors, which say the line. Names of other
// files ($INCLUDE) are refused.
func ParseZone(r io.Reader, origin, file string) (*Zone, error) {
	o, err := packName(origin)
	if err != nil {
		return nil, fmt.Errorf("geodns: zone %w", err)
	}
	z := &Zone{origin: lowerName(o), records: make(map[wireName]map[uint16][]dns.RR)}
	zp := dns.NewZoneParser(r, dns.Fqdn(origin), file)
	var errs []error
	n := 0
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		if n++; n > maxZoneRecords {
			return nil, fmt.Errorf("geodns: zone %s has more than %d records", origin, maxZoneRecords)
		}
		if err := z.add(rr); err != nil {
			errs = append(errs, fmt.Errorf("geodns: zone %s: %w", origin, err))
		}
	}
	if err := zp.Err(); err != nil {
		errs = append(errs, fmt.Errorf("geodns: %w", err))
	}
	if len(errs) == 0 {
		errs = z.faults()
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return z, nil
}

// add keeps a record.
func (z *Zone) add(rr dns.RR) error {
	h := rr.Header()
	owner, err := ownerOf(rr)
	if err != nil {
		return err
	}
	if err := complete(rr); err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, dns.TypeToString[h.Rrtype], err)
	}
	if h.Class != dns.ClassINET {
		return fmt.Errorf("%s: class %s is not served", h.Name, dns.ClassToString[h.Class])
	}
	if !strings.HasSuffix(owner, z.origin) || !hasSuffixLabels(owner, z.origin) {
		return fmt.Errorf("%s is not in the zone", h.Name)
	}
	switch h.Rrtype {
	case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3, dns.TypeNSEC3PARAM, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY:
		return fmt.Errorf("%s: %s is made by the server; leave it out", h.Name, dns.TypeToString[h.Rrtype])
	case dns.TypeSOA:
		if owner != z.origin {
			return fmt.Errorf("%s: a SOA is only for the zone itself", h.Name)
		}
		z.soa, _ = rr.(*dns.SOA)
	}
	sets := z.records[owner]
	if sets == nil {
		sets = make(map[uint16][]dns.RR)
		z.records[owner] = sets
	}
	for _, old := range sets[h.Rrtype] {
		if dns.IsDuplicate(old, rr) {
			return nil // RFC 2181 section 5.5
		}
	}
	sets[h.Rrtype] = append(sets[h.Rrtype], rr)
	return nil
}

// complete says what is wrong with a record whose data can't be sent as it is: the
// parser takes a line that ends before its data.
func complete(rr dns.RR) error {
	b := make([]byte, dns.Len(rr)+dns.MinMsgSize)
	n, err := dns.PackRR(rr, b, 0, nil, false)
	if err != nil {
		return err
	}
	back, _, err := dns.UnpackRR(b[:n], 0)
	switch {
	case err != nil:
		return fmt.Errorf("its data is incomplete: %w", err)
	case back.Header().Rdlength == 0:
		return errors.New("it has no data")
	}
	return nil
}

// ownerOf returns the owner in lower case.
func ownerOf(rr dns.RR) (wireName, error) {
	var b [maxName]byte
	n, err := dns.PackDomainName(rr.Header().Name, b[:], 0, nil, false)
	if err == nil && n == 0 {
		err = errors.New("a record before any name")
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", rr.Header().Name, err)
	}
	return lowerName(string(b[:n])), nil
}

// hasSuffixLabels reports whether a name is zone or below it.
func hasSuffixLabels(name, zone wireName) bool {
	for len(name) > len(zone) {
		name = parent(name)
	}
	return name == zone
}

// faults returns what is wrong with the zone as a whole.
func (z *Zone) faults() (errs []error) {
	name := textName(z.origin)
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("geodns: zone %s: %w", name, fmt.Errorf(format, args...)))
	}
	apex := z.records[z.origin]
	if len(apex[typeSOA]) != 1 {
		add("needs one SOA, has %d", len(apex[typeSOA]))
	}
	if len(apex[typeNS]) == 0 {
		add("has no NS")
	}
	for owner, sets := range z.records {
		if len(sets[typeCNAME]) > 1 || len(sets[typeCNAME]) == 1 && len(sets) > 1 {
			add("%s has a CNAME beside other records (RFC 2181 section 10.1)", textName(owner))
		}
		for t, set := range sets {
			for _, rr := range set[1:] {
				if rr.Header().Ttl != set[0].Header().Ttl {
					add("%s %s: the records have different TTLs (RFC 2181 section 5.2)", textName(owner), dns.TypeToString[t])
					break
				}
			}
		}
		if err := z.redirects(owner); err != nil {
			add("%w", err)
		}
		if owner != z.origin && len(sets[typeDS]) > 0 && len(sets[typeNS]) == 0 {
			add("%s has a DS but is not delegated", textName(owner))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errs
}

// redirects says what is wrong with the DNAME of an owner, if there is one, or
// above it (RFC 6672 section 2.4).
func (z *Zone) redirects(owner wireName) error {
	sets := z.records[owner]
	switch n := len(sets[typeDNAME]); {
	case n > 1:
		return fmt.Errorf("%s has %d DNAME, may have one (RFC 6672 section 2.4)", textName(owner), n)
	case n == 1 && owner != z.origin && len(sets[typeNS]) > 0:
		return fmt.Errorf("%s has a DNAME and is delegated (RFC 6672 section 2.3)", textName(owner))
	}
	for at := owner; at != z.origin; {
		at = parent(at)
		if len(z.records[at][typeDNAME]) > 0 {
			return fmt.Errorf("%s is below %s, which has a DNAME: nobody would get it (RFC 6672 section 2.4)", textName(owner), textName(at))
		}
	}
	return nil
}

// Origin returns the name of the zone.
func (z *Zone) Origin() string { return textName(z.origin) }

// Serial returns the number of the zone's version.
func (z *Zone) Serial() uint32 { return z.soa.Serial }
