package sstp

import (
	"testing"

	"github.com/aovlb/aovlb/lb/lbtest"
)

func TestConformance(t *testing.T) {
	lbtest.TestProber(t, &Prober{}, newStandIn(t, false, answering(windows401)).addr)
}
