package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// libreswanPackages are libreswan and what it needs that not every Debian has
// installed.
var libreswanPackages = []string{"libreswan", "libnss3-tools", "libevent-pthreads-2.1-7"}

// pluto is libreswan's daemon, below the folder it is unpacked to.
const pluto = "usr/libexec/ipsec/pluto"

// NeedLibreswan returns a folder with libreswan in it, or skips the test, with the
// reason. Its package and strongSwan's can't be installed together, so it is
// only fetched by apt-get and unpacked; or AOVLB_LIBRESWAN names a folder where
// that has been done.
func NeedLibreswan(t testing.TB) string {
	t.Helper()
	root := os.Getenv("AOVLB_LIBRESWAN")
	if root == "" {
		root = fetchLibreswan(t)
	}
	for _, name := range []string{pluto, "usr/bin/certutil"} {
		cmd := exec.CommandContext(t.Context(), "ldd", filepath.Join(root, name))
		cmd.Env = append(os.Environ(), libraryPath(root))
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Skipf("libreswan can't be run: %v: %s", err, tail(string(out), 3))
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "not found") {
				t.Skipf("libreswan can't be run: %s", strings.TrimSpace(line))
			}
		}
	}
	return root
}

// fetchLibreswan downloads libreswan's packages and unpacks them.
func fetchLibreswan(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	get := exec.CommandContext(ctx, "apt-get", append([]string{"-qq", "download"}, libreswanPackages...)...)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		t.Skipf("libreswan can't be had: apt-get download: %v: %s", err, tail(string(out), 2))
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) < len(libreswanPackages) {
		t.Skipf("libreswan can't be had: apt-get downloads %d of %d packages, %v", len(files), len(libreswanPackages), err)
	}
	root := filepath.Join(dir, "root")
	for _, f := range files {
		if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", f, root).CombinedOutput(); err != nil {
			t.Fatalf("peers: unpacking %s: %v: %s", filepath.Base(f), err, out)
		}
	}
	return root
}

// libraryPath makes programs find the libraries that came with libreswan.
func libraryPath(root string) string {
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return "LD_LIBRARY_PATH=" + filepath.Join(root, "usr/lib", triplet)
}

// Libreswan starts libreswan's pluto in the namespace, from the folder that
// NeedLibreswan returned. Like a Responder it judges what it is offered, and has no
// tunnels to give; the proposals of all are spelled as libreswan does. Every
// Acceptance needs an address that the Host has on an interface, and not on lo.
//
// Its programs have to be where it was built for, so it gets mounts of its own.
func (h *Host) Libreswan(root string, all ...Acceptance) *Proc {
	t := h.net.t
	t.Helper()
	dir := filepath.Join(h.net.Dir, "libreswan-"+h.Name)
	var conf strings.Builder
	conf.WriteString("conn %default\n\tright=%any\n\tleftid=@gateway\n\tauthby=secret\n\tikev2=insist\n\tauto=add\n")
	for i, a := range all {
		fmt.Fprintf(&conf, "conn p%d\n\tleft=%v\n\tike=%s\n", i, a.Addr, a.IKE)
	}
	err := write(dir, map[string][]byte{"ipsec.conf": []byte(conf.String()), "secrets": []byte(": PSK \"a secret of tests only\"\n")})
	for _, d := range []string{"nss", "run", "dump"} {
		if err == nil {
			err = os.Mkdir(filepath.Join(dir, d), 0o700)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	env := []string{libraryPath(root)}
	if _, err := h.RunEnv(env, "", filepath.Join(root, "usr/bin/certutil"), "-N", "-d", "sql:"+filepath.Join(dir, "nss"), "--empty-password"); err != nil {
		t.Fatal(err)
	}
	script := fmt.Sprintf("mount --bind '%[1]s/usr/libexec' /usr/libexec && exec /%[2]s --config '%[3]s/ipsec.conf' --nofork --stderrlog --rundir '%[3]s/run' "+
		"--nssdir '%[3]s/nss' --ipsecdir '%[3]s' --secretsfile '%[3]s/secrets' --dumpdir '%[3]s/dump' --nhelpers 0 --no-dnssec", root, pluto, dir)
	return h.Start("pluto", env, "unshare", "-m", "sh", "-c", script)
}
