package lbtest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aovlb/aovlb/lb"
)

// TestProber holds p against what [lb.Prober] promises. Good must be the address
// of a server that p finds in order. The bad ones are made here, on loopback,
// with the same port for UDP and TCP: a port where nobody is, a server that says
// nothing, one that says nonsense, one that hangs up, and one that sends back
// what it hears. The test takes a few seconds of real time.
func TestProber(t *testing.T, p lb.Prober, good netip.AddrPort) {
	t.Helper()
	hold(t, proberPromises(p, good))
}

const (
	// patience is how long a probe of a bad server may take.
	patience = 300 * time.Millisecond
	// slack is how much longer it may in fact take, on a busy machine.
	slack = 2 * time.Second
)

func proberPromises(p lb.Prober, good netip.AddrPort) []promise {
	k := probed{p, good}
	return []promise{
		{"believes a server that answers", "a gateway that serves would get no clients", k.good},
		{"believes nobody else", "nil is the only proof there is: clients are sent to this server", k.bad},
		{"keeps to the deadline", "a probe that hangs keeps the backend's last state, whatever became of it", k.late},
		{"obeys who cancels", "a program that ends, and a backend that is removed, wait for their probes", k.cancelled},
		{"says why", "its words are all that an administrator has to go by", k.words},
		{"is safe for many goroutines", "a Monitor asks many backends at once, with one Prober", k.together},
	}
}

type probed struct {
	lb.Prober
	at netip.AddrPort
}

// probe probes with a deadline, and returns how long it took and what it found.
func (k probed) probe(ctx context.Context, at netip.AddrPort, limit time.Duration) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	start := time.Now()
	if p := caught(func() { err = k.Probe(ctx, at) }); p != nil {
		err = p
	}
	return time.Since(start), err
}

func (k probed) good() error {
	_, err := k.probe(context.Background(), k.at, 10*time.Second)
	if err != nil {
		return fmt.Errorf("the good server at %v: %w", k.at, err)
	}
	return nil
}

func (k probed) bad() error {
	return withBad(func(kind string, at netip.AddrPort) error {
		if _, err := k.probe(context.Background(), at, patience); err == nil {
			return fmt.Errorf("%s: the probe succeeded", kind)
		}
		return nil
	})
}

func (k probed) late() error {
	return withBad(func(kind string, at netip.AddrPort) error {
		if took, _ := k.probe(context.Background(), at, patience); took > patience+slack {
			return fmt.Errorf("%s: the probe took %v, and had %v", kind, took.Round(time.Millisecond), patience)
		}
		return nil
	})
}

func (k probed) cancelled() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := obeyed(k.probe(ctx, k.at, time.Minute)); err != nil {
		return fmt.Errorf("the good server, cancelled before it began: %w", err)
	}
	return withBad(func(kind string, at netip.AddrPort) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		stop := time.AfterFunc(patience/3, cancel)
		defer stop.Stop()
		if err := obeyed(k.probe(ctx, at, time.Minute)); err != nil {
			return fmt.Errorf("%s, cancelled after %v: %w", kind, patience/3, err)
		}
		return nil
	})
}

// obeyed returns what is wrong with the outcome of a probe that was cancelled.
func obeyed(took time.Duration, err error) error {
	switch {
	case err == nil:
		return errors.New("the probe succeeded")
	case took > slack:
		return fmt.Errorf("the probe took %v, and then said: %w", took.Round(time.Millisecond), err)
	}
	return nil
}

func (k probed) words() error {
	return withBad(func(kind string, at netip.AddrPort) error {
		_, err := k.probe(context.Background(), at, patience)
		if err == nil {
			return nil // told by another promise
		}
		if fault := badWords(err.Error()); fault != "" {
			return fmt.Errorf("%s: the error %q %s", kind, err.Error(), fault)
		}
		return nil
	})
}

// badWords returns what is wrong with the words of an error.
func badWords(s string) string {
	const most = 400
	first, _ := utf8.DecodeRuneInString(s)
	second, _ := utf8.DecodeRuneInString(s[min(len(s), utf8.RuneLen(max(first, 0))):])
	switch {
	case strings.TrimSpace(s) == "":
		return "says nothing"
	case len(s) > most:
		return fmt.Sprintf("is longer than %d bytes", most)
	case strings.Contains(s, "%!"):
		return "was put together wrongly"
	case strings.HasSuffix(s, ".") || strings.HasSuffix(s, "!"):
		return "ends like a sentence, and will stand within one"
	case unicode.IsUpper(first) && unicode.IsLower(second):
		return "begins like a sentence, and will stand within one"
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		return "has bytes in it that a terminal or a log may obey"
	}
	return ""
}

func (k probed) together() error {
	const probes = 8
	errs := make([]error, probes)
	var wg sync.WaitGroup
	for i := range probes {
		wg.Go(func() { _, errs[i] = k.probe(context.Background(), k.at, 10*time.Second) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%d probes of the good server at once: %w", probes, err)
	}
	return nil
}
