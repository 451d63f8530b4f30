package wire

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/aovlb/aovlb/plugins"
	pb "github.com/aovlb/aovlb/plugins/proto/v1"
)

// The trailing metadata of a call that failed; see driver.proto.
const (
	reasonKey = "aovlb-reason"
	faultsKey = "aovlb-faults-bin"
)

// reasons are the errors that programs tell apart.
var reasons = []struct {
	word string
	code codes.Code
	err  error
}{
	{"stale", codes.FailedPrecondition, plugins.ErrStale},
	{"unsupported", codes.Unimplemented, plugins.ErrUnsupported},
	{"invalid", codes.InvalidArgument, plugins.ErrInvalid},
	{"not-found", codes.NotFound, plugins.ErrNotFound},
	{"not-drained", codes.FailedPrecondition, plugins.ErrNotDrained},
}

// maxText bounds the text of an error, which travels in a header.
const maxText = 6 << 10

// maxFaults bounds the fields of an error, for the same reason.
const maxFaults = 40

// statusOf turns an error into a gRPC status and trailing metadata.
func statusOf(ctx context.Context, err error) (metadata.MD, error) {
	if err == nil {
		return nil, nil
	}
	code := codes.Unknown
	switch {
	case errors.Is(err, context.Canceled), ctx.Err() != nil && errors.Is(err, context.Cause(ctx)):
		code = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	md := metadata.MD{}
	for _, r := range reasons {
		if errors.Is(err, r.err) {
			code = r.code
			md.Append(reasonKey, r.word)
			break
		}
	}
	var field *plugins.FieldError
	if errors.As(err, &field) {
		if code == codes.Unknown {
			code = codes.InvalidArgument
		}
		faults := new(pb.Faults)
		for i, e := range plugins.FieldErrors(err) {
			if i == maxFaults {
				break
			}
			faults.Faults = append(faults.Faults, &pb.Fault{Path: cut(e.Path, 256), Text: cut(e.Err.Error(), 512)})
		}
		if b, err := proto.Marshal(faults); err == nil && len(b) <= maxText {
			md.Append(faultsKey, string(b))
		}
	}
	return md, status.Error(code, cut(err.Error(), maxText))
}

// cut shortens s, and makes it valid text.
func cut(s string, most int) string {
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// A remoteError is an error that came over the wire.
type remoteError struct {
	text   string
	reason error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.reason }

// An UnavailableError says that the other side of a connection is gone, or that
// it speaks something else. Whatever a call was to do may have been done or not.
type UnavailableError struct {
	// Err says more.
	Err error
}

func (e *UnavailableError) Error() string { return "the plugin is gone: " + e.Err.Error() }

// Unwrap returns what says more.
func (e *UnavailableError) Unwrap() error { return e.Err }

// errorOf is the reverse of statusOf.
func errorOf(ctx context.Context, err error, md metadata.MD) error {
	if err == nil {
		return nil
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	if (s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded) && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	word := first(md, reasonKey)
	if s.Code() == codes.Unavailable && word == "" {
		return &UnavailableError{Err: errors.New(s.Message())}
	}
	if faults := faultsOf(md); faults != nil {
		return faults
	}
	for _, r := range reasons {
		if r.word == word {
			return &remoteError{text: s.Message(), reason: r.err}
		}
	}
	if s.Code() == codes.Unimplemented {
		return &remoteError{text: s.Message(), reason: plugins.ErrUnsupported}
	}
	return errors.New(s.Message())
}

func first(md metadata.MD, key string) string {
	if v := md.Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// faultsOf returns the errors of fields that md has, joined, or nil.
func faultsOf(md metadata.MD) error {
	b := first(md, faultsKey)
	var m pb.Faults
	if b == "" || proto.Unmarshal([]byte(b), &m) != nil {
		return nil
	}
	var errs []error
	for _, f := range m.GetFaults() {
		e := errors.New(f.GetText())
		if f.GetPath() != "" {
			e = &plugins.FieldError{Path: f.GetPath(), Err: e}
		}
		errs = append(errs, e)
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}
