package lb_test

import (
	"testing"

	"github.com/aovlb/aovlb/lb"
	"github.com/aovlb/aovlb/lb/lbtest"
)

func TestConformance(t *testing.T) {
	t.Run("ByAddr", func(t *testing.T) { lbtest.TestClassifier(t, lb.ByAddr{}, [][]byte{[]byte("anything")}) })
	for name, fresh := range map[string]func() lb.Picker{
		"Maglev":       func() lb.Picker { return new(lb.Maglev) },
		"RoundRobin":   func() lb.Picker { return new(lb.RoundRobin) },
		"LeastClients": func() lb.Picker { return lb.LeastClients{} },
	} {
		t.Run(name, func(t *testing.T) { lbtest.TestPicker(t, fresh, 0.02) })
	}
}
