package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
	"github.com/aovlb/aovlb/plugins/sdk"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"aovlb": main, "aovlb-plugin-filebox": func() { sdk.Serve(new(filebox.Driver)) }})
}

// The scripts run the program itself. In their files $GW is the port of the
// gateways and $P1 to $P4 are free ports on 127.0.0.1; subst puts them in.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"GW", "P1", "P2", "P3", "P4"} {
				port, err := freeport.Pick()
				if err != nil {
					return err
				}
				e.Setenv(name, strconv.Itoa(int(port)))
			}
			e.Values[listenersKey{}] = make(map[string]func())
			e.Setenv("AOVLB_ADMIN", "unix:"+e.WorkDir+"/a.sock")
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"subst": cmdSubst, "ready": cmdReady, "signal": cmdSignal, "gateway": cmdGateway, "client": cmdClient, "replace": cmdReplace,
			"listener": cmdListener, "unlisten": cmdUnlisten, "rename": cmdRename, "query": cmdQuery, "fetch": cmdFetch,
			"waitfor": cmdWaitFor,
		},
	})
}

// subst FILE: puts environment variables into a file.
func cmdSubst(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// replace FILE OLD NEW: replaces text in a file.
func cmdReplace(ts *testscript.TestScript, _ bool, args []string) {
	was := ts.ReadFile(args[0])
	if !strings.Contains(was, args[1]) {
		ts.Fatalf("%s doesn't hold %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.ReplaceAll(was, args[1], args[2])), 0o644))
}

// ready: waits until the admin API answers, or, with !, answers no more.
func cmdReady(ts *testscript.TestScript, neg bool, _ []string) {
	env := &environment{getenv: ts.Getenv}
	listen, token := ts.Getenv("AOVLB_ADMIN"), ""
	r := &remote{listen: &listen, tokenFile: &token, env: env}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(60 * time.Second)
	for {
		if _, err := r.status(context.Background()); (err == nil) != neg {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			ts.Fatalf("the admin API isn't ready")
		}
	}
}

// signal HUP NAME: sends a signal to the background command of that name.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	list := ts.BackgroundCmds()
	if len(list) != 1 {
		ts.Fatalf("%d background commands", len(list))
	}
	ts.Check(list[0].Process.Signal(map[string]os.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM}[args[0]]))
}

// gateway ADDRESS NAME: starts a gateway at $GW that answers datagrams with NAME.
func cmdGateway(ts *testscript.TestScript, _ bool, args []string) {
	c, err := net.ListenPacket("udp", net.JoinHostPort(args[0], ts.Getenv("GW")))
	ts.Check(err)
	done := make(chan struct{})
	ts.Defer(func() { c.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			_, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if _, err := c.WriteTo([]byte(args[1]), from); err != nil {
				return
			}
		}
	}()
}

// client FROM PORT: sends a datagram, and prints the answer to answer.txt.
func cmdClient(ts *testscript.TestScript, neg bool, args []string) {
	d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(args[0])}}
	c, err := d.Dial("udp", "127.0.0.1:"+args[1])
	ts.Check(err)
	defer c.Close()
	b := make([]byte, 2048)
	for range 60 {
		_, err = c.Write([]byte("hello"))
		if err != nil {
			continue
		}
		ts.Check(c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)))
		var n int
		if n, err = c.Read(b); err == nil {
			if neg {
				ts.Fatalf("answered by %s", b[:n])
			}
			ts.Check(os.WriteFile(ts.MkAbs("answer.txt"), b[:n], 0o644))
			return
		}
	}
	if !neg {
		ts.Fatalf("no answer: %v", err)
	}
}
