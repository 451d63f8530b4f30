package host

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Prefix is what names of plugins' programs begin with.
const Prefix = "aovlb-plugin-"

// A Program is a plugin that was found.
type Program struct {
	// Name is the plugin's, Path its program.
	Name, Path string
	// SHA256 is that of its content, in hexadecimal.
	SHA256 string
	// Err says why it can't be used; nil if it can.
	Err error
}

// Find returns the plugins in directories, by name. The first directory that has
// a name counts. A directory that isn't there has none.
func Find(dirs ...string) ([]Program, error) {
	found := make(map[string]Program)
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("host: look for plugins: %w", err)
		}
		for _, e := range entries {
			name, ok := strings.CutPrefix(e.Name(), Prefix)
			name = strings.TrimSuffix(name, ".exe")
			if _, dup := found[name]; !ok || dup || name == "" || e.IsDir() {
				continue
			}
			p := Program{Name: name, Path: filepath.Join(dir, e.Name())}
			if p.Path, p.Err = filepath.Abs(p.Path); p.Err == nil {
				p.Err = safe(p.Path)
			}
			if p.Err == nil {
				p.SHA256, p.Err = Sum(p.Path)
			}
			found[name] = p
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Program) int { return strings.Compare(a.Name, b.Name) }), nil
}

// Sum returns the SHA-256 of a file, in hexadecimal.
func Sum(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// safe reports whether others could put something else in a program's place.
func safe(path string) error {
	if runtime.GOOS == "windows" {
		return nil // its permissions are of another kind
	}
	for _, name := range []string{path, filepath.Dir(path)} {
		info, err := os.Stat(name)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("others may write to %s: take that away with chmod go-w", name)
		}
		if name == path && (!info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0) {
			return fmt.Errorf("%s is not a program: make it one with chmod +x", name)
		}
	}
	return nil
}

// A Lock says what the content of plugins must be. It is kept in a file beside the
// configuration, and changed only by an administrator.
type Lock struct {
	// Plugins are SHA-256 in hexadecimal, by the name of the plugin.
	Plugins map[string]string `json:"plugins"`

	file string
}

// maxLock bounds a lock file, in bytes.
const maxLock = 1 << 20

// ReadLock reads a lock file. One that isn't there pins nothing.
func ReadLock(file string) (*Lock, error) {
	l := &Lock{Plugins: make(map[string]string), file: file}
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("host: lock file: %w", err)
	}
	defer f.Close()
	d := json.NewDecoder(io.LimitReader(f, maxLock))
	d.DisallowUnknownFields()
	if err := d.Decode(l); err != nil {
		return nil, fmt.Errorf("host: lock file %s: %w", file, err)
	}
	for name, sum := range l.Plugins {
		if b, err := hex.DecodeString(sum); err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("host: lock file %s: plugin %q: %q is no SHA-256 in hexadecimal", file, name, sum)
		}
	}
	return l, nil
}

// Write writes the file that l was read from, wholly or not at all.
func (l *Lock) Write() error {
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(l.file), ".lock-*")
	if err != nil {
		return fmt.Errorf("host: lock file: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("host: lock file: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// Plugin returns the plugin of that name among those that were found, if it is
// what l says.
func (l *Lock) Plugin(found []Program, name string) (*Plugin, error) {
	i := slices.IndexFunc(found, func(p Program) bool { return p.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("host: there is no plugin %q: its program would be %s%s", name, Prefix, name)
	}
	p := found[i]
	switch sum, ok := l.Plugins[name]; {
	case p.Err != nil:
		return nil, fmt.Errorf("host: plugin %s: %w", name, p.Err)
	case !ok:
		return nil, fmt.Errorf("host: plugin %s isn't in the lock file %s: look at it, then pin it with aovlb plugin lock %s", name, l.file, name)
	case !strings.EqualFold(sum, p.SHA256):
		return nil, fmt.Errorf("host: plugin %s is not what the lock file %s says: it has %s; if that is meant, pin it with aovlb plugin lock %s", name, l.file, p.SHA256, name)
	}
	return &Plugin{Name: name, Path: p.Path, SHA256: p.SHA256}, nil
}
