package ownfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aovlb/aovlb/plugins"
)

func TestRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if b, err := Read(name); b != nil || err != nil {
		t.Errorf("none: %q, %v", b, err)
	}
	for size, fault := range map[int]string{0: "", 3: "", Most: "", Most + 1: "has more than 16777216 bytes"} {
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := Read(name)
		if fault == "" && (err != nil || b == nil || len(b) != size) || fault != "" && (err == nil || !strings.Contains(err.Error(), fault)) {
			t.Errorf("%d bytes: %d, %v", size, len(b), err)
		}
	}
}

// TestMemory has a memory of any size come back, and a spoilt one fail.
func TestMemory(t *testing.T) {
	for _, n := range []int{0, 1, 70, 75, 5000} {
		want := strings.Repeat("x", n)
		b, err := Head("mark", "note", want)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if len(line) > 104 {
				t.Errorf("a line of %d bytes", len(line))
			}
		}
		var got string
		if err := Recall(b, &got); err != nil || got != want {
			t.Errorf("%d bytes: %q, %v", n, got, err)
		}
		if err := Recall(b[:len(b)-3], &got); err == nil {
			t.Errorf("%d bytes: a spoilt one was read", n)
		}
	}
	if err := Recall(nil, new(string)); err == nil {
		t.Error("none was read")
	}
}

func TestOurs(t *testing.T) {
	o := plugins.DefaultOwner
	mark := "# " + o.Mark("hq", "") + "\n"
	for raw, want := range map[string][2]bool{
		"": {}, mark: {true, false}, "#!/bin/sh\n" + mark: {false, true}, mark[1:]: {}, "# " + o.Mark("other", ""): {},
	} {
		if got := [2]bool{Ours(o, "hq", []byte(raw), 0), Ours(o, "hq", []byte(raw), 1)}; got != want {
			t.Errorf("%q: %v, want %v", raw, got, want)
		}
	}
}

func TestKept(t *testing.T) {
	dep := &plugins.Deployment{Sites: []plugins.Site{{Name: "hq", Pools: []plugins.Pool{{Name: "p", Backends: []plugins.Backend{{Name: "a"}}}}}}}
	a, gone := plugins.DrainRequest{BackendRef: plugins.BackendRef{Pool: "p", Backend: "a"}}, plugins.DrainRequest{BackendRef: plugins.BackendRef{Pool: "p", Backend: "b"}}
	list := []plugins.DrainRequest{gone, a}
	if diff := cmp.Diff([]plugins.DrainRequest{a}, Kept(list, dep, "hq")); diff != "" || list[0] != gone {
		t.Error(diff, list)
	}
	if got := Kept(list, nil, "hq"); got != nil {
		t.Error(got)
	}
}

func TestComplete(t *testing.T) {
	field := func(names ...string) (out []plugins.Field) {
		for _, n := range names {
			out = append(out, plugins.Field{Name: n, Value: n})
		}
		return out
	}
	got := Complete(
		[]plugins.Object{{Kind: "k", Name: "a", Fields: field("x")}, {Kind: "k", Name: "b"}},
		[]plugins.Object{{Kind: "k", Name: "a", Fields: field("x", "y")}, {Kind: "other", Name: "b", Fields: field("z")}},
	)
	want := []plugins.Object{{Kind: "k", Name: "a", Fields: append(field("x"), plugins.Field{Name: "y"})}, {Kind: "k", Name: "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
