package lb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"slices"
	"time"
)

// A snapshot is the clients of a Table, so that a restart forgets nobody.
//
//	"aovlbT1\n"  magic and version
//	int64        when it was made, Unix milliseconds
//	uint16       number of backends; each: uint16 length and name
//	records      byte 1, then
//	               uint16 backend, byte stage, byte why,
//	               uint32 age, uint32 silence (tenths of a second)
//	               source key, byte number of names, names latest first
//	byte 0       the end
//	uint64       CRC-64 (ECMA) of all before
//
// A key is its space, two uint64 and two uint16. Numbers are big-endian.
const snapshotMagic = "aovlbT1\n"

// maxSnapshot bounds what Restore reads.
const maxSnapshot = 1 << 30

const keyLen = 1 + 16 + 4

// ErrSnapshot says that a snapshot is damaged or of another version.
var ErrSnapshot = errors.New("lb: damaged snapshot")

var crcTable = crc64.MakeTable(crc64.ECMA)

func appendKey(b []byte, k Key) []byte {
	b = append(b, byte(k.Space()))
	b = binary.BigEndian.AppendUint64(b, k.hi)
	b = binary.BigEndian.AppendUint64(b, k.lo)
	return binary.BigEndian.AppendUint32(b, uint32(k.meta))
}

func parseKey(b []byte) Key {
	return Key{
		hi: binary.BigEndian.Uint64(b[1:]), lo: binary.BigEndian.Uint64(b[9:]),
		meta: uint64(b[0])<<32 | uint64(binary.BigEndian.Uint32(b[17:])),
	}
}

// Snapshot writes all clients of the Table, for Restore. Packets are served
// meanwhile. It returns how many clients it wrote.
func (b *Balancer) Snapshot(w io.Writer) (int, error) {
	view := b.Pool.View()
	now := time.Now()
	head := append([]byte(nil), snapshotMagic...)
	head = binary.BigEndian.AppendUint64(head, uint64(now.UnixMilli()))
	head = binary.BigEndian.AppendUint16(head, uint16(len(view.Members)))
	number := make(map[ID]uint16, len(view.Members))
	for i, m := range view.Members {
		number[m.ID] = uint16(i)
		head = binary.BigEndian.AppendUint16(head, uint16(len(m.Name)))
		head = append(head, m.Name...)
	}
	sum := crc64.New(crcTable)
	out := io.MultiWriter(w, sum)
	if _, err := out.Write(head); err != nil {
		return 0, fmt.Errorf("lb: write snapshot: %w", err)
	}
	n := 0
	var buf []byte
	for c := range b.Table.Clients() {
		backend, ok := number[c.Backend]
		if !ok {
			continue
		}
		buf = appendClient(buf[:0], c, backend, now)
		if _, err := out.Write(buf); err != nil {
			return n, fmt.Errorf("lb: write snapshot: %w", err)
		}
		n++
	}
	if _, err := out.Write([]byte{0}); err != nil {
		return n, fmt.Errorf("lb: write snapshot: %w", err)
	}
	if err := binary.Write(w, binary.BigEndian, sum.Sum64()); err != nil {
		return n, fmt.Errorf("lb: write snapshot: %w", err)
	}
	return n, nil
}

func appendClient(b []byte, c Client, backend uint16, now time.Time) []byte {
	b = append(b, 1)
	b = binary.BigEndian.AppendUint16(b, backend)
	b = append(b, byte(c.Stage), byte(c.Why))
	b = binary.BigEndian.AppendUint32(b, uint32(max(now.Sub(c.Since), 0)/tickLen))
	b = binary.BigEndian.AppendUint32(b, uint32(max(now.Sub(c.Seen), 0)/tickLen))
	b = appendKey(b, c.Source)
	b = append(b, byte(len(c.Names)))
	for _, k := range c.Names {
		b = appendKey(b, k)
	}
	return b
}

// Restore reads a snapshot into the Table, beside what it holds. Clients whose
// time has passed since, or whose backend isn't in the Pool, are left out. The
// Table is unchanged if the snapshot is damaged: the error is then [ErrSnapshot]
// with what is wrong. It returns how many clients it restored and left out.
func (b *Balancer) Restore(r io.Reader) (restored, skipped int, err error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSnapshot+1))
	if err != nil {
		return 0, 0, fmt.Errorf("lb: read snapshot: %w", err)
	}
	clients, names, made, err := parseSnapshot(data)
	if err != nil {
		return 0, 0, err
	}
	view := b.Pool.View()
	// Bounded, so that more time can be added.
	away := min(max(time.Since(made), 0), 1<<62)
	// The list of clients is in the order of when each was last heard of.
	slices.SortStableFunc(clients, func(a, b savedClient) int { return int(b.silence - a.silence) })
	t := b.Table
	for _, s := range clients {
		m := view.ByName(names[s.Backend])
		if m == nil || s.Stage == StageNone {
			skipped++
			continue
		}
		t.mu.Lock()
		ok := t.restore(s, m, away)
		t.mu.Unlock()
		if ok {
			restored++
		} else {
			skipped++
		}
	}
	return restored, skipped, nil
}

