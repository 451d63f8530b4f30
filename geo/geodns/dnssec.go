package geodns

import (
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// Keys are the DNSSEC keys of a zone. Signing is online: answers are signed when
// they are first needed, and the signatures kept.
type Keys struct {
	// Keys are all that are published. The first one whose Active is set
	// signs. With several of them, all active ones sign, as a change of
	// algorithm needs.
	Keys []*Key
	// Validity is how long a signature is good; 0 means 7 days. It is renewed
	// when half of that is over.
	Validity time.Duration
}

// A Key is one key, for both keys and records: a combined signing key.
type Key struct {
	// Active has it sign. A key that isn't is only published, so that
	// resolvers know it before and after it signs.
	Active bool
	// Announce has the parent asked, by CDS and CDNSKEY records (RFC 7344), to
	// have its DS record point to this key.
	Announce bool

	public *dns.DNSKEY
	signer crypto.Signer
}

const (
	defaultValidity = 7 * 24 * time.Hour
	// inceptionBack is how far in the past signatures begin, for resolvers
	// whose clocks are slow.
	inceptionBack = 2 * time.Hour
	keyTTL        = 3600
)

// GenerateKey makes a new ECDSA P-256 key (algorithm 13, RFC 6605) for a zone.
func GenerateKey(zone string) (*Key, error) {
	k := &dns.DNSKEY{
		Hdr:   dns.RR_Header{Name: dns.Fqdn(strings.ToLower(zone)), Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: keyTTL},
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	priv, err := k.Generate(256)
	if err != nil {
		return nil, fmt.Errorf("geodns: key for %s: %w", zone, err)
	}
	return &Key{public: k, signer: priv.(crypto.Signer)}, nil
}

// ReadKey reads a key as BIND's tools write it: its public part, a DNSKEY record,
// and its private part. name is for errors.
func ReadKey(public, private io.Reader, name string) (*Key, error) {
	zp := dns.NewZoneParser(public, "", name+".key")
	rr, ok := zp.Next()
	if !ok {
		return nil, fmt.Errorf("geodns: key %s: %w", name, cmpError(zp.Err(), errors.New("there is no DNSKEY record")))
	}
	k, ok := rr.(*dns.DNSKEY)
	if !ok || k.Flags&dns.ZONE == 0 {
		return nil, fmt.Errorf("geodns: key %s: the record is no DNSKEY of a zone", name)
	}
	priv, err := k.ReadPrivateKey(private, name+".private")
	if err != nil {
		return nil, fmt.Errorf("geodns: key %s: its private part: %w", name, err)
	}
	s, ok := priv.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("geodns: key %s: its algorithm can't sign here", name)
	}
	k.Hdr.Name = strings.ToLower(k.Hdr.Name)
	key := &Key{public: k, signer: s}
	if err := key.proves(); err != nil {
		return nil, fmt.Errorf("geodns: key %s: %w", name, err)
	}
	return key, nil
}

func cmpError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// proves signs something and checks it, so that a private part of another key is
// found before answers are signed with it.
func (k *Key) proves() error {
	rrs := []dns.RR{dns.Copy(k.public)}
	sig := k.newSig(rrs[0].Header(), time.Now(), defaultValidity)
	if err := sig.Sign(k.signer, rrs); err != nil {
		return err
	}
	if err := sig.Verify(k.public, rrs); err != nil {
		return fmt.Errorf("the public and the private part don't belong together: %w", err)
	}
	return nil
}

// Write writes the key as BIND's tools do. What it writes to private is a secret.
func (k *Key) Write(public, private io.Writer) error {
	if _, err := fmt.Fprintln(public, k.public); err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	if _, err := io.WriteString(private, k.public.PrivateKeyString(k.signer)); err != nil {
		return fmt.Errorf("geodns: %w", err)
	}
	return nil
}

// Tag returns the key's tag (RFC 4034 appendix B).
func (k *Key) Tag() uint16 { return k.public.KeyTag() }

// Zone returns the name of the key's zone.
func (k *Key) Zone() string { return k.public.Hdr.Name }

// DS returns the record for the parent zone, with a digest of SHA-256.
func (k *Key) DS() string {
	ds := k.public.ToDS(dns.SHA256)
	ds.Hdr.Ttl = keyTTL
	return ds.String()
}

// String tells which key it is, and nothing secret.
func (k *Key) String() string {
	return fmt.Sprintf("%s %s %d", k.Zone(), dns.AlgorithmToString[k.public.Algorithm], k.Tag())
}

func (k *Key) newSig(h *dns.RR_Header, now time.Time, validity time.Duration) *dns.RRSIG {
	return &dns.RRSIG{
		Hdr:        dns.RR_Header{Name: h.Name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: h.Ttl},
		Inception:  uint32(now.Add(-inceptionBack).Unix()),
		Expiration: uint32(now.Add(validity).Unix()),
		KeyTag:     k.public.KeyTag(), SignerName: k.public.Hdr.Name, Algorithm: k.public.Algorithm,
	}
}

// signer signs the answers of a zone.
type signer struct {
	keys     []*Key // those that sign
	validity time.Duration
	zone     string
	seed     maphash.Seed

	mu       sync.Mutex // below: signatures made for names that are not in the table
	now, old map[uint64]*sigData
	made     time.Time // when budget was last filled up
	budget   int       // signatures that may still be made for queries over UDP
}

const (
	// maxCached bounds the signatures kept for names that aren't in the table.
	maxCached = 10_000
	// signRate is how many of these are made a second for queries over UDP.
	// Whoever asks for random names in others' names can have no more of them
	// made; real clients are told to use TCP meanwhile.
	signRate = 1000
)

// errBusy says that no more signatures are made just now.
var errBusy = errors.New("too many signatures")

// signed is a set that is in the table, and its signatures.
type signed struct {
	name wireName
	rrs  []dns.RR
	data atomic.Pointer[sigData]
}

// sigData is signatures as they go on the wire, as an rrset has it.
type sigData struct {
	rrset
	name               wireName
	inception, renewal int64 // Unix time
}

// good reports whether signatures may be used at a time. A wall clock that is set
// back to before they begin makes them useless, too.
func (d *sigData) good(now int64) bool { return d != nil && now >= d.inception && now < d.renewal }

// sign has the zone's sets signed when they are first asked for, and adds those
// that keys bring along.
func (zt *zoneTable) sign(t *table) error {
	keys := zt.zone.Keys
	if keys == nil {
		return nil
	}
	s := &signer{zone: zt.zone.Origin(), validity: keys.Validity, seed: maphash.MakeSeed(), now: make(map[uint64]*sigData)}
	if s.validity == 0 {
		s.validity = defaultValidity
	}
	var all, cds []dns.RR
	for _, k := range keys.Keys {
		if k.Zone() != strings.ToLower(s.zone) {
			return fmt.Errorf("geodns: zone %s: key %d is of zone %s", s.zone, k.Tag(), k.Zone())
		}
		if k.Active {
			s.keys = append(s.keys, k)
		}
		all = append(all, k.public)
		if k.Announce {
			cds = append(cds, k.public.ToDS(dns.SHA256).ToCDS(), k.public.ToCDNSKEY())
		}
	}
	if len(s.keys) == 0 {
		return fmt.Errorf("geodns: zone %s: none of its keys is active", s.zone)
	}
	for _, typ := range []uint16{typeDNSKEY, typeCDS, typeCDNSK} {
		if err := zt.addKeys(typ, all, cds); err != nil {
			return err
		}
	}
	zt.signer = s
	zt.negative.sig = &signed{name: zt.zone.origin, rrs: []dns.RR{zt.zone.soa}}
	for _, n := range t.nodes {
		if n.zone != zt {
			continue
		}
		for i := range n.sets {
			set := &n.sets[i]
			rrs := zt.zone.records[n.name][set.typ]
			if len(rrs) == 0 {
				rrs = unpackSet(n.name, set)
			}
			set.sig = &signed{name: n.name, rrs: rrs}
		}
	}
	return nil
}

// addKeys adds the records of keys to the apex.
func (zt *zoneTable) addKeys(typ uint16, all, cds []dns.RR) error {
	var rrs []dns.RR
	for _, rr := range slices.Concat(all, cds) {
		if rr.Header().Rrtype == typ {
			rr = dns.Copy(rr)
			rr.Header().Ttl = keyTTL
			rrs = append(rrs, rr)
		}
	}
	if len(rrs) == 0 {
		return nil
	}
	s, err := packSet(rrs)
	if err != nil {
		return fmt.Errorf("geodns: zone %s: %w", zt.zone.Origin(), err)
	}
	zt.apex.sets = append(zt.apex.sets, s)
	return nil
}

// unpackSet returns the records of a set.
func unpackSet(name wireName, s *rrset) (rrs []dns.RR) {
	for i, start := range s.start {
		end := len(s.wire)
		if i+1 < len(s.start) {
			end = int(s.start[i+1])
		}
		b := append([]byte(name), s.wire[int(start)+2:end]...)
		if rr, _, err := dns.UnpackRR(b, 0); err == nil {
			rrs = append(rrs, rr)
		}
	}
	return rrs
}

// make signs records for an owner.
func (s *signer) make(owner wireName, rrs []dns.RR, now time.Time) (*sigData, error) {
	set := make([]dns.RR, len(rrs))
	for i, rr := range rrs {
		set[i] = dns.Copy(rr)
		set[i].Header().Name = textName(owner)
	}
	d := &sigData{name: owner, inception: now.Add(-inceptionBack).Unix(), renewal: now.Add(s.validity / 2).Unix()}
	var sigs []dns.RR
	for _, k := range s.keys {
		sig := k.newSig(set[0].Header(), now, s.validity)
		if err := sig.Sign(k.signer, set); err != nil {
			return nil, fmt.Errorf("geodns: zone %s: signing %s: %w", s.zone, textName(owner), err)
		}
		sigs = append(sigs, sig)
	}
	var err error
	d.rrset, err = packSet(sigs)
	return d, err
}

// of returns the signatures of a set for an owner.
//
// Those of sets in the table are always made; others, for queries over UDP, within
// a budget.
func (s *signer) of(set *rrset, owner []byte, ttl uint32, now time.Time, stream bool) (*sigData, error) {
	if sg := set.sig; sg != nil && sg.name == string(owner) {
		if d := sg.data.Load(); d.good(now.Unix()) {
			return d, nil
		}
		d, err := s.make(sg.name, sg.rrs, now)
		if err == nil {
			sg.data.Store(d)
		}
		return d, err
	}
	return s.cached(set, owner, ttl, now, stream)
}

// allow takes one signature off the budget.
func (s *signer) allow(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := now.Sub(s.made); d >= time.Second || d < 0 {
		s.budget, s.made = signRate, now
	}
	s.budget--
	return s.budget >= 0
}

// cached signs a set for an owner that isn't in the table, or whose content
// changes: the key of the cache is all that is signed.
func (s *signer) cached(set *rrset, owner []byte, ttl uint32, now time.Time, stream bool) (*sigData, error) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	h.Write(owner)
	// Every record by itself, in any order.
	var sum uint64
	for i, start := range set.start {
		end := len(set.wire)
		if i+1 < len(set.start) {
			end = int(set.start[i+1])
		}
		rr := set.wire[start:end]
		sum += maphash.Bytes(s.seed, rr[10:]) // without owner, type, class, TTL
	}
	var fixed [14]byte
	binary.BigEndian.PutUint64(fixed[:], sum)
	binary.BigEndian.PutUint32(fixed[8:], ttl)
	binary.BigEndian.PutUint16(fixed[12:], set.typ)
	h.Write(fixed[:])
	key := h.Sum64()

	s.mu.Lock()
	d := s.now[key]
	if d == nil {
		if d = s.old[key]; d != nil {
			s.keep(key, d) // what is asked for survives a flood of names
		}
	}
	s.mu.Unlock()
	if d.good(now.Unix()) && d.name == string(owner) {
		return d, nil
	}
	if !stream && !s.allow(now) {
		return nil, errBusy
	}
	rrs := unpackSet(string(owner), set)
	for _, rr := range rrs {
		rr.Header().Ttl = ttl
	}
	d, err := s.make(string(owner), rrs, now)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keep(key, d)
	return d, nil
}

