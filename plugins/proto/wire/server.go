package wire

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

// featureRender says in Hello that a driver is a plugins.Renderer.
const featureRender = "render"

// Serve has s offer d. A panic of d ends its call with an error, and goes to log,
// which may be nil.
func Serve(s *grpc.Server, d plugins.Driver, log *slog.Logger) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	pb.RegisterDriverServer(s, &server{d: d, log: log})
}

type server struct {
	pb.UnimplementedDriverServer

	d   plugins.Driver
	log *slog.Logger
}

// unary does a call that has one answer.
func unary[T any](ctx context.Context, s *server, name string, call func() (*T, error)) (out *T, err error) {
	err = s.guard(name, func() (err error) { out, err = call(); return err })
	if err == nil {
		return out, nil
	}
	md, err := statusOf(ctx, err)
	if trailerErr := grpc.SetTrailer(ctx, md); trailerErr != nil {
		s.log.Warn("an error goes without its kind", "call", name, "error", trailerErr)
	}
	return nil, err
}

// guard turns a panic into an error.
func (s *server) guard(name string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("the driver panicked", "call", name, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("the driver panicked in %s: %v", name, p)
		}
	}()
	return f()
}

// streamed ends a call that has many answers.
func (s *server) streamed(stream grpc.ServerStream, name string, f func() error) error {
	md, err := statusOf(stream.Context(), s.guard(name, f))
	if err != nil {
		stream.SetTrailer(md)
	}
	return err
}

func (s *server) Hello(context.Context, *pb.HelloRequest) (*pb.HelloResponse, error) {
	m := &pb.HelloResponse{MaxMessage: MaxMessage}
	if _, ok := s.d.(plugins.Renderer); ok {
		m.Features = append(m.Features, featureRender)
	}
	return m, nil
}

func (s *server) Info(ctx context.Context, _ *pb.InfoRequest) (*pb.InfoResponse, error) {
	return unary(ctx, s, "Info", func() (*pb.InfoResponse, error) {
		i, err := s.d.Info(ctx)
		return &pb.InfoResponse{Name: i.Name, Version: i.Version, Product: i.Product}, err
	})
}

func (s *server) Schema(ctx context.Context, _ *pb.SchemaRequest) (*pb.SchemaResponse, error) {
	return unary(ctx, s, "Schema", func() (*pb.SchemaResponse, error) {
		b, err := s.d.Schema(ctx)
		return &pb.SchemaResponse{Schema: b}, err
	})
}

func (s *server) Configure(ctx context.Context, m *pb.ConfigureRequest) (*pb.ConfigureResponse, error) {
	return unary(ctx, s, "Configure", func() (*pb.ConfigureResponse, error) {
		return &pb.ConfigureResponse{}, s.d.Configure(ctx, plugins.Config{
			Site: m.GetSite(), Owner: plugins.Owner(m.GetOwner()), Settings: m.GetSettings(),
		})
	})
}

func (s *server) Capabilities(ctx context.Context, _ *pb.CapabilitiesRequest) (*pb.CapabilitiesResponse, error) {
	return unary(ctx, s, "Capabilities", func() (*pb.CapabilitiesResponse, error) {
		c, err := s.d.Capabilities(ctx)
		return capabilitiesTo(c), err
	})
}

func (s *server) Validate(ctx context.Context, m *pb.ValidateRequest) (*pb.ValidateResponse, error) {
	return unary(ctx, s, "Validate", func() (*pb.ValidateResponse, error) {
		d, err := deploymentFrom(m.GetDeployment(), true)
		if err != nil {
			return nil, err
		}
		list, err := s.d.Validate(ctx, d)
		return &pb.ValidateResponse{Diagnostics: diagnosticsTo(list)}, err
	})
}

func (s *server) Plan(ctx context.Context, m *pb.PlanRequest) (*pb.PlanResponse, error) {
	return unary(ctx, s, "Plan", func() (*pb.PlanResponse, error) {
		d, err := deploymentFrom(m.GetDeployment(), true)
		if err != nil {
			return nil, err
		}
		p, err := s.d.Plan(ctx, d)
		if err != nil {
			return nil, err
		}
		plan := *p
		plan.Deployment = nil // the caller has it
		out, err := planTo(&plan)
		return &pb.PlanResponse{Plan: out}, err
	})
}

func (s *server) Apply(m *pb.ApplyRequest, stream grpc.ServerStreamingServer[pb.ApplyResponse]) error {
	return s.streamed(stream, "Apply", func() error {
		p, err := planFrom(m.GetPlan(), true)
		if err != nil {
			return err
		}
		return s.d.Apply(stream.Context(), p, func(g plugins.Progress) {
			// If the caller is gone, the context says so too.
			_ = stream.Send(progressTo(&g))
		})
	})
}

func (s *server) Read(ctx context.Context, _ *pb.ReadRequest) (*pb.ReadResponse, error) {
	return unary(ctx, s, "Read", func() (*pb.ReadResponse, error) {
		state, err := s.d.Read(ctx)
		if err != nil {
			return nil, err
		}
		return stateTo(state)
	})
}

func (s *server) Drain(ctx context.Context, m *pb.DrainRequest) (*pb.DrainResponse, error) {
	return unary(ctx, s, "Drain", func() (*pb.DrainResponse, error) {
		return &pb.DrainResponse{}, s.d.Drain(ctx, drainFrom(m.GetDrain()))
	})
}

func (s *server) Undrain(ctx context.Context, m *pb.UndrainRequest) (*pb.UndrainResponse, error) {
	return unary(ctx, s, "Undrain", func() (*pb.UndrainResponse, error) {
		return &pb.UndrainResponse{}, s.d.Undrain(ctx, refFrom(m.GetBackend()))
	})
}

// leastEvery is the shortest time between statistics of one stream.
const leastEvery = 100 * time.Millisecond

func (s *server) Stats(m *pb.StatsRequest, stream grpc.ServerStreamingServer[pb.StatsResponse]) error {
	ctx := stream.Context()
	once := func() error {
		list, err := s.d.Stats(ctx)
		if err != nil {
			return err
		}
		out, err := statsTo(list)
		if err != nil {
			return err
		}
		return stream.Send(out)
	}
	return s.streamed(stream, "Stats", func() error {
		if m.GetEveryNano() <= 0 {
			return once()
		}
		tick := time.NewTicker(max(time.Duration(m.GetEveryNano()), leastEvery))
		defer tick.Stop()
		for {
			if err := once(); err != nil {
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	})
}

func (s *server) Watch(_ *pb.WatchRequest, stream grpc.ServerStreamingServer[pb.WatchResponse]) error {
	return s.streamed(stream, "Watch", func() error {
		return s.d.Watch(stream.Context(), func(e plugins.Event) { _ = stream.Send(eventTo(&e)) })
	})
}

func (s *server) Render(ctx context.Context, m *pb.RenderRequest) (*pb.RenderResponse, error) {
	return unary(ctx, s, "Render", func() (*pb.RenderResponse, error) {
		r, ok := s.d.(plugins.Renderer)
		if !ok {
			return nil, fmt.Errorf("%w: it writes no files", plugins.ErrUnsupported)
		}
		d, err := deploymentFrom(m.GetDeployment(), true)
		if err != nil {
			return nil, err
		}
		list, err := r.Render(ctx, d)
		return &pb.RenderResponse{Files: filesTo(list)}, err
	})
}
