package profilexml

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

// TestIdentity: what was read comes out again byte for byte, put together from
// the nodes, whose spans therefore cover everything once.
func TestIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := drawFile(t)
		d, err := Parse(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if out := d.Bytes(); !bytes.Equal(out, b) {
			t.Fatalf("read\n%q\nand wrote\n%q", b, out)
		}
		checkSpans(t, d)
	})
}

// failer is what *rapid.T and *testing.T have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// checkSpans has every node begin where the one before ends, within its parent.
func checkSpans(t failer, d *Document) {
	t.Helper()
	var walk func(list []*Node, start, end int)
	walk = func(list []*Node, start, end int) {
		for _, n := range list {
			if n.Start != start || n.End < n.Start {
				t.Fatalf("a node at %d to %d stands behind %d", n.Start, n.End, start)
			}
			start = n.End
			if n.Kind != ElementNode {
				continue
			}
			if !strings.HasPrefix(d.Text[n.Start:], "<"+n.Name()) {
				t.Fatalf("<%s> isn't at %d", n.Name(), n.Start)
			}
			for _, a := range n.Attrs {
				if !strings.HasPrefix(d.Text[a.Start:a.End], a.Name()) || resolve(d.Text[a.ValueStart:a.ValueEnd]) != a.Value {
					t.Fatalf("the attribute %s isn't at %d", a.Name(), a.Start)
				}
			}
			walk(n.Children, n.OpenEnd, n.CloseStart)
		}
		if start != end {
			t.Fatalf("nodes end at %d and not at %d", start, end)
		}
	}
	walk(d.Nodes, 0, len(d.Text))
}

// TestProfileRoundTrip: a profile that is written and read is the same, in either
// order, and the checker knows all that is in it.
func TestProfileRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProfile(t)
		order := Order(rapid.IntRange(0, 1).Draw(t, "order"))
		d, err := p.Document(order)
		if err != nil {
			t.Fatal(err)
		}
		q, err := d.Profile()
		if err != nil {
			t.Fatalf("%v\n%s", err, d.Text)
		}
		if order == OrderSchema && p.NativeProfile != nil && p.NativeProfile.Authentication.MachineMethod == "Eap" {
			q.NativeProfile.Authentication.MachineMethod = "Eap"
		}
		if diff := cmp.Diff(p, q, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("written and read (-want +got):\n%s\n%s", diff, d.Text)
		}
		for _, f := range new(Checker).Check(d) {
			if slices.Contains([]string{"AOV001", "AOV005", "AOV006", "AOV007", "AOV008", "AOV009", "AOV010", "AOV011", "AOV012", "AOV013", "AOV017", "AOV018", "AOV019", "AOV020", "AOV022", "AOV212", "AOV213", "AOV214"}, f.Rule) {
				t.Fatalf("%v\n%s", &f, d.Text)
			}
		}
	})
}

// TestFixOnce: to fix what was fixed changes nothing, what is fixed is well
// formed, and nothing is left that says it could be fixed.
func TestFixOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, c := drawFile(t), drawChecker(t)
		d, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		fixed, done, err := c.Fix(d)
		if err != nil {
			t.Fatalf("%v\n%s", err, d.Text)
		}
		again, more, err := c.Fix(fixed)
		if err != nil || len(more) > 0 || !bytes.Equal(again.Bytes(), fixed.Bytes()) {
			t.Fatalf("fixing again: %v %s\n%s", err, report(more), fixed.Text)
		}
		if len(done) == 0 && !bytes.Equal(fixed.Bytes(), b) {
			t.Fatalf("nothing was fixed, and the file differs")
		}
	})
}

// TestFixChangesOnlyItsSpans: between the edits of one round of fixing, every
// byte is as it was.
func TestFixChangesOnlyItsSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawChecker(t)
		d, err := Parse(drawFile(t))
		if err != nil {
			t.Fatal(err)
		}
		edits, _, _ := chooseFixes(c.Check(d))
		slices.SortStableFunc(edits, func(a, b Edit) int { return a.Start - b.Start })
		next, err := d.Apply(edits...)
		if err != nil {
			t.Fatalf("%v\n%s", err, d.Text)
		}
		if next.Encoding != d.Encoding {
			t.Fatalf("the encoding was %v and is %v", d.Encoding, next.Encoding)
		}
		was, is := 0, 0
		for _, e := range edits {
			same := e.Start - was
			if d.Text[was:e.Start] != next.Text[is:is+same] || next.Text[is+same:is+same+len(e.Text)] != e.Text {
				t.Fatalf("around the edit at %d something else has changed", e.Start)
			}
			was, is = e.End, is+same+len(e.Text)
		}
		if d.Text[was:] != next.Text[is:] {
			t.Fatalf("behind the last edit something has changed")
		}
	})
}

// TestFormatOnce: to format what was formatted changes nothing, and formatting
// changes nothing that a profile says.
func TestFormatOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, err := Parse(drawFile(t))
		if err != nil {
			t.Fatal(err)
		}
		s := Style{
			Order: Order(rapid.IntRange(0, 2).Draw(t, "order")), Indent: rapid.SampledFrom([]string{"", "  ", "\t"}).Draw(t, "indent"),
			DropComments: rapid.Bool().Draw(t, "comments"), DropDeclaration: rapid.Bool().Draw(t, "declaration"),
		}
		once := Format(d, s)
		twice := Format(once, s)
		if once.Text != twice.Text || once.Encoding != twice.Encoding {
			t.Fatalf("once:\n%s\ntwice:\n%s", once.Text, twice.Text)
		}
		if diff := Diff(d, once, DiffOptions{Exact: true}); len(diff) > 0 {
			t.Fatalf("formatting has changed %+v\n%s\n%s", diff, d.Text, once.Text)
		}
	})
}

// TestDiffFinds: a document doesn't differ from itself, and differs from one in
// which a value was changed, both ways.
func TestDiffFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, err := Parse(drawFile(t))
		if err != nil {
			t.Fatal(err)
		}
		if diff := Diff(d, d, DiffOptions{Exact: rapid.Bool().Draw(t, "exact")}); len(diff) > 0 {
			t.Fatalf("it differs from itself: %+v", diff)
		}
		var leaves []*Node
		eachNode(d.Nodes, func(n *Node) {
			if n.spec != nil && n.spec.Type == Text && n.Space == "" && len(n.Children) == 1 {
				leaves = append(leaves, n)
			}
		})
		if len(leaves) == 0 {
			return
		}
		n := rapid.SampledFrom(leaves).Draw(t, "leaf")
		k := newCheck(&Checker{}, d)
		changed, err := d.Apply(k.setValue(n, "changed")...)
		if err != nil {
			t.Fatal(err)
		}
		if len(Diff(d, changed, DiffOptions{})) == 0 || len(Diff(changed, d, DiffOptions{})) == 0 {
			t.Fatalf("<%s> was changed and nobody saw it", n.Name())
		}
	})
}
