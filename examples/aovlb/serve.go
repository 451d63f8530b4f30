package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/plugins/builtin"
)

var serveCommand = command{
	name: "serve", usage: "FILE", short: "serve a file, until SIGTERM; SIGHUP reads it again", run: runServe,
}

func runServe(ctx context.Context, env *environment, args []string) error {
	args, err := parse(env, flag.NewFlagSet("serve", flag.ContinueOnError), args, 1)
	if err != nil {
		return err
	}
	src, err := readConfig(args[0])
	if err != nil {
		return err
	}
	files, err := env.inherited()
	if err != nil {
		return err
	}
	c := src.config
	log := logger(env, c.Log)
	s := &server{
		env: env, file: args[0], log: log, start: time.Now(),
		driver: &builtin.Driver{Version: version(), Logger: log, StateDir: c.State, Inherited: files},
	}
	s.cas = &cas{driver: s.driver, log: log, state: c.State}
	s.driver.Challenge = s.cas.challenge
	return s.serve(ctx, src)
}

// logger returns what c asks for.
func logger(env *environment, c Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // checked; info if it is empty
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(env.stderr, o))
	}
	return slog.New(slog.NewTextHandler(env.stderr, o))
}

// A server is the running program.
type server struct {
	env    *environment
	file   string
	log    *slog.Logger
	driver *builtin.Driver
	cas    *cas
	geo    *geoServer // nil without geo in the file
	start  time.Time

	reloading sync.Mutex
	mu        sync.Mutex // below
	config    *Config
}

// serve runs everything until ctx is done or something fails.
func (s *server) serve(ctx context.Context, src *source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.driver.Configure(ctx, plugins.Config{Site: src.config.Site}); err != nil {
		return err
	}
	if src.config.Geo != nil {
		s.geo = newGeoServer(s.log, src.config.State, s.clientsOf)
	}
	if _, err := s.apply(ctx, src); err != nil {
		s.cas.close()
		return errors.Join(err, s.driver.Shutdown(ctx))
	}
	var wg sync.WaitGroup
	begin := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	if err := s.open(ctx, begin, src); err != nil {
		cancel(err)
		s.cas.close()
		err = errors.Join(err, s.driver.Shutdown(ctx))
		wg.Wait()
		return err
	}
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	s.log.Info("ready", "file", s.file, "version", version())
	s.tell("READY=1", "STATUS=serving "+s.file)
	for {
		select {
		case <-hup:
			if _, err := s.reload(ctx); err != nil {
				s.log.Error("reload refused, everything goes on as it was", "error", err)
			}
		case <-ctx.Done():
			err := s.end(ctx, cancel, &wg)
			return err
		}
	}
}

// end ends everything, and says why if it wasn't asked for.
func (s *server) end(ctx context.Context, cancel context.CancelCauseFunc, wg *sync.WaitGroup) error {
	cause := context.Cause(ctx)
	s.tell("STOPPING=1")
	s.mu.Lock()
	grace := s.config.Grace.D()
	s.mu.Unlock()
	s.log.Info("stopping", "grace", grace)
	drain, stop := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer stop()
	// A second signal ends the grace.
	drain, stop = signal.NotifyContext(drain, os.Interrupt, syscall.SIGTERM)
	defer stop()
	s.cas.close()
	err := s.driver.Shutdown(drain)
	cancel(nil)
	wg.Wait()
	s.log.Info("stopped")
	if errors.Is(cause, context.Canceled) {
		cause = nil
	}
	return errors.Join(cause, err)
}

// open starts what the file asks for beside the listeners.
func (s *server) open(ctx context.Context, begin func(what string, run func(context.Context) error), src *source) error {
	c := src.config
	begin("driver", func(ctx context.Context) error {
		// It is ended by Shutdown, after the grace, and not by ctx.
		err := s.driver.Run(context.WithoutCancel(ctx))
		if errors.Is(err, builtin.ErrClosed) {
			return nil
		}
		return err
	})
	if s.geo != nil {
		begin("sites", s.geo.run)
		sockets, err := s.geo.listen(ctx, c.Geo)
		if err != nil {
			return s.placed(src, err)
		}
		begin("DNS", func(ctx context.Context) error { return s.geo.serve(ctx, sockets) })
	}
	if c.Admin.Listen != "" {
		l, handler, err := s.admin(c.Admin)
		if err != nil {
			return s.placed(src, err)
		}
		begin("admin API", func(ctx context.Context) error { return serveHTTP(ctx, l, handler) })
	}
	if c.Metrics.Listen != "" {
		l, handler, err := s.metrics(c.Metrics)
		if err != nil {
			return err
		}
		begin("metrics", func(ctx context.Context) error { return serveHTTP(ctx, l, handler) })
	}
	return nil
}

