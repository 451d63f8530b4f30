package profilexml

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// manyRoutes are profiles with that many routes, each with something to find.
func manyRoutes(t testing.TB, n int) map[string][]byte {
	t.Helper()
	head, tail, _ := strings.Cut(string(read(t, "golden", "user-peap-tls.xml")), "  <Route>")
	tail = "  <Route>" + tail
	fill := func(route func(i int) string) string {
		var s strings.Builder
		s.WriteString(head)
		for i := range n {
			s.WriteString(route(i))
		}
		return s.String() + tail
	}
	form := func(format string) string {
		return fill(func(i int) string { return fmt.Sprintf(format, i>>16, i>>8&255, i&255) })
	}
	oneLine := strings.NewReplacer("\n", "", "  ", "").Replace
	good := form("  <Route>\n    <Address>10.%d.%d.%d</Address>\n    <PrefixSize>32</PrefixSize>\n    <Metric>1</Metric>\n  </Route>\n")
	inside := strings.Repeat("    <Route>\n      <Address>10.0.0.0</Address>\n      <PrefixSize>8</PrefixSize>\n    </Route>\n", n)
	return map[string][]byte{
		"right": []byte(good),
		"twice in one line": []byte(oneLine(fill(func(i int) string {
			return fmt.Sprintf("<Route><Address>10.0.%d.%d</Address><PrefixSize>32</PrefixSize><Metric>1</Metric></Route>", i/2>>8, i/2&255)
		}))),
		"without a metric": []byte(form("  <Route>\n    <Address>10.%d.%d.%d</Address>\n    <PrefixSize>32</PrefixSize>\n  </Route>\n")),
		"excluded":         []byte(strings.Replace(form("  <Route>\n    <Address>11.%d.%d.%d</Address>\n    <PrefixSize>32</PrefixSize>\n    <ExclusionRoute>true</ExclusionRoute>\n    <Metric>1</Metric>\n  </Route>\n"), tail, strings.TrimPrefix(good, head), 1)),
		"in NativeProfile": []byte(strings.Replace(head+tail, "  </NativeProfile>", inside+"  </NativeProfile>", 1)),
		"nothing right":    []byte(form("  <RouteList>\n    <Prefix> 8 </Prefix><!-- x -->\n    <address>10.%d.%d.%d</address>\n    <ExclusionRoute>True</ExclusionRoute><EdpModeId/>\n  </RouteList>\n")),
	}
}

// BenchmarkRoutes checks and fixes profiles of 30,000 routes.
func BenchmarkRoutes(b *testing.B) {
	for name, file := range manyRoutes(b, 30_000) {
		d, err := Parse(file)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/check", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				new(Checker).Check(d)
			}
		})
		b.Run(name+"/fix", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := new(Checker).Fix(d); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestScale: four times as many routes take little more than four times as long
// to check and to fix.
func TestScale(t *testing.T) {
	if os.Getenv("AOVLB_BENCH") != "1" {
		t.Skip("AOVLB_BENCH isn't 1: timed only on a machine that has nothing else to do")
	}
	took := func(file []byte) time.Duration {
		d, err := Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		best := time.Duration(1 << 62)
		for range 3 {
			start := time.Now()
			new(Checker).Check(d)
			if _, _, err := new(Checker).Fix(d); err != nil {
				t.Fatal(err)
			}
			best = min(best, time.Since(start))
		}
		return best
	}
	few, many := manyRoutes(t, 7500), manyRoutes(t, 30_000)
	for name := range few {
		a, b := took(few[name]), took(many[name])
		t.Logf("%s: %v, and %v for four times as many", name, a, b)
		if b > 8*a {
			t.Errorf("%s: 7,500 routes take %v and 30,000 take %v", name, a, b)
		}
	}
}

// TestManyMoves: what is misplaced many times is moved at once, in its order, and
// not once in each round.
func TestManyMoves(t *testing.T) {
	var routes strings.Builder
	for i := range 300 {
		fmt.Fprintf(&routes, "    <Route><Address>10.0.%d.%d</Address><PrefixSize>32</PrefixSize><Metric>1</Metric></Route>\n", i>>8, i&255)
	}
	d := mustParse(t, "<VPNProfile>\n  <NativeProfile>\n"+routes.String()+"  </NativeProfile>\n</VPNProfile>\n")
	edits, done, _ := chooseFixes(ofRule(new(Checker).Check(d), "AOV010"))
	if len(done) != 300 {
		t.Fatalf("%d of 300 are moved in one round", len(done))
	}
	next, err := d.Apply(edits...)
	if err != nil {
		t.Fatal(err)
	}
	want := "<VPNProfile>\n  <NativeProfile>\n  </NativeProfile>\n" + strings.ReplaceAll(routes.String(), "    <Route>", "  <Route>") + "</VPNProfile>\n"
	if next.Text != want {
		t.Errorf("moved:\n%s\nwant\n%s", next.Text, want)
	}
}

// TestPosition: places in a file are those that reading it from its beginning
// gives.
func TestPosition(t *testing.T) {
	letters := []string{"a", "ä", "€", "😀", "\n", "\r", "\r\n", strings.Repeat("x", 300), strings.Repeat("é", 300)}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom(letters)).Draw(t, "text"), "")
		l := newLocator(text)
		for at := range text + "x" {
			if want, got := slowPosition(text, at), l.position(at); got != want {
				t.Fatalf("%d of %q is at %v, and should be at %v", at, text, got, want)
			}
		}
	})
}

