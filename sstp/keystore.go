package sstp

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
)

// RingState is what a [Keyring] knows that must outlive a process, without the
// certificates themselves, and the renewal that is under way.
type RingState struct {
	// Version is that of the format: 1.
	Version int `json:"version"`
	// Current is the hash of the current certificate.
	Current Fingerprint `json:"current"`
	// Gateways are those of which something is known, by name.
	Gateways map[string]GatewayRecord `json:"gateways"`
	// Past are the certificates that were held before.
	Past []PastLeaf `json:"past,omitempty"`
	// Renewal is the one under way, or the last; nil if there was none.
	Renewal *Renewal `json:"renewal,omitempty"`
}

// A GatewayRecord is what a RingState says of a gateway: the hash that it expects,
// or why that isn't known.
type GatewayRecord struct {
	Expects Fingerprint `json:"expects"`
	Unsure  string      `json:"unsure,omitempty"`
}

// State returns what k knows, for a [KeyStore].
func (k *Keyring) State() RingState {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := RingState{Version: 1, Current: k.current, Gateways: make(map[string]GatewayRecord, len(k.gateways))}
	s.Past = append(s.Past, k.past...)
	for name, g := range k.gateways {
		s.Gateways[name] = GatewayRecord{Expects: g.hash, Unsure: g.unsure}
	}
	return s
}

// Restore has k know what s says. The certificates must be held already; if the
// current one isn't, k keeps the one it has.
func (k *Keyring) Restore(s RingState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.held[s.Current] != nil {
		k.current = s.Current
	}
	for _, p := range s.Past {
		if k.held[p.SHA256] == nil {
			k.remember(p)
		}
	}
	if k.gateways == nil {
		k.gateways = make(map[string]gatewayState)
	}
	for name, g := range s.Gateways {
		k.gateways[name] = gatewayState{hash: g.Expects, unsure: g.Unsure, refused: new(atomic.Uint64)}
	}
	k.publish()
}

// A KeyStore keeps certificates with their keys, and a [RingState], in a
// directory that only this user can read: one file for each certificate, named by
// its hash, and ring.json. It is what a renewal is resumed from, and why a process
// that starts in the midst of one still has the old leaf. Each file is replaced
// whole. One process at a time may use it.
type KeyStore struct {
	// Dir is the directory. It is made if need be.
	Dir string
}

const (
	ringFile   = "ring.json"
	leafSuffix = ".pem"
	maxRing    = 1 << 20
)

// Load returns what is kept. A store that is empty, or doesn't exist, is no error.
// A certificate that can't be read is: without it clients might be shown another.
func (s *KeyStore) Load() (RingState, []*Certificate, error) {
	state := RingState{Version: 1}
	b, err := readFile(filepath.Join(s.Dir, ringFile), maxRing)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return state, nil, fmt.Errorf("sstp: key store: %w", err)
	default:
		if state, err = parseRing(b); err != nil {
			return state, nil, fmt.Errorf("sstp: key store: %s: %w", filepath.Join(s.Dir, ringFile), err)
		}
	}
	names, err := filepath.Glob(filepath.Join(s.Dir, "*"+leafSuffix))
	if err != nil {
		return state, nil, fmt.Errorf("sstp: key store: %w", err)
	}
	var certs []*Certificate
	for _, name := range names {
		c, err := readCertificate(name)
		if err != nil {
			return state, nil, fmt.Errorf("sstp: key store: %s: %w", name, err)
		}
		certs = append(certs, c)
	}
	return state, certs, nil
}

// parseRing reads ring.json.
func parseRing(b []byte) (RingState, error) {
	var s RingState
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if s.Version != 1 {
		return s, fmt.Errorf("it has version %d, this program knows 1", s.Version)
	}
	if s.Renewal != nil {
		return s, s.Renewal.validate()
	}
	return s, nil
}

func readCertificate(name string) (*Certificate, error) {
	b, err := readFile(name, MaxBundle)
	if err != nil {
		return nil, err
	}
	u, err := ParseBundle(b)
	if err != nil {
		return nil, err
	}
	return NewCertificate(u)
}

func readFile(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s is larger than %d bytes", name, most)
	}
	return b, err
}

// Keep adds a certificate, with its key.
func (s *KeyStore) Keep(c *Certificate) error {
	key, err := c.KeyPEM()
	if err != nil {
		return err
	}
	return s.write(s.name(c.SHA256()), append(c.ChainPEM(), key...))
}

// File returns where the certificate with this hash is kept: its chain and its key,
// as PEM.
func (s *KeyStore) File(f Fingerprint) string { return filepath.Join(s.Dir, s.name(f)) }

func (s *KeyStore) name(f Fingerprint) string { return f.String() + leafSuffix }

// Drop removes a certificate.
func (s *KeyStore) Drop(f Fingerprint) error {
	err := os.Remove(s.File(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Save keeps a RingState. When it returns, it would survive a power cut.
func (s *KeyStore) Save(state RingState) error {
	b, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("sstp: key store: %w", err)
	}
	return s.write(ringFile, append(b, '\n'))
}

// write replaces a file of the store, whole or not at all.
func (s *KeyStore) write(name string, b []byte) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("sstp: key store: %w", err)
	}
	f, err := os.CreateTemp(s.Dir, ".new-*") // for this user only
	if err != nil {
		return fmt.Errorf("sstp: key store: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // of no avail once it is renamed
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(s.Dir, name))
	}
	if err == nil {
		err = syncDir(s.Dir)
	}
	if err != nil {
		return fmt.Errorf("sstp: key store: %w", err)
	}
	return nil
}

// syncDir has a rename survive a power cut, where directories can be synced.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
