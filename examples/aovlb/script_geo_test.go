package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"
)

// listeners are the TCP servers that a script has started, by name.
type listenersKey struct{}

// listener NAME ADDRESS: accepts TCP connections, until unlisten NAME.
func cmdListener(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", args[1])
	ts.Check(err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	stop := func() { l.Close(); <-done }
	ts.Defer(stop)
	ts.Value(listenersKey{}).(map[string]func())[args[0]] = stop
}

// unlisten NAME: ends a listener.
func cmdUnlisten(ts *testscript.TestScript, _ bool, args []string) {
	ts.Value(listenersKey{}).(map[string]func())[args[0]]()
}

// rename PREFIX NAME SUFFIX: gives the one file with that prefix and suffix a name.
func cmdRename(ts *testscript.TestScript, _ bool, args []string) {
	list, err := filepath.Glob(ts.MkAbs(args[0] + "*" + args[2]))
	ts.Check(err)
	if len(list) != 1 {
		ts.Fatalf("files with that name: %v", list)
	}
	ts.Check(ts.Exec("mv", list[0], ts.MkAbs(args[1])))
}

// query NAME TYPE [SUBNET] [until PREFIX]: asks 127.0.0.1:$P1, if need be again
// and again. The type DNSSEC asks for A with its signature.
func cmdQuery(ts *testscript.TestScript, _ bool, args []string) {
	subnet, until := "", ""
	if len(args) > 2 && args[2] != "until" {
		subnet = args[2]
	}
	if n := len(args); n > 2 && args[n-2] == "until" {
		until = args[n-1]
	}
	for end := time.Now().Add(60 * time.Second); ; {
		got := ask(ts, args[0], args[1], subnet)
		if strings.HasPrefix(got, until) && !strings.HasPrefix(got, "error") && (until != "" || !strings.HasPrefix(got, "SERVFAIL")) {
			_, _ = fmt.Fprintln(ts.Stdout(), got)
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%v: %s", args, got)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func ask(ts *testscript.TestScript, name, typ, subnet string) string {
	m := new(dns.Msg)
	t, signed := dns.StringToType[typ], false
	if typ == "DNSSEC" {
		t, signed = dns.TypeA, true
	}
	m.SetQuestion(dns.Fqdn(name), t)
	m.SetEdns0(1232, signed)
	if subnet != "" {
		p := netip.MustParsePrefix(subnet)
		m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_SUBNET{Code: dns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(p.Bits()), Address: p.Addr().AsSlice()}}
	}
	// Nothing is lost on loopback: who asked again on a slow machine would be counted twice.
	r, _, err := (&dns.Client{Timeout: 20 * time.Second}).Exchange(m, "127.0.0.1:"+ts.Getenv("P1"))
	if err != nil {
		return "error " + err.Error()
	}
	out := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			if !signed {
				out = append(out, rr.A.String())
			}
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		case *dns.RRSIG:
			out = append(out, "signed")
		}
	}
	for _, o := range r.IsEdns0().Option {
		if s, ok := o.(*dns.EDNS0_SUBNET); ok {
			out = append(out, fmt.Sprintf("scope /%d", s.SourceScope))
		}
	}
	return strings.Join(out, " ")
}

// fetch URL: prints a page.
func cmdFetch(ts *testscript.TestScript, _ bool, args []string) {
	res, err := http.Get(args[0])
	ts.Check(err)
	defer res.Body.Close()
	_, err = io.Copy(ts.Stdout(), res.Body)
	ts.Check(err)
}
