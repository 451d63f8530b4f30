package rasphone

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// windowsFiles are a phone book, and a new one, in a folder, and what a replacer
// makes of them if ReplaceFile ends in an error.
func windowsFiles(t *testing.T, fails error, meanwhile func(path string)) (dir string, err error) {
	t.Helper()
	dir = t.TempDir()
	path, with, backup := filepath.Join(dir, "rasphone.pbk"), filepath.Join(dir, "new"), filepath.Join(dir, "backup")
	for name, text := range map[string]string{path: "old", with: "new"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &replacer{
		replace: func(path, with, backup string) error {
			if fails != nil && !errors.Is(fails, errUnableToMove2) {
				return &os.PathError{Op: "replace", Path: path, Err: fails}
			}
			if err := os.Rename(path, backup); err != nil {
				return err
			}
			if fails == nil {
				return os.Rename(with, path)
			}
			meanwhile(path)
			return &os.PathError{Op: "replace", Path: path, Err: fails}
		},
		move: func(from, to string) error {
			if _, err := os.Lstat(to); err == nil {
				return os.ErrExist
			}
			return os.Rename(from, to)
		},
	}
	return dir, r.do(path, with, backup)
}

func contents(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	for _, name := range []string{"rasphone.pbk", "new", "backup"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			all = append(all, "-")
		} else {
			all = append(all, string(b))
		}
	}
	return strings.Join(all, " ")
}

// TestReplaceHalfway: whatever goes wrong in ReplaceFile, the phone book is where
// it was, or said to be elsewhere, and nobody's file is overwritten.
func TestReplaceHalfway(t *testing.T) {
	nothing := func(string) {}
	tests := []struct {
		name      string
		fails     error
		meanwhile func(string)
		want      string
		is        error
		says      string
	}{
		{"all is well", nil, nothing, "new - old", nil, ""},
		{"the old one can't be removed", errUnableToRemoveReplaced, nothing, "old new -", errUnableToRemoveReplaced, ""},
		{"the new one can't be moved", errUnableToMove, nothing, "old new -", errUnableToMove, ""},
		{"it is denied", os.ErrPermission, nothing, "old new -", os.ErrPermission, ""},
		{"the old one was moved", errUnableToMove2, nothing, "old new -", errUnableToMove, ""},
		{"and another program made one", errUnableToMove2, func(path string) {
			if err := os.WriteFile(path, []byte("theirs"), 0o600); err != nil {
				t.Error(err)
			}
		}, "theirs new old", os.ErrExist, "move it back by hand"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir, err := windowsFiles(t, test.fails, test.meanwhile)
			if got := contents(t, dir); got != test.want {
				t.Errorf("there are %q, and should be %q", got, test.want)
			}
			if !errors.Is(err, test.is) || err != nil && !strings.Contains(err.Error(), test.says) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// TestBackupNameTaken: the backup of another program stays.
func TestBackupNameTaken(t *testing.T) {
	backup := filepath.Join(t.TempDir(), "backup")
	if err := os.WriteFile(backup, []byte("theirs"), 0o600); err != nil {
		t.Fatal(err)
	}
	called := false
	r := &replacer{replace: func(_, _, _ string) error { called = true; return nil }}
	if err := r.do("a", "b", backup); !errors.Is(err, errChanged) || called {
		t.Errorf("it goes on, %v, with %v", called, err)
	}
	if b, err := os.ReadFile(backup); err != nil || string(b) != "theirs" {
		t.Errorf("it is %q, %v", b, err)
	}
}

// TestBackupCannotBeRead: what was written is said to be.
func TestBackupCannotBeRead(t *testing.T) {
	f := tempBook(t, "[a]\r\nVpnStrategy=5\r\n")
	sys := realSystem()
	read := sys.read
	denied := errors.New("denied")
	sys.read = func(path string) ([]byte, error) {
		if path != f.Path {
			return nil, denied
		}
		return read(path)
	}
	f.sys = sys
	r, err := f.Edit(t.Context(), Edit{All: true, Set: []Setting{IKEv2Only.Setting()}})
	if !errors.Is(err, denied) || !r.Written || r.Backup == "" || !strings.Contains(f.text(t), "VpnStrategy=7") {
		t.Errorf("%v, written %v, backup %q", err, r.Written, r.Backup)
	}
}