// keep keeps signatures, and of the others those that are younger or were asked
// for lately. Its caller holds mu.
func (s *signer) keep(key uint64, d *sigData) {
	if len(s.now) >= maxCached/2 {
		s.now, s.old = make(map[uint64]*sigData), s.now
	}
	s.now[key] = d
}

// putSig appends the signatures of a set.
func (r *responder) putSig(count *uint16, z *zoneTable, set *rrset, owner uint16, ttl uint32, name []byte) {
	d, err := z.signer.of(set, name, ttl, r.now, r.stream)
	if errors.Is(err, errBusy) {
		r.tc = true
		return
	}
	if err != nil {
		r.s.failed(err)
		r.rcode, r.sign = rcodeServFail, false
		return
	}
	if !r.room(len(d.wire)) {
		return
	}
	r.b = appendSet(r.b, &d.rrset, owner, ttl, 0)
	*count += uint16(len(d.start))
}

// deny proves that there is no such type at a name, or no such name at all, by
// compact denial of existence (RFC 9824). The proof itself, or its signature, is
// the answer to who asks for that.
func (r *responder) deny(z *zoneTable, n *node, name *qname, missing bool) {
	types := []uint16{typeRRSIG, typeNSEC}
	if missing {
		types = append(types, typeNXNAME)
		if !r.q.compactOK {
			r.rcode = rcodeSuccess // RFC 9824 section 3: the bitmap says it
		}
	} else {
		for i := range n.sets {
			types = append(types, n.sets[i].typ)
		}
		if n.cut != nil {
			types = append(types, typeNS)
		}
		if n.geo != nil && len(n.geo.Targets) == 0 {
			for _, t := range []uint16{typeA, typeAAAA} {
				if t != r.q.qtype {
					types = append(types, t)
				}
			}
		}
	}
	ttl := z.negative.ttl
	if r.varies {
		// A proof knows no client's subnet. A resolver that makes answers of
		// the proofs it has (RFC 8198) must not keep this one for others.
		ttl = 0
	}
	owner, own := name.pointer(0), name.bytes()
	switch set := nsec(ttl, own, types); r.q.qtype {
	case typeRRSIG:
		r.putSig(&r.an, z, set, owner, ttl, own)
	case typeNSEC:
		r.put(&r.an, z, set, owner, ttl, own)
	default:
		r.put(&r.ns, z, set, owner, ttl, own)
	}
}

