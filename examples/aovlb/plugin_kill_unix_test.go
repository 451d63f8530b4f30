//go:build unix

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aovlb/aovlb/plugins/plugintest/filebox"
)

// pidLogged is where the log says which process a plugin is.
var pidLogged = regexp.MustCompile(`the plugin runs.* pid=(\d+)`)

// An apply is an aovlb apply that is under way.
type apply struct {
	t    *testing.T
	cmd  *exec.Cmd
	out  *bufio.Scanner
	pids chan int // of the plugin, as it is started
	errs []string // errors that it said; to be read when pids is closed
	said []string
}

// hangingBox returns the file of a deployment for a balancer that doesn't answer some
// writes, counted from 1: an apply is in the middle of its work then, until its driver
// is ended.
func hangingBox(t *testing.T, writes ...int) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "plugins")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("aovlb-plugin-filebox")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bin, "aovlb-plugin-filebox"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	box := &filebox.Box{Hang: writes}
	if err := box.Save(filepath.Join(dir, "box.json")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "a.yaml")
	put(t, file, strings.ReplaceAll(`sites:
  - name: hq
    pools:
      - name: ras
        picker: round-robin
        panic: false
        backends: [{name: ras1, address: 10.0.1.11}, {name: ras2, address: 10.0.1.12}]
        checks: [{type: sstp}]
    groups:
      - name: vpn
        pool: ras
        affinity: source
        listeners: [{name: sstp, protocol: sstp, address: "192.0.2.10:443"}]
log: {level: info}
plugins: {dirs: [DIR/plugins], lock: DIR/lock}
targets: [{name: box, driver: filebox, settings: {file: DIR/box.json}}]
`, "DIR", dir))
	if out, err := exec.CommandContext(t.Context(), "aovlb", "plugin", "lock", "--file", file, "filebox").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return file
}

func startApply(t *testing.T, file string) *apply {
	t.Helper()
	a := &apply{t: t, cmd: exec.CommandContext(t.Context(), "aovlb", "apply", file), pids: make(chan int, 100)}
	out, err := a.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	log, err := a.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a.out = bufio.NewScanner(out)
	go func() {
		defer close(a.pids)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if m := pidLogged.FindStringSubmatch(lines.Text()); m != nil {
				pid, _ := strconv.Atoi(m[1]) // digits
				a.pids <- pid
			} else if strings.HasPrefix(lines.Text(), "aovlb ") {
				a.errs = append(a.errs, lines.Text())
			}
		}
	}()
	return a
}

// until reads what is printed until a line has text in it; empty reads all.
func (a *apply) until(text string) {
	a.t.Helper()
	for a.out.Scan() {
		a.said = append(a.said, a.out.Text())
		if text != "" && strings.Contains(a.out.Text(), text) {
			return
		}
	}
	if text != "" {
		a.t.Fatalf("it doesn't say %q: %q", text, a.said)
	}
}

// hangs waits until the balancer has been given so many writes, of which it won't
// answer the last.
func hangs(t *testing.T, file string, writes int) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		box, err := filebox.Load(filepath.Join(filepath.Dir(file), "box.json"))
		switch {
		case err != nil:
			t.Fatal(err)
		case box.Writes == writes:
			return
		case box.Writes > writes || time.Now().After(end):
			t.Fatalf("%d writes were begun, want %d", box.Writes, writes)
		}
	}
}

// TestApplyOutlivesItsDriver: aovlb apply whose driver is killed, twice, says so, and
// does what was left with a new one.
func TestApplyOutlivesItsDriver(t *testing.T) {
	file := hangingBox(t, 3, 5)
	a := startApply(t, file)
	for i, done := range []string{"2/", "1/"} {
		a.until(done)
		hangs(t, file, 3+2*i)
		if err := syscall.Kill(<-a.pids, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		a.until("the driver died; what is left is planned anew")
	}
	a.until("")
	if err := a.cmd.Wait(); err != nil || !strings.HasPrefix(a.said[len(a.said)-1], "box serves it, ") {
		t.Errorf("%v: %q", err, a.said)
	}
	// All changes are counted, and not only those of the last plan.
	var done, total int
	for _, line := range a.said { // the first that counts; diagnostics may come before
		if _, err := fmt.Sscanf(line, "%d/%d ", &done, &total); err == nil {
			break
		}
	}
	if total == 0 || !strings.HasSuffix(a.said[len(a.said)-1], fmt.Sprintf(", %d changes", total)) {
		t.Errorf("of %d changes it tells %q", total, a.said[len(a.said)-1])
	}
	out, err := exec.CommandContext(t.Context(), "aovlb", "plan", file).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "box: nothing to change") {
		t.Errorf("%v: %s", err, out)
	}
	t.Log(strings.Join(a.said, "\n"))
}

// TestApplyCalledOff: aovlb apply that is interrupted, or killed, leaves no driver
// behind, and the next one does the rest.
func TestApplyCalledOff(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		t.Run(fmt.Sprint(sig), func(t *testing.T) {
			file := hangingBox(t, 3)
			a := startApply(t, file)
			a.until("2/")
			hangs(t, file, 3)
			if err := a.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			a.until("")
			pid := <-a.pids
			for range a.pids {
				t.Error("it was started again")
			}
			if errs := strings.Join(a.errs, "\n"); sig == syscall.SIGINT && !strings.Contains(errs, "another aovlb apply does the rest") {
				t.Errorf("it says %q", errs)
			}
			if err := a.cmd.Wait(); err == nil {
				t.Errorf("it ended as if nothing had happened: %q", a.said)
			}
			for end := time.Now().Add(30 * time.Second); syscall.Kill(pid, 0) == nil; {
				if time.Now().After(end) {
					t.Fatal("the driver goes on")
				}
				time.Sleep(5 * time.Millisecond)
			}
			out, err := exec.CommandContext(t.Context(), "aovlb", "apply", file).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "box serves it, ") || strings.Contains(string(out), "box serves it, 0 ") {
				t.Errorf("the rest: %v: %s", err, out)
			}
		})
	}
}
