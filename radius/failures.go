package radius

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Failure is a user whose logins failed.
type Failure struct {
	// User is the User-Name, or a hash of it: the same user has the same one
	// as long as the key is the same.
	User string
	// Client is the client by which the last failure came, Reason why it was,
	// as far as the server says; At is when.
	Client, Reason string
	At             time.Time
	// Times is how often it failed.
	Times uint64
}

const (
	maxFailures = 512 // users that are remembered
	topFailures = 20  // of them that are shown
)

// failures remembers who failed.
type failures struct {
	mu    sync.Mutex
	key   []byte
	users map[string]*Failure
}

func (f *failures) init(key []byte) {
	f.key = bytes.Clone(key)
	if len(f.key) == 0 {
		f.key = make([]byte, 32)
		rand.Read(f.key)
	}
	f.users = make(map[string]*Failure)
}

// reject takes note of an Access-Reject.
func (f *failures) reject(p *Proxy, r *request, answer Packet) { f.add(p, r, rejectReason(answer)) }

func (f *failures) add(p *Proxy, r *request, reason string) {
	if r.code != AccessRequest {
		return
	}
	name, _ := Packet{b: r.buf}.Lookup(UserName)
	f.mu.Lock()
	defer f.mu.Unlock()
	user := f.show(p, name)
	u := f.users[user]
	if u == nil {
		if len(f.users) >= maxFailures {
			f.makeRoom()
		}
		u = &Failure{User: user}
		f.users[user] = u
	}
	u.Client, u.Reason, u.At = r.peer.Name, reason, time.Now()
	u.Times++
}

// show returns what is shown of a name.
func (f *failures) show(p *Proxy, name []byte) string {
	if p.Names {
		return printable(name)
	}
	mac := hmac.New(sha256.New, f.key)
	mac.Write(bytes.ToLower(name))
	return "user-" + hex.EncodeToString(mac.Sum(nil)[:6])
}

// makeRoom forgets the user that failed least, of several the one that failed
// longest ago.
func (f *failures) makeRoom() {
	var least *Failure
	for _, u := range f.users {
		if least == nil || u.Times < least.Times || u.Times == least.Times && u.At.Before(least.At) {
			least = u
		}
	}
	delete(f.users, least.User)
}

func (f *failures) top(*Proxy) []Failure {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]Failure, 0, len(f.users))
	for _, u := range f.users {
		all = append(all, *u)
	}
	slices.SortFunc(all, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), b.At.Compare(a.At), cmp.Compare(a.User, b.User))
	})
	return all[:min(len(all), topFailures)]
}

// msCHAPError is the vendor type of MS-CHAP-Error (RFC 2548 §2.1.5), chapErrors
// what its numbers mean (RFC 2759 §6).
const msCHAPError = 2

var chapErrors = map[string]string{
	"646": "outside the permitted hours", "647": "account disabled", "648": "password expired",
	"649": "no permission to dial in", "691": "wrong name or password", "709": "password could not be changed",
}

// rejectReason says why a server rejected somebody, as far as its answer does.
func rejectReason(p Packet) string {
	for t, v := range p.Attributes() {
		if t != vendorSpecific || len(v) < 7 || binary.BigEndian.Uint32(v) != vendorMicrosoft || v[4] != msCHAPError {
			continue
		}
		if _, e, ok := strings.Cut(string(v[6:]), "E="); ok {
			number, _, _ := strings.Cut(e, " ")
			if text := chapErrors[number]; text != "" {
				return "rejected: " + text
			}
		}
	}
	if text, ok := p.Lookup(ReplyMessage); ok && len(text) > 0 {
		return "rejected: " + printable(text[:min(len(text), 80)])
	}
	if h, ok := p.EAPHeader(); ok && h.Code == EAPFailure {
		return "rejected: EAP failed"
	}
	return "rejected"
}

// printable returns b with what could do harm on a terminal replaced.
func printable(b []byte) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b), "?"))
}