// raiseProcs makes room for the threads of the UDP engines. While such a thread
// waits for datagrams it holds no processor of Go's, and while it works it holds
// one; with as many on top, it never keeps the rest of the program waiting.
func (s *server) raiseProcs(c *Config) {
	if s.env.getenv("GOMAXPROCS") != "" || runtime.GOOS != "linux" {
		return
	}
	site := c.Deployment.Site(c.Site)
	if site == nil {
		return
	}
	if n := builtin.Threads(site); n > 0 {
		// Changing it stops everything for a moment, so only if need be.
		if want := runtime.NumCPU() + n; runtime.GOMAXPROCS(0) != want {
			runtime.GOMAXPROCS(want)
		}
	}
}

// apply has the driver serve what src says.
func (s *server) apply(ctx context.Context, src *source) (*plugins.Plan, error) {
	p, err := s.driver.Plan(ctx, &src.config.Deployment)
	if err != nil {
		return nil, err
	}
	authorities, err := src.readCAs(src.config.Site)
	if err != nil {
		return nil, s.placed(src, err)
	}
	s.raiseProcs(src.config)
	for _, g := range p.Diagnostics {
		s.log.Warn(g.Summary, "path", g.Path, "detail", g.Detail, "fix", g.Fix)
	}
	var built *geoBuilt
	if s.geo != nil && src.config.Geo != nil {
		if built, err = s.geo.build(ctx, src.config.Geo); err != nil {
			return nil, s.placed(src, err)
		}
	}
	if err := s.driver.Apply(ctx, p, nil); err != nil {
		if built != nil && len(built.reread) > 0 {
			s.geo.stale.Store(true)
		}
		return nil, s.placed(src, err)
	}
	if built != nil {
		changes := s.geo.changes(built)
		if err := s.geo.apply(built); err != nil {
			return nil, s.placed(src, err)
		}
		p.Changes = append(p.Changes, changes...)
		p.Diagnostics = append(p.Diagnostics, built.warnings...)
	}
	s.mu.Lock()
	s.config = src.config
	s.mu.Unlock()
	// The CAs outlive this call: they are ended with the program.
	s.cas.set(context.WithoutCancel(ctx), authorities)
	return p, nil
}

// clientsOf returns how many clients a site has, if it is served here.
func (s *server) clientsOf(site string) (clients int, ok bool) {
	st, err := s.driver.Stats(context.Background())
	if err != nil || st.Site != site || site == "" {
		return 0, false
	}
	for _, g := range st.Groups {
		if g.Clients != nil {
			clients += *g.Clients
		}
	}
	return clients, true
}

// placed says where in the file the fields are that err is about.
func (s *server) placed(src *source, err error) error {
	var field *plugins.FieldError
	if !errors.As(err, &field) {
		return err
	}
	var list []Fault
	for _, f := range plugins.FieldErrors(err) {
		if f.Path == "" && errors.As(f.Err, &field) {
			f = field
		}
		list = append(list, src.fault(f.Path, f.Err.Error()))
	}
	return &Faults{File: src.file, List: list}
}

// reload reads the file again, and has the driver serve it. If anything is wrong
// with it, everything goes on as it was.
func (s *server) reload(ctx context.Context) (*plugins.Plan, error) {
	s.reloading.Lock()
	defer s.reloading.Unlock()
	s.tell(reloading()...)
	defer s.tell("READY=1")
	src, err := readConfig(s.file)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	now := s.config
	s.mu.Unlock()
	if err := restartNeeded(now, src); err != nil {
		return nil, err
	}
	p, err := s.apply(ctx, src)
	if err != nil {
		return nil, err
	}
	s.log.Info("reloaded", "changes", len(p.Changes))
	for _, c := range p.Changes {
		s.log.Info("changed", "change", c.String())
	}
	return p, nil
}

// restartNeeded says which changes a reload can't make.
func restartNeeded(now *Config, src *source) error {
	var list []Fault
	c := src.config
	for _, f := range []struct {
		path    string
		differs bool
	}{
		{"site", now.Site != c.Site},
		{"admin", now.Admin != c.Admin},
		{"metrics", now.Metrics != c.Metrics},
		{"state", now.State != c.State},
		{"log", now.Log != c.Log},
		{"geo", (now.Geo == nil) != (c.Geo == nil)},
		{"geo.listen", now.Geo != nil && c.Geo != nil && !reflect.DeepEqual(now.Geo.Listen, c.Geo.Listen)},
		{"geo.tls", now.Geo != nil && c.Geo != nil && !reflect.DeepEqual(now.Geo.TLS, c.Geo.TLS)},
		{"geo.nsid", now.Geo != nil && c.Geo != nil && now.Geo.NSID != c.Geo.NSID},
		{"geo.rate_limit", now.Geo != nil && c.Geo != nil && now.Geo.RateLimit != c.Geo.RateLimit},
	} {
		if f.differs {
			list = append(list, src.fault(f.path, "a change of it takes a restart"))
		}
	}
	if list == nil {
		return nil
	}
	return &Faults{File: src.file, List: list}
}

func (s *server) tell(state ...string) {
	if err := s.env.notify(state...); err != nil {
		s.log.Warn("systemd was not told", "error", err)
	}
}
