package plugintest

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// A Target is a balancer with nothing on it that the driver owns, and a way to
// reach it. Funcs that are nil have the tests that need them skipped.
type Target struct {
	// Driver returns a driver for the balancer, configured. It is called again
	// where a program that was ended is started anew; then a driver that keeps
	// nothing in memory is a new one. If it has a method Close() error, that
	// is called at the end.
	Driver func(t *testing.T) plugins.Driver
	// Writes returns how often the balancer has been written to.
	Writes func() int
	// Foreign shows all on the balancer that isn't the driver's.
	Foreign func() string
	// Tamper alters something that the driver owns, as a person might.
	Tamper func(t *testing.T)
	// BreakAfter has the balancer stop after n further writes, as if the
	// program had been killed there. A negative n heals it.
	BreakAfter func(n int)
	// Logs returns all that was logged.
	Logs func() string
}

// A Suite tests a driver.
type Suite struct {
	// Open returns a fresh balancer.
	Open func(t *testing.T) Target
	// Layout says where the deployments of the suite are.
	Layout Layout
	// Site is the site that the driver is configured for; empty means the only
	// one.
	Site string
	// Intents are what is asked of the driver; nil means those of the suite.
	Intents []Intent
	// Skip says why an intent can't be tried here; empty has it tried.
	Skip func(name string) string
}

// A Layout says where the deployments of the suite are. The zero value is for
// balancers that take any address and port.
type Layout struct {
	// Front is where listeners are; not valid means 192.0.2.10.
	Front netip.Addr
	// Back is the address before the first backend's; not valid means
	// 10.0.1.10.
	Back netip.Addr
	// PortOffset is added to the ports of listeners, for drivers that open
	// them here; backends have the usual ones.
	PortOffset int
}

func (l Layout) front() netip.Addr {
	if l.Front.IsValid() {
		return l.Front
	}
	return netip.MustParseAddr("192.0.2.10")
}

func (l Layout) back(n int) netip.Addr {
	a := l.Back
	if !a.IsValid() {
		a = netip.MustParseAddr("10.0.1.10")
	}
	for range n {
		a = a.Next()
	}
	return a
}

// Canary is what secrets hold while the suite runs: it must never be seen. A Target
// whose driver has secrets of its own has them hold it, too.
const Canary = "Canary-V3ry5ecret-7f3a"

// secretFile writes a file with a secret.
func secretFile(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(name, []byte(Canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// Run runs the suite.
func (s Suite) Run(t *testing.T) {
	secret := secretFile(t)
	intents := s.Intents
	if intents == nil {
		intents = Intents(s.Layout, secret)
	}
	if s.Skip != nil {
		intents = slices.Clone(intents)
		for i := range intents {
			intents[i].skip = s.Skip(intents[i].Name)
		}
	}
	t.Run("introduces itself", func(t *testing.T) { s.run(t, (*run).introduces) })
	t.Run("intents", func(t *testing.T) {
		for _, in := range intents {
			t.Run(in.Name, func(t *testing.T) {
				if in.skip != "" {
					t.Skip(in.skip)
				}
				s.run(t, func(r *run) { r.intent(in) })
			})
		}
	})
	for _, c := range []struct {
		name string
		test func(*run, []Intent)
	}{
		{"one after the other", (*run).sequence},
		{"a plan grows old", (*run).stale},
		{"another's hand", (*run).drift},
		{"another site", (*run).otherSite},
		{"broken off and made good", (*run).broken},
		{"drain", (*run).drain},
		{"statistics", (*run).stats},
		{"watch", (*run).watch},
		{"calls at once", (*run).atOnce},
		{"calls that are called off", (*run).calledOff},
		{"nonsense", (*run).nonsense},
		{"files", (*run).files},
	} {
		t.Run(c.name, func(t *testing.T) { s.run(t, func(r *run) { c.test(r, intents) }) })
	}
}

// Intents whose names begin so are skipped by the caller's say.
func (in Intent) tried() bool { return in.skip == "" }
