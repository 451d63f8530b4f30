package spool

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"time"
)

// The file progress is a sequence of entries of 32 bytes, numbers in big endian:
//
//	0        1       4       8        16      24
//	kind(1)  zero(3) crc(4)  from(8)  to(8)   time(8)
//
// An entry "sent" is synced before the records from..to are handed out. "Taken"
// may be synced later: at worst a record is handed out once more, and marked.
// "Low" begins the file: every record before to has been dealt with. "Doubt" says
// that nobody knows whether those up to to were handed out. "Lost" are numbers of
// writes that failed, and weren't acknowledged: should the disk hold records of
// these numbers all the same, they don't count.

const (
	progressFile = "progress"
	entryLen     = 32
)

type entryKind byte

const (
	entryLow   entryKind = 1
	entrySent  entryKind = 2
	entryTaken entryKind = 3
	entryDoubt entryKind = 4
	entryLost  entryKind = 5
)

type entry struct {
	kind     entryKind
	from, to uint64 // inclusive
	time     time.Time
	attempt  int // of sent
}

func (e entry) append(b []byte) []byte {
	at := len(b)
	b = append(b, byte(e.kind), 0, byte(e.attempt>>8), byte(e.attempt), 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, e.from)
	b = binary.BigEndian.AppendUint64(b, e.to)
	b = binary.BigEndian.AppendUint64(b, uint64(millis(e.time)))
	binary.BigEndian.PutUint32(b[at+4:], entrySum(b[at:]))
	return b
}

func entrySum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:4])
	return crc32.Update(c, castagnoli, b[8:entryLen])
}

func parseEntry(b []byte) (entry, bool) {
	if len(b) < entryLen || binary.BigEndian.Uint32(b[4:]) != entrySum(b) {
		return entry{}, false
	}
	e := entry{
		kind: entryKind(b[0]), attempt: int(b[2])<<8 | int(b[3]),
		from: binary.BigEndian.Uint64(b[8:]), to: binary.BigEndian.Uint64(b[16:]),
		time: fromMillis(int64(binary.BigEndian.Uint64(b[24:]))),
	}
	return e, e.kind >= entryLow && e.kind <= entryLost && e.from <= e.to
}

// A span is some numbers of records, both ends included.
type span struct{ from, to uint64 }

func within(spans []span, seq uint64) bool {
	return slices.ContainsFunc(spans, func(n span) bool { return n.from <= seq && seq <= n.to })
}

// sending is what is known of a record that was handed out.
type sending struct {
	last    time.Time
	attempt int
}

// progress is what has been handed out and taken. It isn't safe for use from
// several goroutines.
type progress struct {
	// low is the first record that isn't dealt with.
	low   uint64
	taken map[uint64]bool // of those from low on
	sent  map[uint64]sending
	// doubt is the last record of which nobody knows whether it was handed out,
	// at the latest at doubtTime, since the file was damaged or missing.
	doubt     uint64
	doubtTime time.Time

	// lost are the numbers of failed writes of this life.
	lost []span

	disk  disk
	file  file
	size  int64
	dirty bool // a write failed: the file must be written anew
	buf   []byte
}

func (p *progress) reset() { p.taken, p.sent = make(map[uint64]bool), make(map[uint64]sending) }

// apply takes in an entry. What it costs is bounded by what is on disk: limit is
// the last record that there is.
func (p *progress) apply(e entry, limit uint64) {
	switch e.kind {
	case entryLow:
		p.low = max(p.low, e.to)
	case entrySent:
		for seq := max(e.from, p.low); seq <= min(e.to, limit); seq++ {
			p.sent[seq] = sending{e.time, e.attempt}
		}
	case entryDoubt:
		p.doubt, p.doubtTime = e.to, e.time
	case entryTaken:
		for seq := max(e.from, p.low); seq <= min(e.to, limit); seq++ {
			p.taken[seq] = true
			delete(p.sent, seq)
		}
	}
}

// advance moves low over what is taken. Only records that exist count.
func (p *progress) advance(next uint64) {
	for p.low < next && p.taken[p.low] {
		delete(p.taken, p.low)
		p.low++
	}
}

// lose counts numbers as those of a failed write.
func (p *progress) lose(n span) {
	if k := len(p.lost); k > 0 && p.lost[k-1].to+1 == n.from {
		p.lost[k-1].to = n.to
		return
	}
	p.lost = append(p.lost, n)
}

// state returns what was known of a record.
func (p *progress) state(seq uint64) sending {
	s := p.sent[seq]
	if s.attempt == 0 && seq <= p.doubt {
		s = sending{p.doubtTime, 1}
	}
	return s
}

// entries reads the file. It reports whether it is damaged; if it is missing, err
// is an fs.ErrNotExist.
func (p *progress) entries() (all []entry, damaged bool, err error) {
	b, err := p.disk.read(progressFile)
	if err != nil {
		return nil, false, err
	}
	bad := false // since the last good one
	for at := 0; at < len(b); at += entryLen {
		e, ok := parseEntry(b[at:])
		if ok = ok && (e.kind == entryLow) == (at == 0); !ok {
			bad = true
			continue
		}
		// A crash leaves a torn last write, and what it would have said wasn't
		// relied on. Something whole behind it is another matter.
		damaged = damaged || bad
		bad = false
		all = append(all, e)
	}
	damaged = damaged || len(all) == 0 || all[0].kind != entryLow
	return all, damaged, nil
}

// write makes entries durable that have been applied.
func (p *progress) write(entries []entry) error {
	if p.dirty || p.size > maxProgress {
		return p.compact()
	}
	p.buf = p.buf[:0]
	for _, e := range entries {
		p.buf = e.append(p.buf)
	}
	_, err := p.file.Write(p.buf)
	if err == nil {
		err = p.file.Sync()
	}
	p.dirty = err != nil
	p.size += int64(len(p.buf))
	return err
}

// maxProgress is how long the file grows before it is written anew, in bytes.
const maxProgress = 1 << 20

// compact writes the file anew, with what still matters.
func (p *progress) compact() error {
	p.dirty = true
	b := entry{kind: entryLow, to: p.low}.append(nil)
	if p.doubt >= p.low && p.doubt > 0 {
		b = entry{kind: entryDoubt, from: p.low, to: p.doubt, time: p.doubtTime}.append(b)
	}
	for _, n := range p.lost {
		b = entry{kind: entryLost, from: n.from, to: n.to}.append(b)
	}
	for _, seq := range slices.Sorted(maps.Keys(p.taken)) {
		b = entry{kind: entryTaken, from: seq, to: seq}.append(b)
	}
	for _, seq := range slices.Sorted(maps.Keys(p.sent)) {
		s := p.sent[seq]
		b = entry{kind: entrySent, from: seq, to: seq, time: s.last, attempt: min(s.attempt, 1<<16-1)}.append(b)
	}
	if p.file != nil {
		err := p.file.Close()
		p.file = nil
		if err != nil {
			return err
		}
	}
	if err := replace(p.disk, progressFile, b); err != nil {
		return err
	}
	f, err := p.disk.open(progressFile)
	if err != nil {
		return err
	}
	p.file, p.size, p.dirty = f, int64(len(b)), false
	return nil
}
