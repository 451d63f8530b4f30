package main

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/profilexml"
	"github.com/aovlb/aovlb/profilexml/rasphone"
)

// waitfor FILE TEXT: waits until a file holds text.
func cmdWaitFor(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		if b, err := os.ReadFile(ts.MkAbs(args[0])); err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			ts.Fatalf("%s doesn't come to hold %q", args[0], args[1])
		}
	}
}

// TestSuitesOfPhonebooks: what a suite is called in a profile, in a phone book and
// in a policy of a gateway is one thing.
func TestSuitesOfPhonebooks(t *testing.T) {
	for _, s := range []profilexml.Suite{profilexml.StandardSuite(), profilexml.EnhancedSuite(), profilexml.StrongSuite()} {
		for _, spelt := range []profilexml.Suite{s, s.PowerShell()} {
			p, err := rasphone.ParsePolicy(spelt.String())
			if err != nil || p.String() != s.String() {
				t.Errorf("%v became %v, %v", spelt, p, err)
			}
		}
	}
	for _, setting := range ikev2.Settings() {
		names := rasphone.PolicyValues(setting.String())
		if len(names) == 0 {
			t.Fatalf("a phone book has no %v", setting)
		}
		for _, v := range ikev2.WindowsValues() {
			if v.Setting != setting {
				continue
			}
			base := "AuthenticationTransformConstants=SHA256128,CipherTransformConstants=AES128,PfsGroup=PFS2048,DHGroup=Group14,IntegrityCheckMethod=SHA256,EncryptionMethod=AES128"
			var list []string
			for item := range strings.SplitSeq(base, ",") {
				if name, _, _ := strings.Cut(item, "="); name == setting.String() {
					item = name + "=" + v.PowerShell
				}
				list = append(list, item)
			}
			if _, err := rasphone.ParsePolicy(strings.Join(list, ",")); err != nil && v.PowerShell != "None" {
				t.Errorf("%v=%s: %v", setting, v.PowerShell, err)
			}
		}
	}
}
