package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	segmentSuffix = ".seg"
	badSuffix     = ".bad"
	tmpSuffix     = ".tmp"
	refusedFile   = "refused"
)

func segmentName(first uint64) string { return fmt.Sprintf("%016d%s", first, segmentSuffix) }

// segmentFirst returns the number of the first record of a file, if it is a
// segment.
func segmentFirst(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, segmentSuffix)
	if !ok || len(digits) < 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	return n, err == nil && segmentName(n) == name
}

// recover reads what a former life left.
func (s *Spool) recover() error {
	names, err := s.disk.list()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasSuffix(name, tmpSuffix) {
			if err := s.disk.remove(name); err != nil {
				return err
			}
		}
	}
	p := &s.deliver.progress
	p.disk = s.disk
	p.reset()
	entries, damaged, err := p.entries()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	all := recovered{byID: make(map[[16]byte]seen)}
	for _, e := range entries {
		if e.kind == entryLost {
			all.lost = append(all.lost, span{e.from, e.to})
		}
	}
	for _, first := range segmentsOf(names) {
		if err := s.recoverSegment(segmentName(first), first, &all); err != nil {
			return fmt.Errorf("%s: %w", segmentName(first), err)
		}
	}
	if (damaged || err != nil) && len(all.seqs) > 0 {
		if err := s.doubt(all.seqs[len(all.seqs)-1]); err != nil {
			return err
		}
	}
	return s.recoverProgress(entries, &all)
}

func segmentsOf(names []string) []uint64 {
	var firsts []uint64
	for _, name := range names {
		if first, ok := segmentFirst(name); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts
}

// recovered are the records that were found.
type recovered struct {
	seqs []uint64 // of all
	keys []uint64
	// twice are those that came again. The first was left by a write that
	// failed, and can't have been handed out.
	twice  []uint64
	lost   []span
	byID   map[[16]byte]seen
	recent []remembered
}

type seen struct {
	seq uint64
	at  time.Time
}

func (a *recovered) add(seq uint64, r *Record, remember time.Duration) {
	a.seqs, a.keys = append(a.seqs, seq), append(a.keys, r.Key)
	if r.ID == [16]byte{} {
		return
	}
	if old, ok := a.byID[r.ID]; ok && r.Time.Sub(old.at) < remember {
		a.twice = append(a.twice, old.seq)
	}
	a.byID[r.ID] = seen{seq, r.Time}
	a.recent = append(a.recent, remembered{r.ID, r.Time})
	if len(a.recent) > maxKnown {
		delete(a.byID, a.recent[0].id)
		a.recent = a.recent[1:]
	}
}

// recoverSegment reads a segment, and cuts off or sets aside what is no record.
func (s *Spool) recoverSegment(name string, first uint64, all *recovered) error {
	b, err := s.disk.read(name)
	if err != nil {
		return err
	}
	sc, err := scanSegment(b)
	had := len(sc.records)
	sc.records = slices.DeleteFunc(sc.records, func(f found) bool { return within(all.lost, f.seq) })
	if err != nil || sc.damaged > 0 {
		what := fmt.Sprintf("%d bytes among its records can't be read", sc.damaged)
		if err != nil {
			what = err.Error()
		}
		if err := s.damage(name, b, what); err != nil {
			return err
		}
	}
	if len(sc.records) == 0 {
		return errors.Join(s.disk.remove(name), s.disk.sync())
	}
	seg := &segment{name: name, first: first, size: int64(segmentHead)}
	for i := range sc.records {
		r := &sc.records[i]
		if n := len(s.segments); n > 0 && r.seq <= s.segments[n-1].last {
			return fmt.Errorf("record %d is in two segments: move one of them away", r.seq)
		}
		all.add(r.seq, &r.Record, s.c.Remember)
		seg.size += int64(r.n)
		seg.last, seg.newest = r.seq, later(seg.newest, r.Time)
		if time.Since(r.Time) < s.c.Remember {
			s.remember(r.ID, r.Time, true)
		}
	}
	if sc.damaged > 0 || sc.torn || had > len(sc.records) {
		if err := replace(s.disk, name, clean(b, sc)); err != nil {
			return err
		}
	}
	s.segments = append(s.segments, seg)
	s.bytes += seg.size
	return nil
}

// clean returns a segment with nothing but its good records.
func clean(b []byte, found scan) []byte {
	out := append([]byte(nil), segmentMagic...)
	for _, r := range found.records {
		out = append(out, b[r.at:r.at+int64(r.n)]...)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// doubt has all records up to last delivered as repeated, for nobody knows which
// were handed out.
func (s *Spool) doubt(last uint64) error {
	p := &s.deliver.progress
	p.doubt, p.doubtTime = last, time.Now()
	s.log.Error("the accounting spool doesn't know what was delivered: all that waits is delivered as repeated", "dir", s.c.Dir)
	b, err := s.disk.read(progressFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.n.damaged.Add(1)
		return nil
	}
	if err != nil {
		return err
	}
	return s.damage(progressFile, b, "entries can't be read")
}

// recoverProgress finds out which of the records still wait.
func (s *Spool) recoverProgress(entries []entry, all *recovered) error {
	p, seqs := &s.deliver.progress, all.seqs
	first, last := uint64(1), uint64(0)
	if n := len(seqs); n > 0 {
		first, last = seqs[0], seqs[n-1]
	}
	p.low = first
	for _, e := range entries {
		p.apply(e, last)
	}
	for _, seq := range all.twice {
		p.taken[seq] = true
	}
	if err := s.findGaps(seqs); err != nil {
		return err
	}
	for i, seq := range seqs {
		if seq >= p.low && !p.taken[seq] {
			s.waiting++
			s.keys[all.keys[i]]++
		}
	}
	s.low = p.low
	s.deliver.at = p.low
	return p.compact()
}

// maxGap is how many numbers in a row may have no record.
const maxGap = 1 << 24

// findGaps counts as dealt with the numbers that have no record: those of batches
// that failed, and of damage.
func (s *Spool) findGaps(seqs []uint64) error {
	p := &s.deliver.progress
	s.next = p.low
	for _, seq := range seqs {
		if seq < s.next {
			continue
		}
		if s.next == p.low {
			p.low = seq
		} else if seq-s.next > maxGap {
			return fmt.Errorf("record %d follows record %d: move the files away that don't belong here", seq, s.next-1)
		}
		for ; s.next < seq; s.next++ {
			p.taken[s.next] = true
		}
		s.next = seq + 1
	}
	p.advance(s.next)
	return nil
}

// segmentOf finds the segment that holds a record, or the next after it.
func (s *Spool) segmentOf(seq uint64) *segment {
	i, ok := slices.BinarySearchFunc(s.segments, seq, func(g *segment, seq uint64) int { return cmp.Compare(g.last, seq) })
	if !ok && i == len(s.segments) {
		return nil
	}
	return s.segments[i]
}
