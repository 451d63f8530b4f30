package ikev2

import (
	"math/rand/v2"
	"testing"
)

func TestFragmentSet(t *testing.T) {
	var s FragmentSet
	for _, x := range []struct {
		n, total uint16
		want     FragmentState
		missing  string
	}{
		{0, 3, FragmentInvalid, ""},
		{4, 3, FragmentInvalid, ""},
		{1, MaxFragments + 1, FragmentInvalid, ""},
		{2, 5, FragmentNew, "1, 3-5"},
		{2, 5, FragmentDuplicate, "1, 3-5"},
		{5, 5, FragmentNew, "1, 3-4"},
		{1, 9, FragmentRestart, "2-9"},
		{1, 5, FragmentStale, "2-9"},
		{9, 9, FragmentNew, "2-8"},
	} {
		if got := s.Add(x.n, x.total, 100); got != x.want || s.Missing() != x.missing {
			t.Errorf("%d of %d: %v, missing %q, want %v, %q", x.n, x.total, got, s.Missing(), x.want, x.missing)
		}
	}
	for n := uint16(2); n < 9; n++ {
		s.Add(n, 9, 100)
	}
	if !s.Whole() || s.Missing() != "" || s.Total() != 9 || s.Count() != 9 || s.Duplicates() != 1 || s.Restarts() != 1 || s.Octets() != 900 {
		t.Errorf("got %+v", s)
	}
	var all FragmentSet
	for _, n := range rand.Perm(MaxFragments) {
		if all.Whole() {
			t.Fatal("whole too early")
		}
		all.Add(uint16(n)+1, MaxFragments, 1)
	}
	if !all.Whole() || all.Missing() != "" {
		t.Errorf("missing %s", all.Missing())
	}
}

// FuzzFragmentSet holds a FragmentSet against a map.
func FuzzFragmentSet(f *testing.F) {
	f.Add([]byte{1, 3, 2, 3, 3, 3}, uint16(1))
	f.Add([]byte{1, 3, 1, 3, 1, 4, 2, 3}, uint16(80))
	f.Fuzz(func(t *testing.T, b []byte, scale uint16) {
		var s FragmentSet
		total, have := uint16(0), map[uint16]bool{}
		for ; len(b) >= 2; b = b[2:] {
			n, m := uint16(b[0])*scale, uint16(b[1])*scale
			s.Add(n, m, 1)
			if n == 0 || m == 0 || n > m || m > MaxFragments || m < total {
				continue
			}
			if m > total {
				total = m
				clear(have)
			}
			have[n] = true
		}
		if s.Total() != int(total) || s.Count() != len(have) || s.Whole() != (total > 0 && len(have) == int(total)) || (s.Missing() == "") != (len(have) == int(total)) {
			t.Errorf("%d of %d, missing %q; want %d of %d", s.Count(), s.Total(), s.Missing(), len(have), total)
		}
	})
}
