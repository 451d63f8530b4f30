package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// refreshed looks for devices as Run does, and reports whether one of that name has the
// program, and under which number.
func (x *bench) refreshed(name string) (index uint32, ok bool) {
	x.t.Helper()
	x.p.mu.Lock()
	defer x.p.mu.Unlock()
	if err := x.p.refresh(); err != nil {
		x.t.Error(err)
	}
	for i, a := range x.p.attached {
		if a.name == name {
			return i, a.there()
		}
	}
	return 0, false
}

// A device that went away and came back, under its number or another, has the programs
// again, and one from which somebody has detached them.
func TestDeviceComesBack(t *testing.T) {
	x := newBench(t)
	if err := x.p.attached[x.a].tc.Detach(); err != nil {
		t.Fatal(err)
	}
	if x.p.attached[x.a].there() {
		t.Error("a program that was detached is said to be there")
	}
	if i, ok := x.refreshed("va"); !ok || i != x.a {
		t.Errorf("after its program was detached the device has it: %v, number %d", ok, i)
	}
	for _, number := range []string{fmt.Sprint("index ", x.a), "index 77"} {
		sh(t, "ip link del va; ip link add "+number+" name va type veth peer name pa; ip link set pa up; ip link set va up")
		d, err := net.InterfaceByName("va")
		if err != nil {
			t.Fatal(err)
		}
		if i, ok := x.refreshed("va"); !ok || int(i) != d.Index || len(x.p.attached) != 2 {
			t.Errorf("back under %s: %v, number %d, of %d devices", number, ok, i, len(x.p.attached))
		}
		if dev := x.p.devices[d.Index*deviceSize:]; dev[6] != 1 || !bytes.Equal(dev[8:14], d.HardwareAddr) {
			t.Errorf("under %s the kernel has %x of it", number, dev[:deviceSize])
		}
	}
	if was := x.p.devices[x.a*deviceSize:][:deviceSize]; !bytes.Equal(was, make([]byte, deviceSize)) {
		t.Errorf("of its first number the kernel still has %x", was)
	}
	sh(t, "ip link del va")
	if _, ok := x.refreshed("va"); ok || len(x.p.attached) != 1 {
		t.Errorf("once it is gone, %d devices are attached to", len(x.p.attached))
	}
}

// That several devices refuse is told in one line, with what each says.
func TestRefusedByDevices(t *testing.T) {
	x := newBench(t)
	x.p.gone(x.a)
	x.p.gone(x.b)
	tc := x.p.tc
	x.p.tc = x.p.xdp // which is nothing to attach there
	err := x.p.refresh()
	x.p.tc = tc
	if err == nil || !strings.Contains(err.Error(), "device va: ") || !strings.Contains(err.Error(), "device vb: ") ||
		strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "Interfaces") {
		t.Errorf("%v, want one line about va and vb", err)
	}
}

// What the verifier says goes to the log, all of it; the error is one line.
func TestRefusedByKernel(t *testing.T) {
	if os.Getenv("AOVLB_PEERS") == "" || os.Getuid() != 0 {
		t.Skip("AOVLB_PEERS is not set, or not root")
	}
	_, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, 1), asm.LoadMem(asm.R0, asm.R3, 0, asm.DWord), asm.Return(),
	}})
	if err == nil {
		t.Fatal("the kernel takes a program that reads from nowhere")
	}
	var log bytes.Buffer
	p := &Path{c: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	if got := p.refused(err); !strings.Contains(got.Error(), release()) || !strings.Contains(got.Error(), "refuses the program") ||
		!strings.Contains(got.Error(), "R3 !read_ok") || strings.Contains(got.Error(), "\n") {
		t.Errorf("%v", got)
	}
	for _, want := range []string{"r2 = 1", "R3 !read_ok", "processed "} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q:\n%s", want, log.String())
		}
	}
}

// Other refusals are one line with what is missing.
func TestRefusedOtherwise(t *testing.T) {
	p := new(Path)
	if got := p.refused(fmt.Errorf("load: %w", unix.EPERM)); !strings.Contains(got.Error(), "doesn't permit BPF programs") || !errors.Is(got, os.ErrPermission) {
		t.Errorf("%v", got)
	}
	if got := p.refused(fmt.Errorf("load: %w", ebpf.ErrNotSupported)); !strings.Contains(got.Error(), release()) || !strings.Contains(got.Error(), "6.6") || !errors.Is(got, ErrUnsupported) {
		t.Errorf("%v", got)
	}
	file := filepath.Join(t.TempDir(), "lockdown")
	for text, want := range map[string]string{
		"none [integrity] confidentiality\n": " (the kernel is locked down: integrity)",
		"none integrity [confidentiality]\n": " (the kernel is locked down: confidentiality)",
		"[none] integrity confidentiality\n": "", "": "", "[none": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := lockdown(file); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := lockdown(file + "x"); got != "" {
		t.Errorf("without the file: %q", got)
	}
}
