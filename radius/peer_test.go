package radius

import (
	"bufio"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aovlb/aovlb/internal/peers/freeport"
)

// freeRADIUS is the configuration of a server that accepts "good", discards
// "silent" and rejects all others. It knows 127.0.0.1 as a client, and no other.
const freeRADIUS = `
name = freeradius
prefix = /usr
libdir = /usr/lib/freeradius
raddbdir = %[1]s
logdir = %[1]s
run_dir = %[1]s
db_dir = %[1]s
pidfile = %[1]s/pid
max_request_time = 5
proxy_requests = no
log {
	destination = stdout
}
security {
	status_server = no
}
thread pool {
	start_servers = 1
	max_servers = 2
	min_spare_servers = 1
	max_spare_servers = 1
}
client aovlb {
	ipaddr = 127.0.0.1
	secret = %[2]s
	require_message_authenticator = yes
}
modules {
	always reject {
		rcode = reject
	}
	always ok {
		rcode = ok
	}
}
server default {
	listen {
		type = auth
		ipaddr = 127.0.0.1
		port = %[3]d
	}
	listen {
		type = acct
		ipaddr = 127.0.0.1
		port = %[4]d
	}
	authorize {
		if (&User-Name == "good") {
			update control {
				&Auth-Type := Accept
			}
		}
		elsif (&User-Name == "silent") {
			update control {
				&Response-Packet-Type := Do-Not-Respond
			}
			ok
		}
		else {
			update reply {
				&Reply-Message := "who is this?"
			}
			reject
		}
	}
	authenticate {
	}
	accounting {
		ok
	}
}
`

// startFreeRADIUS runs Debian's FreeRADIUS and returns its two ports.
func startFreeRADIUS(t *testing.T, secret string) (auth, acct netip.AddrPort) {
	t.Helper()
	if os.Getenv("AOVLB_PEERS") != "1" {
		t.Skip("set AOVLB_PEERS=1 to run against FreeRADIUS")
	}
	path, err := exec.LookPath("freeradius")
	if err != nil {
		t.Skip("freeradius isn't installed")
	}
	dir := t.TempDir()
	auth, acct = freePort(t), freePort(t)
	conf := fmt.Sprintf(freeRADIUS, dir, secret, auth.Port(), acct.Port())
	if err := os.WriteFile(filepath.Join(dir, "radiusd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dictionary"), []byte("$INCLUDE /usr/share/freeradius/dictionary\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "-f", "-l", "stdout", "-d", dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, bufio.NewScanner(out), cmd)
	return auth, acct
}

// awaitReady waits until the server says that it is ready, and reads on so that
// its log never blocks it.
func awaitReady(t *testing.T, lines *bufio.Scanner, cmd *exec.Cmd) {
	t.Helper()
	var wg sync.WaitGroup
	ready := make(chan bool, 1)
	var log strings.Builder
	wg.Go(func() {
		defer close(ready)
		said := false
		for lines.Scan() {
			fmt.Fprintln(&log, lines.Text())
			if !said && strings.Contains(lines.Text(), "Ready to process requests") {
				said = true
				ready <- true
			}
		}
	})
	t.Cleanup(func() {
		cmd.Process.Kill()
		wg.Wait()
		cmd.Wait()
		if t.Failed() {
			t.Logf("freeradius said:\n%s", log.String())
		}
	})
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("freeradius ended")
		}
	case <-time.After(20 * time.Second):
		t.Fatal("freeradius isn't ready")
	}
}

// freePort returns a port of 127.0.0.1 that was free a moment ago.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

func TestProberAgainstFreeRADIUS(t *testing.T) {
	const secret = "s3cret-of-the-test"
	auth, acct := startFreeRADIUS(t, secret)
	right, wrong := NewSecret([]byte(secret)), NewSecret([]byte("another"))
	closed := freePort(t)
	tests := []struct {
		name   string
		p      Prober
		target netip.AddrPort
		want   string
		code   Code
	}{
		{"rejected user", Prober{Secret: right}, auth, "", AccessReject},
		{"accepted user", Prober{Secret: right, User: "good"}, auth, "", AccessAccept},
		{"accounting", Prober{Secret: right, Accounting: true}, acct, "", AccountingResponse},
		{"wrong secret", Prober{Secret: wrong}, auth, "the secret is wrong", 0},
		{"wrong secret, accounting", Prober{Secret: wrong, Accounting: true}, acct, "the secret is wrong", 0},
		{"unknown client", Prober{Secret: right, LocalAddr: netip.MustParseAddr("127.0.0.9")}, auth, "isn't one of its RADIUS clients", 0},
		{"silent for this user", Prober{Secret: right, User: "silent"}, auth, "no answer", 0},
		{"accounting at the port of authentication", Prober{Secret: right, Accounting: true}, auth, "no answer", 0},
		{"closed port", Prober{Secret: right}, closed, "refused", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			wait := 10 * time.Second
			if tt.want != "" {
				wait = 1500 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			res, err := tt.p.Ask(ctx, tt.target)
			t.Logf("%+v, %v", res, err)
			if (tt.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error is %v, want %q in it", err, tt.want)
			}
			if res.Code != tt.code {
				t.Errorf("code is %v, want %v", res.Code, tt.code)
			}
			if tt.code == AccessReject && res.Message != "who is this?" {
				t.Errorf("message is %q", res.Message)
			}
		})
	}
}
