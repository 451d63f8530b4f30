package wire

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

// DialOptions are what a connection for Dial needs: the bound of its messages.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage))}
}

// ServerOptions are what a server for Serve needs, likewise.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage)}
}

// Dial returns the driver at the other end of conn. It is a [plugins.Renderer] if
// that one is, and a [StatsStreamer]. host says who calls, such as "aovlb 1.2".
// The caller closes conn when the driver isn't needed any more.
func Dial(ctx context.Context, conn grpc.ClientConnInterface, host string) (plugins.Driver, error) {
	c := &client{rpc: pb.NewDriverClient(conn)}
	hello, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.HelloResponse, error) {
		return c.rpc.Hello(ctx, &pb.HelloRequest{Host: host}, o...)
	})
	if err != nil {
		return nil, err
	}
	switch {
	case slices.Contains(hello.GetFeatures(), featureJudged):
		return &judged{Driver: c}, nil
	case slices.Contains(hello.GetFeatures(), featureRender):
		return &rendering{client: c}, nil
	}
	return c, nil
}

// A StatsStreamer is a Driver that tells its statistics again and again, in one
// call.
type StatsStreamer interface {
	// StreamStats calls f with statistics, now and each interval, until ctx is
	// done or something fails, and returns why.
	StreamStats(ctx context.Context, every time.Duration, f func(*plugins.Stats)) error
}

// client is a Driver that is somewhere else.
type client struct{ rpc pb.DriverClient }

var (
	_ plugins.Driver   = (*client)(nil)
	_ StatsStreamer    = (*client)(nil)
	_ plugins.Renderer = (*rendering)(nil)
)

// one does a call that has one answer.
func one[T any](ctx context.Context, call func(context.Context, ...grpc.CallOption) (*T, error)) (*T, error) {
	var md metadata.MD
	out, err := call(ctx, grpc.Trailer(&md))
	return out, errorOf(ctx, err, md)
}

// many does a call that has many answers.
func many[T any](ctx context.Context, open func(context.Context) (grpc.ServerStreamingClient[T], error), f func(*T) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := open(ctx)
	if err != nil {
		return errorOf(ctx, err, nil)
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errorOf(ctx, err, stream.Trailer())
		}
		if err := f(m); err != nil {
			return err
		}
	}
}

func (c *client) Info(ctx context.Context) (plugins.Info, error) {
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.InfoResponse, error) {
		return c.rpc.Info(ctx, &pb.InfoRequest{}, o...)
	})
	return plugins.Info{Name: m.GetName(), Version: m.GetVersion(), Product: m.GetProduct()}, err
}

func (c *client) Schema(ctx context.Context) (json.RawMessage, error) {
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.SchemaResponse, error) {
		return c.rpc.Schema(ctx, &pb.SchemaRequest{}, o...)
	})
	if err == nil && !json.Valid(m.GetSchema()) {
		err = errors.New("the plugin's schema is no JSON")
	}
	return m.GetSchema(), err
}

func (c *client) Configure(ctx context.Context, conf plugins.Config) error {
	_, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.ConfigureResponse, error) {
		return c.rpc.Configure(ctx, &pb.ConfigureRequest{Site: conf.Site, Owner: string(conf.Owner), Settings: conf.Settings}, o...)
	})
	return err
}

func (c *client) Capabilities(ctx context.Context) (plugins.Capabilities, error) {
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.CapabilitiesResponse, error) {
		return c.rpc.Capabilities(ctx, &pb.CapabilitiesRequest{}, o...)
	})
	return capabilitiesFrom(m), err
}

func (c *client) Validate(ctx context.Context, d *plugins.Deployment) ([]plugins.Diagnostic, error) {
	dep, err := deploymentTo(d)
	if err != nil {
		return nil, err
	}
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.ValidateResponse, error) {
		return c.rpc.Validate(ctx, &pb.ValidateRequest{Deployment: dep}, o...)
	})
	return diagnosticsFrom(m.GetDiagnostics()), err
}

func (c *client) Plan(ctx context.Context, d *plugins.Deployment) (*plugins.Plan, error) {
	dep, err := deploymentTo(d)
	if err != nil {
		return nil, err
	}
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.PlanResponse, error) {
		return c.rpc.Plan(ctx, &pb.PlanRequest{Deployment: dep}, o...)
	})
	if err != nil {
		return nil, err
	}
	p, err := planFrom(m.GetPlan(), false)
	if err != nil {
		return nil, err
	}
	p.Deployment = d.Clone()
	return p, nil
}

func (c *client) Apply(ctx context.Context, p *plugins.Plan, progress func(plugins.Progress)) error {
	plan, err := planTo(p)
	if err != nil {
		return err
	}
	return many(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[pb.ApplyResponse], error) {
		return c.rpc.Apply(ctx, &pb.ApplyRequest{Plan: plan})
	}, func(m *pb.ApplyResponse) error {
		if progress != nil {
			progress(progressFrom(m))
		}
		return nil
	})
}

func (c *client) Read(ctx context.Context) (*plugins.State, error) {
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.ReadResponse, error) {
		return c.rpc.Read(ctx, &pb.ReadRequest{}, o...)
	})
	if err != nil {
		return nil, err
	}
	return stateFrom(m)
}

func (c *client) Drain(ctx context.Context, r plugins.DrainRequest) error {
	_, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.DrainResponse, error) {
		return c.rpc.Drain(ctx, &pb.DrainRequest{Drain: drainTo(&r)}, o...)
	})
	return err
}

func (c *client) Undrain(ctx context.Context, r plugins.BackendRef) error {
	_, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.UndrainResponse, error) {
		return c.rpc.Undrain(ctx, &pb.UndrainRequest{Backend: refTo(r)}, o...)
	})
	return err
}

func (c *client) Stats(ctx context.Context) (*plugins.Stats, error) {
	var last *plugins.Stats
	err := c.stats(ctx, 0, func(s *plugins.Stats) { last = s })
	if err == nil && last == nil {
		err = errors.New("the plugin sent no statistics")
	}
	return last, err
}

// StreamStats calls f with statistics until ctx is done.
func (c *client) StreamStats(ctx context.Context, every time.Duration, f func(*plugins.Stats)) error {
	return c.stats(ctx, max(every, 1), f)
}

func (c *client) stats(ctx context.Context, every time.Duration, f func(*plugins.Stats)) error {
	return many(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[pb.StatsResponse], error) {
		return c.rpc.Stats(ctx, &pb.StatsRequest{EveryNano: int64(every)})
	}, func(m *pb.StatsResponse) error {
		s, err := statsFrom(m)
		if err == nil {
			f(s)
		}
		return err
	})
}

func (c *client) Watch(ctx context.Context, f func(plugins.Event)) error {
	err := many(ctx, func(ctx context.Context) (grpc.ServerStreamingClient[pb.WatchResponse], error) {
		return c.rpc.Watch(ctx, &pb.WatchRequest{})
	}, func(m *pb.WatchResponse) error {
		f(eventFrom(m))
		return nil
	})
	if err == nil {
		err = errors.New("the plugin ended Watch by itself")
	}
	return err
}

// rendering is a client whose driver writes files.
type rendering struct{ *client }

func (c *rendering) Render(ctx context.Context, d *plugins.Deployment) ([]plugins.File, error) {
	dep, err := deploymentTo(d)
	if err != nil {
		return nil, err
	}
	m, err := one(ctx, func(ctx context.Context, o ...grpc.CallOption) (*pb.RenderResponse, error) {
		return c.rpc.Render(ctx, &pb.RenderRequest{Deployment: dep}, o...)
	})
	return filesFrom(m.GetFiles()), err
}