// savedClient is a Client as a snapshot has it: its Backend is the number of a
// name in the snapshot.
type savedClient struct {
	Client
	age, silence time.Duration
}

func (t *Table) restore(s savedClient, m *Member, away time.Duration) bool {
	now := t.now()
	limit := t.idle()
	if s.Stage != StageEstablished {
		limit = t.halfOpen()
	}
	silence := s.silence + away
	if silence > limit || time.Duration(now)*tickLen < silence {
		return false
	}
	if t.client(firstKey(s.Names), now) != 0 {
		return false // heard of since: what is known now is newer
	}
	c := t.add(m, s.Source, s.Stage, WhyRestored, now)
	if c == 0 {
		return false
	}
	r := &t.clients.items[c]
	r.seen = now - tick(silence/tickLen)
	r.since = now - min(now, tick((s.age+away)/tickLen))
	for _, k := range slices.Backward(s.Names) {
		t.addName(c, k, now)
	}
	if r = &t.clients.items[c]; r.names == 0 {
		t.remove(c) // none of the names was to be had
		return false
	}
	t.arm()
	return true
}

func parseSnapshot(data []byte) (clients []savedClient, backends []string, made time.Time, err error) {
	bad := func(at int, what string) error { return fmt.Errorf("%w: %s at byte %d", ErrSnapshot, what, at) }
	if len(data) > maxSnapshot {
		return nil, nil, made, bad(maxSnapshot, "too large")
	}
	if !bytes.HasPrefix(data, []byte(snapshotMagic)) {
		return nil, nil, made, bad(0, "not a snapshot, or of another version")
	}
	if len(data) < len(snapshotMagic)+10+1+8 {
		return nil, nil, made, bad(len(data), "cut off")
	}
	body := data[:len(data)-8]
	if crc64.Checksum(body, crcTable) != binary.BigEndian.Uint64(data[len(body):]) {
		return nil, nil, made, bad(len(body), "wrong checksum")
	}
	p := body[len(snapshotMagic):]
	at := func() int { return len(body) - len(p) }
	made = time.UnixMilli(int64(binary.BigEndian.Uint64(p)))
	count := int(binary.BigEndian.Uint16(p[8:]))
	p = p[10:]
	for range count {
		if len(p) < 2 || len(p) < 2+int(binary.BigEndian.Uint16(p)) {
			return nil, nil, made, bad(at(), "backend name cut off")
		}
		n := 2 + int(binary.BigEndian.Uint16(p))
		backends = append(backends, string(p[2:n]))
		p = p[n:]
	}
	const fixed = 1 + 2 + 2 + 8 + keyLen + 1
	for len(p) > 0 && p[0] == 1 {
		if len(p) < fixed || len(p) < fixed+int(p[fixed-1])*keyLen {
			return nil, nil, made, bad(at(), "client cut off")
		}
		c := parseClient(p)
		if int(c.Backend) >= len(backends) || c.Stage > StageEstablished {
			return nil, nil, made, bad(at(), "impossible client")
		}
		clients = append(clients, c)
		p = p[fixed+len(c.Names)*keyLen:]
	}
	if len(p) != 1 || p[0] != 0 {
		return nil, nil, made, bad(at(), "no end")
	}
	return clients, backends, made, nil
}

func parseClient(p []byte) savedClient {
	c := savedClient{
		Client: Client{
			Backend: ID(binary.BigEndian.Uint16(p[1:])),
			Stage:   Stage(p[3]), Why: Why(p[4]),
			Source: parseKey(p[13:]),
		},
		age:     time.Duration(binary.BigEndian.Uint32(p[5:])) * tickLen,
		silence: time.Duration(binary.BigEndian.Uint32(p[9:])) * tickLen,
	}
	names := p[13+keyLen+1:]
	for i := range int(p[13+keyLen]) {
		c.Names = append(c.Names, parseKey(names[i*keyLen:]))
	}
	return c
}
