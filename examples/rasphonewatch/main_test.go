package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "rasphone.pbk")
	if err := os.WriteFile(path, []byte("[Always On VPN]\r\nVpnStrategy=6\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	getenv := func(k string) string { return map[string]string{"PBK": path}[k] }
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- command(ctx, []string{"run", "Always On VPN", "Ikev2Sstp"}, getenv) }()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if b, err := os.ReadFile(path); err == nil && strings.Contains(string(b), "VpnStrategy=14") {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the phone book isn't edited")
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMistakes(t *testing.T) {
	none := func(string) string { return "" }
	for want, args := range map[string][]string{
		"call it as":       {"run"},
		"can't be":         {"run", "a", "ike"},
		"is no Windows":    {"run", "a", "Ikev2Sstp"},
		"thing of Windows": {"remove"},
	} {
		if err := command(t.Context(), args, none); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", args, err, want)
		}
	}
}