func slowPosition(text string, offset int) Position {
	p := Position{1, 1}
	for i, r := range text[:offset] {
		switch {
		case r == '\n', r == '\r' && (i+1 == len(text) || text[i+1] != '\n'):
			p = Position{p.Line + 1, 1}
		default:
			p.Column++
		}
	}
	return p
}

// TestOverlapsAny: looking in the right place of a sorted list finds what looking
// at all does.
func TestOverlapsAny(t *testing.T) {
	network := rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(0, 3).Draw(t, "a")) << 6, 0, byte(rapid.IntRange(0, 3).Draw(t, "b"))})
		if rapid.Bool().Draw(t, "v6") {
			b := a.As16()
			b[0] = byte(rapid.IntRange(0, 1).Draw(t, "c")) << 7
			a = netip.AddrFrom16(b)
		}
		p, err := a.Prefix(rapid.IntRange(0, a.BitLen()).Draw(t, "bits"))
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
	rapid.Check(t, func(t *rapid.T) {
		list, p := rapid.SliceOf(network).Draw(t, "list"), network.Draw(t, "one")
		want := slices.ContainsFunc(list, p.Overlaps)
		if got := overlapsAny(outermost(slices.Clone(list)), p); got != want {
			t.Fatalf("%v overlaps one of %v: %v", p, list, got)
		}
	})
}

// TestChooseFixes: the fixes that are chosen are those that comparing each edit
// with all others gives.
func TestChooseFixes(t *testing.T) {
	edit := rapid.Custom(func(t *rapid.T) Edit {
		start := rapid.IntRange(0, 60).Draw(t, "start")
		return Edit{start, start + rapid.IntRange(0, 4).Draw(t, "length"), rapid.SampledFrom([]string{"", "x"}).Draw(t, "text")}
	})
	finding := rapid.Custom(func(t *rapid.T) Finding {
		f := Finding{stacks: rapid.Bool().Draw(t, "stacks")}
		if f.Fix = []Edit{edit.Draw(t, "edit")}; rapid.Bool().Draw(t, "two") {
			f.Fix = append(f.Fix, Edit{Start: 70, End: 70, Text: rapid.StringMatching("[a-z]").Draw(t, "put in")})
		}
		return f
	})
	rapid.Check(t, func(t *rapid.T) {
		list := rapid.SliceOf(finding).Draw(t, "findings")
		edits, done, _ := chooseFixes(list)
		wantEdits, wantDone := slowChooseFixes(list)
		if diff := gocmp.Diff(wantEdits, edits, cmpopts.EquateEmpty()) + gocmp.Diff(wantDone, done, cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(Finding{})); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	})
}

func slowChooseFixes(list []Finding) (edits []Edit, done []Finding) {
	var chosen []chosenEdit
	for _, f := range list {
		touches := func(e Edit) bool {
			return slices.ContainsFunc(chosen, func(o chosenEdit) bool {
				onePlace := f.stacks && o.stacks && e.Start == e.End && e.Start == o.Start && e.End == o.End
				sideBySide := e.Text == "" && o.Text == "" && e.Start < e.End && o.Start < o.End && (e.End == o.Start || o.End == e.Start)
				return e.Start <= o.End && o.Start <= e.End && !onePlace && !sideBySide
			})
		}
		if slices.ContainsFunc(f.Fix, touches) {
			continue
		}
		for _, e := range f.Fix {
			chosen = append(chosen, chosenEdit{e, f.stacks})
		}
		done = append(done, f)
	}
	slices.SortStableFunc(chosen, func(a, b chosenEdit) int { return cmp.Compare(a.Start, b.Start) })
	for _, c := range chosen {
		edits = append(edits, c.Edit)
	}
	return edits, done
}

// TestLongSpace: white space is copied in small amounts only.
func TestLongSpace(t *testing.T) {
	for _, newline := range []string{"\n", "\r\n"} {
		d := mustParse(t, "<VPNProfile>"+strings.Repeat(" ", 3000)+newline+"  <AlwaysOn>true</AlwaysOn></VPNProfile>")
		if got := newCheck(&Checker{}, d).space(d.Root.child("AlwaysOn")); got != newline+"  " {
			t.Errorf("%q is copied", got)
		}
	}
	d := mustParse(t, "<VPNProfile>"+strings.Repeat(" ", 3000)+"<AlwaysOn>true</AlwaysOn></VPNProfile>")
	if got := newCheck(&Checker{}, d).space(d.Root.child("AlwaysOn")); len(got) != maxSpace || !utf8.ValidString(got) {
		t.Errorf("%d bytes are copied", len(got))
	}
}