// denyDS proves that a delegation is not signed.
func (r *responder) denyDS(n *node, owner uint16, name []byte) {
	ttl := n.zone.negative.ttl
	r.put(&r.ns, n.zone, nsec(ttl, name, []uint16{typeNS, typeRRSIG, typeNSEC}), owner, ttl, name)
}

// nsec makes an NSEC record that speaks of one name only.
func nsec(ttl uint32, name []byte, types []uint16) *rrset {
	slices.Sort(types)
	b := binary.BigEndian.AppendUint16(nil, 0xc00c)
	b = binary.BigEndian.AppendUint16(b, typeNSEC)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	at := len(b)
	b = append(b, 0, 0)
	b = appendNext(b, name)
	b = appendBitmap(b, slices.Compact(types))
	binary.BigEndian.PutUint16(b[at:], uint16(len(b)-at-2))
	return &rrset{typ: typeNSEC, start: []uint16{0}, wire: b}
}

// appendNext appends the name that follows another directly in the order of
// names: a child of one octet 0 or, where that would be too long, the name with
// one more in the last octet of its first label.
func appendNext(b, name []byte) []byte {
	if len(name)+2 <= maxName {
		return append(append(b, 1, 0), name...)
	}
	at := len(b)
	b = append(b, name...)
	for i := at + int(b[at]); i > at; i-- {
		if b[i]++; b[i] != 0 {
			if lower(b[i]) != b[i] {
				b[i] = '[' // behind Z, as letters compare in lower case
			}
			break
		}
	}
	return b
}

// appendBitmap appends types as RFC 4034 section 4.1.2 has it.
func appendBitmap(b []byte, types []uint16) []byte {
	for i := 0; i < len(types); {
		window := types[i] >> 8
		at := len(b)
		b = append(b, byte(window), 0)
		for ; i < len(types) && types[i]>>8 == window; i++ {
			o := int(types[i]&0xff) / 8
			for len(b) < at+2+o+1 {
				b = append(b, 0)
			}
			b[at+2+o] |= 0x80 >> (types[i] & 7)
		}
		b[at+1] = byte(len(b) - at - 2)
	}
	return b
}
