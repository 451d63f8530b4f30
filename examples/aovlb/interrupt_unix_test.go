//go:build unix

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestInterruptReading: who is asked something, or has a command read what nobody
// types, gets out of it by Ctrl-C; twice, where the first ends what pipes in.
func TestInterruptReading(t *testing.T) {
	for args, times := range map[string]int{"profile new": 1, "profile check -": 1, "diagnose -": 2} {
		t.Run(args, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "aovlb", strings.Fields(args)...)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			// A signal before the program listens to any ends it as well, so
			// that no answer is waited for. After the last it has as much time
			// as it needs, for a slow machine is no fault of its.
			patience, tick := time.After(60*time.Second), time.NewTicker(time.Second)
			defer tick.Stop()
			n := 0
			for {
				select {
				case err := <-done:
					if err == nil {
						t.Errorf("after %d signals: %v", n, err)
					}
					return
				case <-tick.C:
					if n++; n == times {
						tick.Stop()
					}
					if err := cmd.Process.Signal(os.Interrupt); err != nil {
						t.Log(err)
					}
				case <-patience:
					_ = cmd.Process.Kill()
					t.Fatalf("%d signals don't end it: %v", n, <-done)
				}
			}
		})
	}
}

// TestAskFile: the last question is asked again too if the answer can't be.
func TestAskFile(t *testing.T) {
	dir := t.TempDir()
	answers := strings.Join([]string{"device", "vpn.example.com", "", "10.0.0.0/8", "", dir + "/none/p.xml", dir, dir + "/p.xml", ""}, "\n")
	var out bytes.Buffer
	var r profileRequest
	if err := r.ask(strings.NewReader(answers), &out); err != nil {
		t.Fatal(err)
	}
	if r.out != dir+"/p.xml" || !strings.Contains(out.String(), "no such file or directory") || !strings.Contains(out.String(), dir+" is a folder") {
		t.Errorf("%q after %s", r.out, &out)
	}
	if err := r.ask(io.LimitReader(strings.NewReader(answers), 10), &out); err == nil {
		t.Error("answers that end too soon are taken")
	}
}
