package ikev2

import (
	"testing"

	"github.com/aovlb/aovlb/lb/lbtest"
)

func TestConformance(t *testing.T) {
	var corpus [][]byte
	for _, b := range hotDatagrams() {
		corpus = append(corpus, b)
	}
	for _, a := range []Affinity{AffinitySPI, AffinitySource} {
		t.Run(a.String(), func(t *testing.T) { lbtest.TestClassifier(t, Classifier{Affinity: a}, corpus) })
	}
	t.Run("Prober", func(t *testing.T) {
		lbtest.TestProber(t, Prober{}, fakeGateway(t, policy{group: GroupECP256}.reply(t)))
	})
}
