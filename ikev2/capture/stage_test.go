package capture_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/aovlb/aovlb/ikev2"
	"github.com/aovlb/aovlb/ikev2/capture"
	"github.com/aovlb/aovlb/lb"
	"github.com/google/go-cmp/cmp"
)

// TestAnswersProve holds what gateways say during IKE_AUTH against how far it
// proves their clients to be.
func TestAnswersProve(t *testing.T) {
	const half, full = "half-open", "established"
	for name, want := range map[string][]string{
		"eap":                      {full, half, half, half, full},
		"bad-password":             {full, half, half},
		"certificate-refused":      {half},
		"gateway-untrusted":        {full, full},
		"weak-suite":               {full, half, half, half, full},
		"certificate-fragments":    {full, full},
		"certificate-ip-fragments": {full},
		"start-on-4500":            {full, half, half, half, full},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("..", "testdata", "captures", name+".pcap"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, authStages(t, b)); diff != "" {
				t.Errorf("stages of IKE_AUTH answers (-want +got):\n%s", diff)
			}
		})
	}
}

// authStages returns how far each answer in IKE_AUTH proves a client to be.
func authStages(t *testing.T, file []byte) (stages []string) {
	t.Helper()
	r, err := capture.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	d := capture.Decoder{Event: func(e *ikev2.Event) {
		kind, msg := ikev2.Identify(e.Data)
		if e.Kind != ikev2.EventDatagram || kind != ikev2.KindIKE {
			return
		}
		h, err := ikev2.ParseHeader(msg)
		if err != nil {
			t.Error(err)
		}
		if h.Exchange == ikev2.ExchangeAuth && h.Response() {
			v := ikev2.Classifier{}.Answer(e.Data, lb.Flow{Client: e.To, Service: e.From.Port()})
			stages = append(stages, v.Stage.String())
		}
	}}
	for {
		p, err := r.Next()
		if err == io.EOF {
			d.Flush()
			return stages
		}
		if err != nil {
			t.Fatal(err)
		}
		d.Decode(&p)
	}
}
