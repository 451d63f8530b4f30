package lbtest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/aovlb/aovlb/lb"
)

// proto is a right Classifier for a small protocol: a byte that is 1 for
// requests and 2 for answers, and eight bytes of name.
type proto struct{}

func (proto) judge(b []byte, kind byte) lb.Verdict {
	if len(b) < 9 || b[0] != kind {
		return lb.Verdict{Drop: true, Reason: "not of this protocol"}
	}
	return lb.Verdict{Keys: [lb.MaxKeys]lb.Key{lb.Uint64Key(200, binary.BigEndian.Uint64(b[1:]))}}
}

func (p proto) Classify(b []byte, f lb.Flow) lb.Verdict {
	v := p.judge(b, 1)
	v.Begin = !v.Drop
	v.Hints[0] = lb.AddrKey(f.Client.Addr())
	return v
}

func (p proto) Answer(b []byte, _ lb.Flow) lb.Verdict {
	v := p.judge(b, 2)
	if !v.Drop {
		v.Stage = lb.StageEstablished
	}
	return v
}

var protoCorpus = [][]byte{
	[]byte("\x01abcdefgh"),
	[]byte("\x01ijklmnop and what follows, which is long enough"),
	[]byte("\x02abcdefgh"),
}

// spoiled does what proto does, and then something else.
type spoiled struct {
	proto
	spoil func(b []byte, v *lb.Verdict)
}

func (s spoiled) Classify(b []byte, f lb.Flow) lb.Verdict {
	v := s.proto.Classify(b, f)
	s.spoil(b, &v)
	return v
}

func TestClassifierAccepts(t *testing.T) {
	TestClassifier(t, proto{}, protoCorpus)
	TestClassifier(t, lb.ByAddr{}, protoCorpus)
}

func TestClassifierCatches(t *testing.T) {
	var last []byte
	var calls atomic.Uint64
	var sink []byte
	for _, c := range []struct {
		promise string
		says    string
		spoil   func(b []byte, v *lb.Verdict)
	}{
		{"never panics", "panic: ", func(b []byte, _ *lb.Verdict) {
			if len(b) > 0 && b[0] == 1 {
				_ = b[12]
			}
		}},
		{"leaves the datagram alone", "afterwards", func(b []byte, _ *lb.Verdict) {
			if len(b) > 3 {
				b[3] = 0
			}
		}},
		{"stays within the datagram", "depends on what stands behind", func(b []byte, v *lb.Verdict) {
			if cap(b) > len(b) {
				v.Hints[1] = lb.Uint64Key(200, uint64(b[:len(b)+1][len(b)]))
			}
		}},
		{"stays within the datagram", "has been changed", func(b []byte, _ *lb.Verdict) {
			_ = append(b, 7) //nolint:gocritic // the fault to be found
		}},
		{"retains nothing", "the verdict is another one", func(b []byte, v *lb.Verdict) {
			if len(last) > 0 {
				v.Hints[1] = lb.Uint64Key(200, uint64(last[0]))
			}
			last = b
		}},
		{"retains nothing", "the reason", func(b []byte, v *lb.Verdict) {
			if len(b) > 0 {
				v.Drop, v.Reason = true, unsafe.String(&b[0], len(b))
			}
		}},
		{"is deterministic", "asked again", func(_ []byte, v *lb.Verdict) {
			v.Hints[1] = lb.Uint64Key(200, calls.Add(1))
		}},
		{"is safe for many goroutines", "while other goroutines ask", func(_ []byte, v *lb.Verdict) {
			v.Hints[1] = lb.Uint64Key(200, calls.Add(1))
		}},
		{"allocates nothing", "allocations", func(b []byte, _ *lb.Verdict) {
			sink = slices.Clone(b)
		}},
		{"makes sound verdicts", "without a Reason", func(_ []byte, v *lb.Verdict) { v.Drop, v.Reason = true, "" }},
		{"makes sound verdicts", "there twice", func(_ []byte, v *lb.Verdict) { v.Keys[1] = v.Keys[0] }},
		{"makes sound verdicts", "belongs to package lb", func(_ []byte, v *lb.Verdict) { v.Keys[1] = lb.Uint64Key(9, 1) }},
		{"makes sound verdicts", "somebody else", func(_ []byte, v *lb.Verdict) {
			v.Keys[1] = lb.FlowKey(lb.Flow{Client: netip.MustParseAddrPort("192.0.2.200:9"), Service: 1})
		}},
		{"makes sound verdicts", "no Miss 9", func(_ []byte, v *lb.Verdict) { v.Miss = 9 }},
	} {
		t.Run(c.promise+"/"+c.says, func(t *testing.T) {
			broken := spoiled{spoil: c.spoil}
			checkCaught(t, classifierPromises(broken, protoCorpus), c.promise, c.says)
		})
	}
	_ = sink
}

