package ikev2

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// libreswanPolicies are policies in libreswan's spelling and in strongSwan's.
var libreswanPolicies = []struct{ libreswan, keywords string }{
	{"aes256-sha2_256-modp2048", "aes256-sha256-modp2048"},
	{"aes_gcm128-sha2_256-modp2048", "aes128gcm16-prfsha256-modp2048"},
	{"aes_gcm256-sha2_384-dh20,aes128-sha2_256-dh19+dh14", "aes256gcm16-prfsha384-ecp384,aes128-sha256-ecp256-modp2048"},
	{"3des-sha1-modp1536,aes128-sha1-modp2048", "3des-sha1-modp1536,aes128-sha1-modp2048"},
	{"aes256-sha2_512-dh31", "aes256-sha512-x25519"},
}

// TestLibreswan probes and scans a real libreswan, and compares with ike-scan:
//
//	namespace ikev2-PID: 10.99.0.1, ike-scan and this test
//	namespace ikev2-PID-gw: 10.99.1.1, 10.99.1.2 …, one policy at each; one pluto
//
// libreswan's package and strongSwan's can't be installed together, so
// AOVLB_LIBRESWAN names a folder that libreswan, libnss3-tools and
// libevent-pthreads have been unpacked to, as by dpkg-deb -x.
func TestLibreswan(t *testing.T) {
	root := os.Getenv("AOVLB_LIBRESWAN")
	if root == "" {
		t.Skip("AOVLB_LIBRESWAN is unset: it names the folder that libreswan has been unpacked to")
	}
	if !inNamespace(t, "unshare") {
		return
	}
	startPluto(t, root)
	for i, x := range libreswanPolicies {
		t.Run(x.libreswan, func(t *testing.T) {
			ps, err := ParseProposals(ProtocolIKE, x.keywords)
			if err != nil {
				t.Fatal(err)
			}
			target := netip.AddrPortFrom(plutoAddr(i), Port)
			r, err := Prober{}.Ask(t.Context(), target)
			if err != nil || r.Answer != AnswerInvalidKE {
				t.Fatalf("gentle probe: %v, %v", r, err)
			}
			if at4500, err := (Prober{}).Ask(t.Context(), netip.AddrPortFrom(plutoAddr(i), PortNATT)); err != nil || at4500.Answer != AnswerInvalidKE {
				t.Errorf("probe of port 4500: %v, %v", at4500, err)
			}
			r, err = Prober{Complete: true}.Ask(t.Context(), target)
			if err != nil || r.Answer != AnswerSA || !r.Fragments || r.NAT != NATNone {
				t.Errorf("complete probe: %+v, %v", r, err)
			}
			t.Logf("complete probe: %v, vendors %v, notifies %v", r, r.Vendors, r.Notifies)
			compareScan(t, "all", target, netip.Addr{}, AllCandidates(), Policy{IKE: ps})
			compareIKEScan(t, target, Policy{IKE: ps})
		})
	}
}

func plutoAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 99, 1, byte(i + 1)}) }

// startPluto starts libreswan in a namespace of its own. Its programs have to be
// where it was built for, so its mounts are its own too.
func startPluto(t *testing.T, root string) {
	t.Helper()
	ns := fmt.Sprintf("ikev2-%d-gw", os.Getpid())
	run(t, nil, "ip", "netns", "add", ns)
	t.Cleanup(func() { run(t, nil, "ip", "netns", "delete", ns) })
	for _, cmd := range []string{
		"ip link add v0 type veth peer name v1 netns " + ns,
		"ip link set v0 up",
		"ip addr add 10.99.0.1/16 dev v0",
		"ip -n " + ns + " link set lo up",
		"ip -n " + ns + " link set v1 up",
	} {
		run(t, nil, strings.Fields(cmd)...)
	}
	dir := t.TempDir()
	var conf strings.Builder
	conf.WriteString("conn %default\n\tright=%any\n\tleftid=@gateway\n\tauthby=secret\n\tikev2=insist\n\tauto=add\n")
	for i, x := range libreswanPolicies {
		run(t, nil, "ip", "-n", ns, "addr", "add", plutoAddr(i).String()+"/16", "dev", "v1")
		fmt.Fprintf(&conf, "conn p%d\n\tleft=%v\n\tike=%s\n", i, plutoAddr(i), x.libreswan)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("ipsec.conf", conf.String())
	write("secrets", ": PSK \"a secret of this test only\"\n")
	for _, d := range []string{"nss", "run", "dump"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	libs := "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	run(t, append(os.Environ(), libs), filepath.Join(root, "usr/bin/certutil"), "-N", "-d", "sql:"+filepath.Join(dir, "nss"), "--empty-password")
	script := fmt.Sprintf("mount --bind %[1]s/usr/libexec /usr/libexec && %[2]s exec /usr/libexec/ipsec/pluto --config %[3]s/ipsec.conf --nofork --stderrlog "+
		"--rundir %[3]s/run --nssdir %[3]s/nss --ipsecdir %[3]s --secretsfile %[3]s/secrets --dumpdir %[3]s/dump --nhelpers 0 --no-dnssec", root, libs, dir)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", ns, "unshare", "-m", "sh", "-c", script)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		log.Close()
		if b, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("pluto:\n%s", b[max(0, len(b)-4000):])
		}
	})
	last := netip.AddrPortFrom(plutoAddr(len(libreswanPolicies)-1), Port)
	for deadline := time.Now().Add(20 * time.Second); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := Prober{}.Probe(ctx, last)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("pluto isn't up: %v", err)
		}
		select {
		case <-t.Context().Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
