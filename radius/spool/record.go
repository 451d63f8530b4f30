package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// A record on disk, numbers in big endian:
//
//	0        4           8       12      20      28      36      44     60
//	mark(4)  length(4)   crc(4)  seq(8)  key(8)  time(8) last(8) id(16) data…
//
// length is that of the data; the crc covers all but itself. The mark is there to
// find the next record behind a damaged one.

const (
	recordMark = "\xa0vR\x01"
	recordHead = 60
	// MaxData is the length of the longest record, in bytes.
	MaxData = 64 << 10
)

// A segment begins with what it is; the number of its first record is its name.
const (
	segmentMagic = "aovlb spool 1\n\x00\x00"
	segmentHead  = len(segmentMagic)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Record is what is kept.
type Record struct {
	// Key says which records must stay in order among themselves. Records of
	// different keys may be delivered at once.
	Key uint64
	// ID tells a record that comes again from a new one. The zero ID is
	// nobody's, and never known again.
	ID [16]byte
	// Time is when it came in, in UTC and milliseconds; zero means now.
	Time time.Time
	// Last is when it was sent to somebody who may have taken it, before it
	// came here. Zero means never.
	Last time.Time
	// Data is the record itself, up to MaxData bytes.
	Data []byte
}

var (
	errTorn    = errors.New("spool: record is cut off")
	errDamaged = errors.New("spool: record is damaged")
)

func appendRecord(b []byte, seq uint64, r *Record) []byte {
	at := len(b)
	b = append(b, recordMark...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Data)))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.BigEndian.AppendUint64(b, r.Key)
	b = binary.BigEndian.AppendUint64(b, uint64(millis(r.Time)))
	b = binary.BigEndian.AppendUint64(b, uint64(millis(r.Last)))
	b = append(b, r.ID[:]...)
	b = append(b, r.Data...)
	binary.BigEndian.PutUint32(b[at+8:], checksum(b[at:]))
	return b
}

// checksum is that of a whole record, without the place it is kept in.
func checksum(b []byte) uint32 {
	c := crc32.Update(0, castagnoli, b[:8])
	return crc32.Update(c, castagnoli, b[12:])
}

// parseRecord reads the record that b begins with, and returns its length. The
// data shares b.
func parseRecord(b []byte) (seq uint64, r Record, n int, err error) {
	if len(b) < recordHead {
		return 0, r, 0, errTorn
	}
	size := binary.BigEndian.Uint32(b[4:])
	if string(b[:4]) != recordMark || size > MaxData {
		return 0, r, 0, errDamaged
	}
	n = recordHead + int(size)
	if len(b) < n {
		return 0, r, 0, errTorn
	}
	if checksum(b[:n]) != binary.BigEndian.Uint32(b[8:]) {
		return 0, r, 0, errDamaged
	}
	r = Record{
		Key:  binary.BigEndian.Uint64(b[20:]),
		Time: fromMillis(int64(binary.BigEndian.Uint64(b[28:]))),
		Last: fromMillis(int64(binary.BigEndian.Uint64(b[36:]))),
		ID:   [16]byte(b[44:60]),
		Data: b[recordHead:n:n],
	}
	return binary.BigEndian.Uint64(b[12:]), r, n, nil
}

// millis and fromMillis keep the zero time zero.
func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// A found record, and where in its segment.
type found struct {
	seq uint64
	at  int64
	n   int
	Record
}

// A scan is what a segment holds.
type scan struct {
	records []found
	// end is where the last good record ends.
	end int64
	// torn says that something behind end is no record: the end that a crash
	// leaves.
	torn bool
	// damaged is how many bytes before end are none.
	damaged int64
}

// scanSegment reads a whole segment.
func scanSegment(b []byte) (scan, error) {
	var s scan
	if len(b) < segmentHead {
		s.torn = len(b) > 0
		return s, nil
	}
	if string(b[:segmentHead]) != segmentMagic {
		return s, fmt.Errorf("%w: it doesn't begin as a segment does", errDamaged)
	}
	at := segmentHead
	s.end = int64(at)
	next := uint64(0)
	for at < len(b) {
		seq, r, n, err := parseRecord(b[at:])
		if err != nil || seq < next {
			// Look for the next one: a record whose checksum is right.
			k := bytes.Index(b[at+1:], []byte(recordMark))
			if k < 0 {
				break
			}
			at += 1 + k
			continue
		}
		s.damaged += int64(at) - s.end
		s.records = append(s.records, found{seq, int64(at), n, r})
		at += n
		s.end = int64(at)
		next = seq + 1
	}
	s.torn = s.end < int64(len(b))
	return s, nil
}
