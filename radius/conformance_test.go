package radius

import (
	"testing"

	"github.com/aovlb/aovlb/lb/lbtest"
)

func TestConformance(t *testing.T) {
	lbtest.TestClassifier(t, Classifier{}, [][]byte{
		big(),
		build(AccountingRequest, 1, 1, text(UserName, "ada"), text(AcctSessionID, "7")),
		build(AccessChallenge, 1, 1, text(State, "0123456789abcdef"), msgAuth()),
		build(AccessAccept, 1, 1, msgAuth()),
		build(StatusServer, 1, 1, msgAuth()),
	})
	t.Run("Prober", func(t *testing.T) {
		p := &Prober{Secret: testSecret, User: "ping-user"}
		lbtest.TestProber(t, p, serve(t, answer(AccessReject)))
	})
}
