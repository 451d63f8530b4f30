package ikev2

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strings"
)

// MaxFragments bounds the IKE fragments of one message that are kept book of.
// Windows cuts messages into pieces of some 500 octets, so even one of 64 KiB
// has fewer.
const MaxFragments = 256

// fragmentHeaderLen is the length of what an Encrypted Fragment payload has after
// its generic header: fragment number and total (RFC 7383 §2.5).
const fragmentHeaderLen = 4

// A FragmentState says what came of a fragment.
type FragmentState uint8

const (
	// FragmentNew is one that hadn't come before.
	FragmentNew FragmentState = iota
	// FragmentDuplicate is one that had.
	FragmentDuplicate
	// FragmentRestart is one of a message that its sender has cut into more
	// pieces than before: those that came before don't count any more.
	FragmentRestart
	// FragmentStale is one of a message that has been cut into more pieces
	// meanwhile: it doesn't count.
	FragmentStale
	// FragmentInvalid has a number or a total that can't be.
	FragmentInvalid
)

func (s FragmentState) String() string {
	switch s {
	case FragmentNew:
		return "new"
	case FragmentDuplicate:
		return "duplicate"
	case FragmentRestart:
		return "restart"
	case FragmentStale:
		return "stale"
	case FragmentInvalid:
		return "invalid"
	}
	return fmt.Sprintf("FragmentState(%d)", uint8(s))
}

// A FragmentSet keeps book of the IKE fragments of one message (RFC 7383): which
// have come, which are missing. It holds no contents, and has a fixed size
// whatever is sent. The zero FragmentSet is empty.
type FragmentSet struct {
	total  uint16
	count  uint16
	have   [MaxFragments / 64]uint64
	again  uint32 // duplicates
	resets uint16 // restarts
	octets int
}

// Add takes note of a fragment: its number, from 1, of how many, and how many
// octets of the message it brought. As RFC 7383 §2.6 has it, a larger total
// means that the sender began again with smaller pieces, and a smaller one is
// late.
func (s *FragmentSet) Add(number, total uint16, octets int) FragmentState {
	switch {
	case number == 0 || total == 0 || number > total || total > MaxFragments:
		return FragmentInvalid
	case total < s.total:
		return FragmentStale
	case total > s.total && s.total != 0:
		*s = FragmentSet{again: s.again, resets: s.resets + 1}
		s.take(number, total, octets)
		return FragmentRestart
	}
	if s.Has(number) {
		s.again++
		return FragmentDuplicate
	}
	s.take(number, total, octets)
	return FragmentNew
}

func (s *FragmentSet) take(number, total uint16, octets int) {
	s.total = total
	s.count++
	s.octets += octets
	s.have[(number-1)/64] |= 1 << ((number - 1) % 64)
}

// Has reports whether fragment number has come.
func (s *FragmentSet) Has(number uint16) bool {
	return number > 0 && number <= MaxFragments && s.have[(number-1)/64]&(1<<((number-1)%64)) != 0
}

// Total is how many fragments the message has; 0 if none has come.
func (s *FragmentSet) Total() int { return int(s.total) }

// Count is how many of them have come.
func (s *FragmentSet) Count() int { return int(s.count) }

// Duplicates is how many came again.
func (s *FragmentSet) Duplicates() int { return int(s.again) }

// Restarts is how often the sender began again with smaller pieces.
func (s *FragmentSet) Restarts() int { return int(s.resets) }

// Octets is how long all that came are together, headers included.
func (s *FragmentSet) Octets() int { return s.octets }

// Whole reports whether all have come.
func (s *FragmentSet) Whole() bool { return s.total > 0 && s.count == s.total }

// Missing returns the numbers of those that have not come, as text: "2, 5-7".
func (s *FragmentSet) Missing() string {
	var parts []string
	for n := uint16(1); n <= s.total; n++ {
		if s.Has(n) {
			// All of a word at once: a full set costs little.
			n += uint16(bits.TrailingZeros64(^(s.have[(n-1)/64] >> ((n - 1) % 64)))) - 1
			continue
		}
		last := n
		for last < s.total && !s.Has(last+1) {
			last++
		}
		if last == n {
			parts = append(parts, fmt.Sprint(n))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", n, last))
		}
		n = last
	}
	return strings.Join(parts, ", ")
}

// fragmentNumber reads the header of the Encrypted Fragment payload with which
// msg, an IKE message or the beginning of one, starts.
func fragmentNumber(msg []byte) (number, total uint16, ok bool) {
	if len(msg) < HeaderLen+payloadHeaderLen+fragmentHeaderLen || PayloadType(msg[16]) != PayloadSKF {
		return 0, 0, false
	}
	b := msg[HeaderLen+payloadHeaderLen:]
	return binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]), true
}
