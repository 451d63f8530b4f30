package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
	"github.com/aovlb/aovlb/internal/standin"
)

// TestErrorsPage runs every aovlb command of docs/errors-809-800.md, and sees that
// every line of PowerShell there is one that some finding advises, and every
// finding it explains one that there is.
func TestErrorsPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/errors-809-800.md")
	if err != nil {
		t.Fatal(err)
	}
	found, advised := adviceOfCaptures(t)
	gateway, admin := answerIKE(t), serveAdmin(t)
	env := func(name string) string {
		if name == "AOVLB_ADMIN" {
			return admin
		}
		return ""
	}
	block, ran, shown := "", 0, 0
	for line := range strings.Lines(string(page)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			block = strings.TrimPrefix(line, "```")
		case block == "powershell":
			shown++
			if !advised[line] {
				t.Errorf("no finding advises %q", line)
			}
		case block == "sh" && strings.HasPrefix(line, "tcpdump "):
			filterCaptures(t, line)
		case block == "sh" && strings.HasPrefix(line, "aovlb diagnose --live ") && os.Geteuid() != 0:
			t.Logf("%s: needs root", line)
		case block == "sh" && strings.HasPrefix(line, "aovlb "):
			ran++
			line = strings.ReplaceAll(line, "--live eth0", "--live --for 300ms lo")
			line = strings.ReplaceAll(line, "HOST", gateway)
			line = strings.ReplaceAll(line, "ike.pcap", filepath.Join(captures, "fragments-dropped-gateway.pcap"))
			var out, errs bytes.Buffer
			e := &environment{stdout: &out, stderr: &errs, getenv: env}
			if code := run(t.Context(), e, strings.Fields(line)[1:]); code != 0 || out.Len() == 0 {
				t.Errorf("%s: exit code %d\n%s%s", line, code, out.String(), errs.String())
			}
		case block == "" && strings.HasPrefix(line, "| `"):
			first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			for id := range strings.SplitSeq(first, ", ") {
				if id = strings.Trim(id, "`"); !found[ikev2.FindingID(id)] {
					t.Errorf("no capture has a finding %q", id)
				}
			}
		}
	}
	if ran < 11 || shown < 10 {
		t.Errorf("%d commands run, %d compared", ran, shown)
	}
}

const captures = "../../ikev2/testdata/captures"

// filterCaptures runs a line that captures with tcpdump over the captures instead of
// the network: its filter must let all of them through.
func filterCaptures(t *testing.T, line string) {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Logf("%s: %v", line, err)
		return
	}
	_, filter, ok := strings.Cut(line, "'")
	filter, _, closed := strings.Cut(filter, "'")
	if !ok || !closed {
		t.Fatalf("no filter in %q", line)
	}
	count := func(path string, args ...string) string {
		cmd := exec.CommandContext(t.Context(), "tcpdump", append([]string{"-n", "--count", "-r", path}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("tcpdump %v: %v", args, err)
		}
		return string(out)
	}
	for _, name := range []string{"eap.pcap", "balancer.pcap", "certificate-ip-fragments.pcap", "ipv6-ip-fragments.pcap", "small-mtu.pcap"} {
		path := filepath.Join(captures, name)
		if all, got := count(path), count(path, filter); all != got {
			t.Errorf("the filter lets %s of %s of %s through", got, all, name)
		}
	}
}

// adviceOfCaptures returns what is found in the captures, and the commands that
// are advised.
func adviceOfCaptures(t *testing.T) (map[ikev2.FindingID]bool, map[string]bool) {
	t.Helper()
	paths, err := filepath.Glob(captures + "/*.pcap")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no captures: %v", err)
	}
	found, advised := map[ikev2.FindingID]bool{}, map[string]bool{}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		var tr ikev2.Tracker
		if _, err := capture.Read(bytes.NewReader(b), &tr); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
		for _, f := range tr.Report().Findings {
			found[f.ID] = true
			for _, a := range f.Advice {
				for _, c := range a.Commands {
					advised[c] = true
				}
			}
		}
	}
	return found, advised
}

// answerIKE serves IKE on loopback, and returns where.
func answerIKE(t *testing.T) string {
	t.Helper()
	udp := func() *net.UDPConn {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip("no loopback:", err)
		}
		return c
	}
	c, natt := udp(), udp()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	g := &standin.IKEGateway{Name: "ras1", Secret: []byte("x")}
	wg.Go(func() { _ = g.Serve(ctx, c, natt) }) // ends with ctx
	return c.LocalAddr().String()
}

// serveAdmin serves the admin API on loopback, and returns where.
func serveAdmin(t *testing.T) string {
	t.Helper()
	s := newServer(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no loopback:", err)
	}
	h := &http.Server{Handler: s.handler(nil)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = h.Serve(l) })
	t.Cleanup(func() { _ = h.Shutdown(context.Background()); wg.Wait() })
	return l.Addr().String()
}