// checkCaught sees to it that one promise is found broken, in the right words.
func checkCaught(t *testing.T, promises []promise, name, says string) {
	t.Helper()
	i := slices.IndexFunc(promises, func(p promise) bool { return p.name == name })
	if i < 0 {
		t.Fatalf("there is no promise %q", name)
	}
	if err := promises[i].check(); err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want an error with %q", name, err, says)
	}
}

func TestPickerAccepts(t *testing.T) {
	for name, fresh := range map[string]func() lb.Picker{
		"maglev":        func() lb.Picker { return new(lb.Maglev) },
		"round robin":   func() lb.Picker { return new(lb.RoundRobin) },
		"least clients": func() lb.Picker { return lb.LeastClients{} },
	} {
		t.Run(name, func(t *testing.T) { TestPicker(t, fresh, 0.02) })
	}
	first := lb.PickerFunc(func(_ lb.Key, v *lb.View) *lb.Member {
		if len(v.Ready) == 0 {
			return nil
		}
		return v.Ready[0]
	})
	t.Run("one without weights", func(t *testing.T) { TestPicker(t, func() lb.Picker { return first }, 0) })
}

func TestPickerCatches(t *testing.T) {
	someone := func(v *lb.View) *lb.Member { return v.Ready[rand.IntN(len(v.Ready))] }
	var kept atomic.Pointer[lb.Member]
	var sink []*lb.Member
	for _, c := range []struct {
		promise, says string
		pick          lb.PickerFunc
	}{
		{"picks nobody of nobody", "panic", func(_ lb.Key, v *lb.View) *lb.Member { return someone(v) }},
		{"picks nobody of nobody", "nobody is ready", func(_ lb.Key, v *lb.View) *lb.Member {
			if len(v.Members) == 0 {
				return nil
			}
			return v.Members[0]
		}},
		{"picks who is ready", "isn't in this view's Ready", func(_ lb.Key, v *lb.View) *lb.Member { return v.Members[rand.IntN(len(v.Members))] }},
		{"picks who is ready", "picked nobody", func(lb.Key, *lb.View) *lb.Member { return nil }},
		{"picks from the view at hand", "after the view has changed", func(_ lb.Key, v *lb.View) *lb.Member {
			kept.CompareAndSwap(nil, v.Ready[0])
			return kept.Load()
		}},
		{"leaves the view alone", "another order", func(_ lb.Key, v *lb.View) *lb.Member {
			slices.Reverse(v.Ready)
			return v.Ready[0]
		}},
		{"allocates nothing", "allocations a pick", func(_ lb.Key, v *lb.View) *lb.Member {
			sink = slices.Clone(v.Ready)
			return sink[0]
		}},
		{"keeps to weights", "should have", func(_ lb.Key, v *lb.View) *lb.Member { return someone(v) }},
	} {
		t.Run(c.promise+"/"+c.says, func(t *testing.T) {
			checkCaught(t, pickerPromises(func() lb.Picker { return c.pick }, 0.02), c.promise, c.says)
		})
	}
}

