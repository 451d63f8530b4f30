package ikev2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestProberStrongSwan asks a real gateway:
//
//	namespace ikev2-PID: lo 127.0.0.1, charon on 500 and 4500, and this test
//
// To ask from inside, the test binary runs itself again within the namespace.
func TestProberStrongSwan(t *testing.T) {
	if os.Getenv("AOVLB_PEERS") != "1" || os.Geteuid() != 0 {
		t.Skip("needs root and AOVLB_PEERS=1: starts strongSwan in a network namespace")
	}
	for _, p := range []string{"charon-systemd", "swanctl", "ip"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skip(err)
		}
	}
	const inside = "AOVLB_IKEV2_INSIDE"
	if os.Getenv(inside) != "" {
		askStrongSwan(t)
		return
	}
	ns := fmt.Sprintf("ikev2-%d", os.Getpid())
	run(t, nil, "ip", "netns", "add", ns)
	t.Cleanup(func() { run(t, nil, "ip", "netns", "delete", ns) })
	run(t, nil, "ip", "-n", ns, "link", "set", "lo", "up")
	out, err := command(t.Context(), append(os.Environ(), inside+"=1"), "ip", "netns", "exec", ns,
		os.Args[0], "-test.run=^TestProberStrongSwan$", "-test.v", "-test.timeout=120s")
	t.Logf("inside %s:\n%s", ns, out)
	if err != nil {
		t.Error(err)
	}
}

func command(ctx context.Context, env []string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, args[0], args[1:]...)
	c.Env = env
	out, err := c.CombinedOutput()
	return string(out), err
}

