package rasphone

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func tempBook(t *testing.T, text string) *File {
	t.Helper()
	f := &File{Path: filepath.Join(t.TempDir(), "rasphone.pbk")}
	if err := os.WriteFile(f.Path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *File) text(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// others returns the names of all files beside the phone book.
func (f *File) others(t *testing.T) []string {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(f.Path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list {
		if d.Name() != filepath.Base(f.Path) {
			names = append(names, d.Name())
		}
	}
	return names
}

var ikev2 = Edit{Entries: []string{"a"}, Set: []Setting{IKEv2SSTP.Setting()}}

const (
	before = "[a]\r\nVpnStrategy=6\r\n"
	after  = "[a]\r\nVpnStrategy=14\r\n"
)

func TestFileEdit(t *testing.T) {
	f := tempBook(t, before)
	r, err := f.Edit(t.Context(), ikev2)
	if err != nil || !r.Written || len(r.Changes) != 1 || f.text(t) != after {
		t.Fatalf("%+v, %v, %q", r, err, f.text(t))
	}
	if b, err := os.ReadFile(r.Backup); err != nil || string(b) != before {
		t.Errorf("the backup is %q, %v", b, err)
	}
	if info, err := os.Stat(f.Path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	r, err = f.Edit(t.Context(), ikev2)
	now, statErr := os.Stat(f.Path)
	if err != nil || statErr != nil || r.Written || len(r.Changes) != 0 || !os.SameFile(info, now) {
		t.Errorf("a second time: %+v, %v", r, err)
	}
	if names := f.others(t); len(names) != 1 || strings.HasSuffix(names[0], ".pbk") {
		t.Errorf("there are %v", names)
	}
}

func TestDryRun(t *testing.T) {
	f := tempBook(t, before)
	f.DryRun = true
	r, err := f.Edit(t.Context(), ikev2)
	if err != nil || r.Written || f.text(t) != before || string(r.After.Bytes()) != after || len(f.others(t)) > 0 {
		t.Errorf("%+v, %v", r, err)
	}
	want := "--- a\n+++ b\n@@ -1,2 +1,2 @@ [a]\n [a]\n-VpnStrategy=6\n+VpnStrategy=14\n"
	if got := Diff(r.Before, r.After, "a", "b"); got != want {
		t.Errorf("%s", got)
	}
}

func TestBackupsArePruned(t *testing.T) {
	f := tempBook(t, before)
	now := time.Date(2026, 11, 21, 15, 0, 0, 0, time.UTC)
	f.sys = realSystem()
	f.sys.now = func() time.Time { return now }
	for i, s := range []Strategy{IKEv2First, IKEv2Only, SSTPOnly, SSTPFirst, IKEv2SSTP} {
		if i > 1 { // two of one second
			now = now.Add(time.Second)
		}
		if _, err := f.Edit(t.Context(), Edit{All: true, Set: []Setting{s.Setting()}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"rasphone.pbk.aovlb-20261121T150001.000.bak", "rasphone.pbk.aovlb-20261121T150002.000.bak", "rasphone.pbk.aovlb-20261121T150003.000.bak"}
	if got := f.others(t); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	f.Backups = -1
	if r, err := f.Edit(t.Context(), Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}); err != nil || r.Backup != "" || len(f.others(t)) != 0 {
		t.Errorf("%v, %q", err, f.others(t))
	}
}

func TestSymlink(t *testing.T) {
	f := tempBook(t, before)
	link := filepath.Join(t.TempDir(), "link.pbk")
	if err := os.Symlink(f.Path, link); err != nil {
		t.Skip("there are no symbolic links here:", err)
	}
	if _, err := (&File{Path: link}).Edit(t.Context(), ikev2); err != nil || f.text(t) != after {
		t.Errorf("%q, %v", f.text(t), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Error("the link isn't one any more")
	}
}

func TestMissingFile(t *testing.T) {
	f := &File{Path: filepath.Join(t.TempDir(), "rasphone.pbk")}
	if _, err := f.Edit(t.Context(), ikev2); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

var errInUse = errors.New("sharing violation")

// TestLocked waits while Windows has the file locked, in virtual time.
func TestLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := tempBook(t, before)
		sys := realSystem()
		sys.locked = func(err error) bool { return errors.Is(err, errInUse) }
		free := time.Now().Add(3 * time.Second)
		replace := sys.replace
		sys.replace = func(path, with, backup string) error {
			if time.Now().Before(free) {
				return errInUse
			}
			return replace(path, with, backup)
		}
		f.sys = sys
		if r, err := f.Edit(t.Context(), ikev2); err != nil || !r.Written || f.text(t) != after {
			t.Errorf("%+v, %v", r, err)
		}
		if late := time.Since(free); late < 0 || late > maxPause {
			t.Errorf("it went on %v after the lock was gone", late)
		}
		free = time.Now().Add(time.Hour)
		began := time.Now()
		_, err := f.Edit(t.Context(), Edit{All: true, Set: []Setting{IKEv2Only.Setting()}})
		if !errors.Is(err, ErrLocked) || !errors.Is(err, errInUse) || time.Since(began) > DefaultRetry || f.text(t) != after || len(f.others(t)) != 1 {
			t.Errorf("%v, after %v, beside %v", err, time.Since(began), f.others(t))
		}
		f.Retry = -1
		if _, err := f.Edit(t.Context(), Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}); !errors.Is(err, ErrLocked) {
			t.Error(err)
		}
		f.Retry = time.Hour
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errors.New("enough"))
		defer cancel()
		if _, err := f.Edit(ctx, Edit{All: true, Set: []Setting{IKEv2Only.Setting()}}); err == nil || err.Error() != "enough" {
			t.Error(err)
		}
	})
}

// TestChangedMeanwhile has somebody write at the worst moments: what they wrote
// must survive, and the edit too.
func TestChangedMeanwhile(t *testing.T) {
	const theirs = "[a]\r\nVpnStrategy=6\r\nDialParamsUID=5\r\n"
	const both = "[a]\r\nVpnStrategy=14\r\nDialParamsUID=5\r\n"
	for _, test := range []struct {
		name string
		at   func(sys *system, write func())
	}{
		{"before the last look", func(sys *system, write func()) {
			read, n := sys.read, 0
			sys.read = func(path string) ([]byte, error) {
				if n++; n == 2 {
					write()
				}
				return read(path)
			}
		}},
		{"after the last look", func(sys *system, write func()) {
			replace, n := sys.replace, 0
			sys.replace = func(path, with, backup string) error {
				if n++; n == 1 {
					write()
				}
				return replace(path, with, backup)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := tempBook(t, before)
			f.sys = realSystem()
			test.at(f.sys, func() {
				if err := os.WriteFile(f.Path, []byte(theirs), 0o640); err != nil {
					t.Error(err)
				}
			})
			r, err := f.Edit(t.Context(), ikev2)
			if err != nil || !r.Written || f.text(t) != both {
				t.Errorf("%+v, %v: %q", r, err, f.text(t))
			}
		})
	}
}

// TestTheirsCannotBeEdited: what somebody wrote at the last moment is put back
// when the edit can't be made on it.
func TestTheirsCannotBeEdited(t *testing.T) {
	f := tempBook(t, before)
	f.sys = realSystem()
	replace, n := f.sys.replace, 0
	f.sys.replace = func(path, with, backup string) error {
		if n++; n == 1 {
			if err := os.WriteFile(path, []byte("[b]\r\n"), 0o640); err != nil {
				t.Error(err)
			}
		}
		return replace(path, with, backup)
	}
	if _, err := f.Edit(t.Context(), ikev2); !errors.Is(err, ErrNoEntry) || f.text(t) != "[b]\r\n" {
		t.Errorf("%v, %q", err, f.text(t))
	}
}

// TestKeepsChanging gives up when somebody writes each time.
func TestKeepsChanging(t *testing.T) {
	f := tempBook(t, before)
	f.sys = realSystem()
	read, n := f.sys.read, 0
	f.sys.read = func(path string) ([]byte, error) {
		b, err := read(path)
		n++
		return append(b, strings.Repeat("\r\n", n)...), err
	}
	if _, err := f.Edit(t.Context(), ikev2); !errors.Is(err, ErrBusy) || f.text(t) != before {
		t.Errorf("%v, %q", err, f.text(t))
	}
}

func TestPlaces(t *testing.T) {
	env := map[string]string{"ProgramData": `C:\ProgramData`, "APPDATA": `C:\Users\a\AppData\Roaming\`}
	got := Places(func(k string) string { return env[k] })
	if len(got) != 3 || !got[0].AllUsers || got[0].Path != `C:\ProgramData\Microsoft\Network\Connections\Pbk\rasphone.pbk` ||
		got[1].Path != `C:\Users\a\AppData\Roaming\Microsoft\Network\Connections\Pbk\rasphone.pbk` || !got[2].Hidden {
		t.Errorf("%+v", got)
	}
	if got := Places(func(string) string { return "" }); got != nil {
		t.Errorf("%v", got)
	}
}

func TestKeys(t *testing.T) {
	for _, k := range Keys() {
		if k.Does == "" || k.Kind == Words && len(k.Words) == 0 || k.Kind == Number && k.Most == 0 {
			t.Errorf("%s isn't described", k.Name)
		}
		if k.Group == Main && !slices.Contains(mainOrder, k.Name) || k.Group == Device && !slices.Contains(deviceOrder, k.Name) {
			t.Errorf("nobody knows where %s belongs", k.Name)
		}
		if got, ok := LookupKey(k.Name); !ok || got.Name != k.Name {
			t.Errorf("%s isn't found: %v", k.Name, got.Name)
		}
		for _, w := range k.Words {
			if v, err := k.parse(w.Name); err != nil || k.Describe(v) != w.Name {
				t.Errorf("%s=%s: %v, %v", k.Name, w.Name, v, err)
			}
		}
	}
}
