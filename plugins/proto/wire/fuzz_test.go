package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

// FuzzMessages reads what the other side might send: it must not panic, and what
// it has become must survive being sent on.
func FuzzMessages(f *testing.F) {
	d := &plugins.Deployment{Sites: []plugins.Site{{Name: "hq", Pools: []plugins.Pool{{Name: "ras"}}}}}
	plan, err := planTo(&plugins.Plan{Deployment: d, Base: "b", Changes: []plugins.Change{{Action: plugins.ActionAdd, Kind: "pool", Name: "ras"}}})
	if err != nil {
		f.Fatal(err)
	}
	stats, err := statsTo(&plugins.Stats{Site: "hq", Pools: []plugins.PoolStats{{Name: "ras", Backends: []plugins.BackendStats{{Clients: new(3)}}}}, Groups: []plugins.GroupStats{{IKEv2: new(plugins.IKEv2Stats)}}})
	if err != nil {
		f.Fatal(err)
	}
	state, err := stateTo(&plugins.State{Deployment: d, Objects: []plugins.Object{{Kind: "vs", Fields: []plugins.Field{{Name: "n"}}}}, Drained: []plugins.DrainRequest{{}}})
	if err != nil {
		f.Fatal(err)
	}
	for i, m := range []proto.Message{plan, stats, state, capabilitiesTo(plugins.Capabilities{Support: plugins.Full("pools.picker=a,b")}), &pb.WatchResponse{AtUnixNano: 1}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), b)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		switch kind % 6 {
		case 0:
			again(t, b, new(pb.Plan), func(m *pb.Plan) (*plugins.Plan, error) { return planFrom(m, true) }, planTo)
		case 1:
			again(t, b, new(pb.StatsResponse), statsFrom, statsTo)
		case 2:
			again(t, b, new(pb.ReadResponse), stateFrom, stateTo)
		case 3:
			again(t, b, new(pb.CapabilitiesResponse), func(m *pb.CapabilitiesResponse) (plugins.Capabilities, error) { return capabilitiesFrom(m), nil },
				func(c plugins.Capabilities) (*pb.CapabilitiesResponse, error) { return capabilitiesTo(c), nil })
		case 4:
			again(t, b, new(pb.WatchResponse), func(m *pb.WatchResponse) (plugins.Event, error) { return eventFrom(m), nil },
				func(e plugins.Event) (*pb.WatchResponse, error) { return eventTo(&e), nil })
		case 5:
			_ = errorOf(context.Background(), context.Canceled, metadata.Pairs(reasonKey, string(b), faultsKey, string(b)))
			_ = faultsOf(metadata.Pairs(faultsKey, string(b)))
		}
	})
}

// again reads b, and what is made of the result, which must be the same.
func again[M proto.Message, T any](t *testing.T, b []byte, m M, from func(M) (T, error), to func(T) (M, error)) {
	if proto.Unmarshal(b, m) != nil {
		return
	}
	one, err := from(m)
	if err != nil {
		return
	}
	sent, err := to(one)
	if err != nil {
		return // a number that JSON hasn't, say
	}
	two, err := from(sent)
	if err != nil {
		t.Fatalf("what was read can't be read again: %v", err)
	}
	x, err := json.Marshal(one)
	if err != nil {
		return // a time beyond the year 9999
	}
	y, err := json.Marshal(two)
	if err != nil || !bytes.Equal(x, y) {
		t.Fatalf("%v\n%s\n%s", err, x, y)
	}
}