// whoAreYou is a right Prober of a small protocol over TCP.
func whoAreYou(ctx context.Context, at netip.AddrPort) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
	if err != nil {
		return fmt.Errorf("can't connect: %w", err)
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(c, "who are you?"); err != nil {
		return fmt.Errorf("can't ask: %w", err)
	}
	b := make([]byte, 4)
	if _, err := io.ReadFull(c, b); err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if string(b) != "good" {
		return fmt.Errorf("it answered %q, not good", b)
	}
	return nil
}

// goodServer serves that protocol until the test ends.
func goodServer(t *testing.T) netip.AddrPort {
	t.Helper()
	good := badServer{stream: func(c net.Conn) error {
		if _, err := io.ReadFull(c, make([]byte, 12)); err != nil {
			return err
		}
		_, err := io.WriteString(c, "good")
		return err
	}, packet: func([]byte) ([]byte, bool) { return nil, false }}
	at := make(chan netip.AddrPort)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		_ = good.during(func(_ string, a netip.AddrPort) error { at <- a; <-stop; return nil })
	}()
	t.Cleanup(func() { close(stop); <-stopped })
	return <-at
}

func TestProberAccepts(t *testing.T) { TestProber(t, lb.ProberFunc(whoAreYou), goodServer(t)) }

func TestProberCatches(t *testing.T) {
	t.Parallel()
	good := goodServer(t)
	for _, c := range []struct {
		promise, says string
		probe         lb.ProberFunc
	}{
		{"believes a server that answers", "not today", func(context.Context, netip.AddrPort) error { return errors.New("not today") }},
		{"believes nobody else", "says nonsense: the probe succeeded", func(ctx context.Context, at netip.AddrPort) error {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", at.String())
			if err == nil {
				c.Close()
			}
			return err
		}},
		{"keeps to the deadline", "and had 300ms", func(_ context.Context, _ netip.AddrPort) error {
			time.Sleep(patience + slack + 100*time.Millisecond)
			return errors.New("late")
		}},
		{"obeys who cancels", "cancelled before it began: the probe succeeded", func(context.Context, netip.AddrPort) error { return nil }},
		{"says why", "begins like a sentence", func(context.Context, netip.AddrPort) error { return errors.New("Something is wrong") }},
		{"says why", "ends like a sentence", func(context.Context, netip.AddrPort) error { return fmt.Errorf("something is wrong%s", ".") }},
		{"says why", "says nothing", func(context.Context, netip.AddrPort) error { return errors.New(" ") }},
		{"says why", "longer than", func(context.Context, netip.AddrPort) error { return errors.New(strings.Repeat("no ", 200)) }},
		{"says why", "may obey", func(context.Context, netip.AddrPort) error { return errors.New("it said \x1b[31m") }},
		{"says why", "put together wrongly", func(context.Context, netip.AddrPort) error { return errors.New("it said %!d(string=x)") }},
		{"is safe for many goroutines", "at once", func() lb.ProberFunc {
			var busy atomic.Int32
			return func(context.Context, netip.AddrPort) error {
				defer busy.Add(-1)
				if busy.Add(1) > 1 {
					return errors.New("one at a time, please")
				}
				time.Sleep(50 * time.Millisecond)
				return nil
			}
		}()},
	} {
		t.Run(c.promise+"/"+c.says, func(t *testing.T) {
			t.Parallel()
			checkCaught(t, proberPromises(c.probe, good), c.promise, c.says)
		})
	}
}

func TestBadWords(t *testing.T) {
	for s, want := range map[string]string{
		"no answer in 2s":          "",
		"TLS handshake: x":         "",
		"I/O error":                "",
		"HTTP 503, not 401":        "",
		"\xff":                     "may obey",
		"":                         "says nothing",
		"it answered 503; use 401": "",
	} {
		if got := badWords(s); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
