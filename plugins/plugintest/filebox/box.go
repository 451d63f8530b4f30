package filebox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aovlb/aovlb/plugins"
)

// A Box is the balancer: what its file holds.
type Box struct {
	// Objects are all there are, whoever made them.
	Objects []plugins.Object `json:"objects"`
	// Drained are the backends that are drained.
	Drained []plugins.DrainRequest `json:"drained,omitempty"`
	// Writes counts how often it was written to.
	Writes int `json:"writes"`
	// Break, if not nil, is how many more writes it takes before it stops.
	Break *int `json:"break,omitempty"`
	// Pause is how long each write takes.
	Pause plugins.Duration `json:"pause,omitempty"`
	// Hang are the writes, counted as Writes does, that are never answered and
	// change nothing. Who waits until Writes says that one has begun can end the
	// driver in the middle of its work, however fast or slow the machine is.
	Hang []int `json:"hang,omitempty"`
}

// ErrBroken is what a Box says that has stopped.
var ErrBroken = errors.New("filebox: the balancer doesn't answer")

// Load reads a Box. A file that isn't there is an empty one.
func Load(file string) (*Box, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return new(Box), nil
	}
	box := new(Box)
	if err == nil {
		err = json.Unmarshal(b, box)
	}
	if err != nil {
		return nil, fmt.Errorf("filebox: read: %w", err)
	}
	return box, nil
}

// Save writes a Box, wholly or not at all.
func (b *Box) Save(file string) error {
	text, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".box-*")
	if err != nil {
		return fmt.Errorf("filebox: write: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("filebox: write: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// change makes one change in a file, as one call of an appliance's API does.
func change(file string, f func(*Box) bool) error {
	b, err := Load(file)
	if err != nil {
		return err
	}
	before := *b
	before.Objects, before.Drained = slices.Clone(b.Objects), slices.Clone(b.Drained)
	if !f(b) {
		return nil
	}
	if b.Break != nil {
		if *b.Break == 0 {
			return ErrBroken
		}
		*b.Break--
	}
	b.Writes++
	if slices.Contains(b.Hang, b.Writes) {
		before.Writes = b.Writes
		if err := before.Save(file); err != nil {
			return err
		}
		select {} // until the process ends
	}
	if b.Pause > 0 {
		<-time.After(b.Pause.D()) // a call of an appliance, which nobody can take back
	}
	return b.Save(file)
}

// put makes an object, or replaces the one of its name.
func (b *Box) put(o plugins.Object) {
	for i := range b.Objects {
		if b.Objects[i].Kind == o.Kind && b.Objects[i].Name == o.Name {
			b.Objects[i] = o
			return
		}
	}
	b.Objects = append(b.Objects, o)
}

func (b *Box) remove(kind, name string) {
	b.Objects = slices.DeleteFunc(b.Objects, func(o plugins.Object) bool { return o.Kind == kind && o.Name == name })
}