func run(t *testing.T, env []string, args ...string) string {
	t.Helper()
	out, err := command(context.Background(), env, args...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// swan is a charon in the namespace the test runs in.
type swan struct {
	t   *testing.T
	dir string
	env []string
	cmd *exec.Cmd
}

func startSwan(t *testing.T) *swan {
	t.Helper()
	s := &swan{t: t, dir: t.TempDir()}
	s.env = append(os.Environ(), "STRONGSWAN_CONF="+filepath.Join(s.dir, "strongswan.conf"), "SWANCTL_DIR="+s.dir)
	conf := fmt.Sprintf(`charon {
	load = random nonce aes des sha1 sha2 md5 hmac kdf gcm pem x509 constraints pubkey gmp curve25519 openssl kernel-netlink socket-default vici
	send_vendor_id = yes
	plugins {
		vici {
			socket = %s
		}
	}
}
swanctl {
	load = pem x509 openssl random
}
`, s.uri())
	s.write("strongswan.conf", conf)
	s.cmd = exec.Command("charon-systemd")
	s.cmd.Env = s.env
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	return s
}

func (s *swan) kill() {
	if s.cmd != nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *swan) uri() string { return "unix://" + filepath.Join(s.dir, "vici") }

func (s *swan) write(name, text string) {
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// load gives the gateway an IKE policy.
func (s *swan) load(proposals string) {
	s.t.Helper()
	s.write("swanctl.conf", fmt.Sprintf(`connections {
	gw {
		version = 2
		proposals = %s
		fragmentation = yes
		local {
			auth = psk
		}
		remote {
			auth = psk
		}
	}
}
`, proposals))
	var out string
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if out, err = command(context.Background(), s.env, "swanctl", "--load-all", "--noprompt", "--uri", s.uri()); err == nil {
			return
		}
		select {
		case <-s.t.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
	s.t.Fatalf("swanctl: %v\n%s", err, out)
}

var saCount = regexp.MustCompile(`IKE_SAs: (\d+) total, (\d+) half-open`)

// sas returns how many IKE SAs the gateway has, and how many of them half-open.
func (s *swan) sas() (total, half string) {
	s.t.Helper()
	out := run(s.t, s.env, "swanctl", "--stats", "--uri", s.uri())
	m := saCount.FindStringSubmatch(out)
	if m == nil {
		s.t.Fatalf("no counters in %q", out)
	}
	return m[1], m[2]
}

func askStrongSwan(t *testing.T) {
	t.Helper()
	s := startSwan(t)
	local := netip.MustParseAddr("127.0.0.1")
	ike, natt := netip.AddrPortFrom(local, Port), netip.AddrPortFrom(local, PortNATT)
	for _, x := range []struct {
		proposals string
		group     Group
		suite     string
	}{
		{"aes128gcm16-prfsha256-modp2048", GroupMODP2048, "AES_GCM_16_128/PRF_HMAC_SHA2_256/MODP_2048"},
		{"aes256gcm16-prfsha384-ecp384", GroupECP384, "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384"},
		{"aes256-sha256-ecp256", GroupECP256, "AES_CBC_256/HMAC_SHA2_256_128/PRF_HMAC_SHA2_256/ECP_256"},
		{"aes256-sha1-modp1024", GroupMODP1024, "AES_CBC_256/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024"},
		{"3des-sha1-modp1024", GroupMODP1024, "3DES/HMAC_SHA1_96/PRF_HMAC_SHA1/MODP_1024"},
		{"aes256-sha512-x25519", GroupX25519, "AES_CBC_256/HMAC_SHA2_512_256/PRF_HMAC_SHA2_512/CURVE_25519"},
		{"default", 0, ""},
	} {
		t.Run(x.proposals, func(t *testing.T) {
			s.load(x.proposals)
			// A probe is half-open until charon has answered it, for less than a
			// millisecond. Thirty in a row, on a machine that is busy, can be
			// enough for it to ask for cookies, which must do no harm.
			ok, cookies, was := 0, 0, time.Now()
			for i := range 30 {
				target := ike
				if i%2 == 1 {
					target = natt
				}
				r, err := Prober{}.Ask(t.Context(), target)
				if err != nil || r.Answer != AnswerInvalidKE || x.group != 0 && r.Group != x.group {
					t.Errorf("probe %d of %v: %v, %v", i, target, r, err)
					continue
				}
				ok++
				if r.Cookie {
					cookies++
				}
			}
			total, half := s.sas()
			t.Logf("%d of 30 probes answered by INVALID_KE_PAYLOAD, %d after a cookie, mean %v; then %s IKE SAs, %s half-open", ok, cookies, time.Since(was)/30, total, half)
			if total != "0" || half != "0" {
				t.Errorf("the probes left %s IKE SAs, %s half-open", total, half)
			}
		})
	}

	t.Run("policy drift", func(t *testing.T) {
		s.load("aes256gcm16-prfsha384-ecp384")
		p := Prober{Proposals: []Proposal{{Protocol: ProtocolIKE, Transforms: []Transform{
			{TransformEncr, EncrAESCBC, 128}, {TransformInteg, IntegHMACSHA256, 0}, {TransformPRF, PRFHMACSHA256, 0}, {TransformKE, uint16(GroupMODP2048), 0},
		}}}}
		r, err := p.Ask(t.Context(), ike)
		if err != nil || r.Answer != AnswerNoProposal {
			t.Errorf("got %v, %v", r, err)
		}
		if err := p.Probe(t.Context(), ike); err != nil {
			t.Errorf("lenient: %v", err)
		}
		p.Strict = true
		if err := p.Probe(t.Context(), ike); err == nil {
			t.Error("strict: no error")
		}
		if total, _ := s.sas(); total != "0" {
			t.Errorf("%s IKE SAs", total)
		}
	})

	t.Run("complete", func(t *testing.T) { askCompletely(t, s, ike) })

	t.Run("dead", func(t *testing.T) {
		s.kill()
		for _, target := range []netip.AddrPort{ike, natt} {
			if err := (Prober{}).Probe(t.Context(), target); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// askCompletely makes half-open SAs on purpose: it learns more, and brings the
// gateway to ask for cookies, then to silence.
func askCompletely(t *testing.T, s *swan, target netip.AddrPort) {
	t.Helper()
	p := Prober{Complete: true}
	for i := range 3 {
		r, err := p.Ask(t.Context(), target)
		if err != nil || r.Answer != AnswerSA || r.Suite.String() != "AES_GCM_16_256/PRF_HMAC_SHA2_384/ECP_384" || !r.Fragments {
			t.Fatalf("%d: got %+v, %v", i, r, err)
		}
		if len(r.Vendors) == 0 || r.Vendors[0].Name() != "strongSwan" {
			t.Errorf("vendors are %v", r.Vendors)
		}
	}
	if total, half := s.sas(); half != "3" {
		t.Errorf("%s IKE SAs, %s half-open: want 3 of them", total, half)
	}
	for i := range 3 {
		r, err := Prober{}.Ask(t.Context(), target)
		if err != nil || r.Answer != AnswerInvalidKE || !r.Cookie {
			t.Errorf("under pressure, %d: got %+v, %v", i, r, err)
		}
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		r, err := p.Ask(ctx, target)
		cancel()
		t.Logf("more half-open SAs: %v, %v", r, err)
		if err != nil {
			t.Errorf("a gateway under pressure isn't dead: %v", err)
		}
	}
}
