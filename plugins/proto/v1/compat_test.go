package pluginsv1_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	pluginsv1 "github.com/aovlb/aovlb/plugins/proto/v1"
)

// released returns the descriptor that plugins in the field were built with.
func released(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	b, err := os.ReadFile("driver.binpb")
	if err != nil {
		t.Fatal(err)
	}
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	file, err := protodesc.NewFile(set.File[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// What a plugin was built with is still there, with the same meaning on the wire.
func TestCompatible(t *testing.T) {
	for _, f := range breaks(released(t), pluginsv1.File_plugins_proto_v1_driver_proto) {
		t.Error(f)
	}
}

// The committed descriptor knows all that there is, so that what was added is
// held to from now on.
func TestDescriptorIsNew(t *testing.T) {
	for _, f := range breaks(pluginsv1.File_plugins_proto_v1_driver_proto, released(t)) {
		t.Errorf("driver.binpb is old, make it anew with generate --descriptor: %s", f)
	}
}

// The comparison finds what it is there for.
func TestBreaksAreFound(t *testing.T) {
	for name, spoil := range map[string]func(*descriptorpb.FileDescriptorProto){
		"field 1 of Fault": func(f *descriptorpb.FileDescriptorProto) { message(f, "Fault").Field[0].Number = proto.Int32(9) },
		"a string no more": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "Fault").Field[0].Type = descriptorpb.FieldDescriptorProto_TYPE_INT64.Enum()
		},
		"is named": func(f *descriptorpb.FileDescriptorProto) { message(f, "Fault").Field[0].Name = new("x") },
		"was repeated": func(f *descriptorpb.FileDescriptorProto) {
			message(f, "Faults").Field[0].Label = descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
		},
		"Render": func(f *descriptorpb.FileDescriptorProto) { f.Service[0].Method = f.Service[0].Method[:13] },
		"stream": func(f *descriptorpb.FileDescriptorProto) { f.Service[0].Method[7].ServerStreaming = new(false) },
	} {
		f := protodesc.ToFileDescriptorProto(pluginsv1.File_plugins_proto_v1_driver_proto)
		spoil(f)
		file, err := protodesc.NewFile(f, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := breaks(released(t), file); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), name) {
			t.Errorf("%s: found %q", name, got)
		}
	}
}

func message(f *descriptorpb.FileDescriptorProto, name string) *descriptorpb.DescriptorProto {
	for _, m := range f.MessageType {
		if m.GetName() == name {
			return m
		}
	}
	panic("no message " + name)
}

// breaks says what of old isn't so in now.
func breaks(old, now protoreflect.FileDescriptor) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for i := range old.Messages().Len() {
		m := old.Messages().Get(i)
		n := now.Messages().ByName(m.Name())
		if n == nil {
			say("message %s is gone", m.Name())
			continue
		}
		for k := range m.Fields().Len() {
			f := m.Fields().Get(k)
			g := n.Fields().ByNumber(f.Number())
			switch {
			case g == nil:
				say("field %d of %s, %s, is gone", f.Number(), m.Name(), f.Name())
			case g.Name() != f.Name():
				say("field %d of %s is named %s, it was %s", f.Number(), m.Name(), g.Name(), f.Name())
			case g.Kind() != f.Kind():
				say("%s was a %v, and is a %v: it is a %v no more", f.FullName(), f.Kind(), g.Kind(), f.Kind())
			case g.Cardinality() != f.Cardinality() || g.HasPresence() != f.HasPresence():
				say("%s was %s, and is %s", f.FullName(), many(f), many(g))
			case f.Message() != nil && f.Message().FullName() != g.Message().FullName():
				say("%s was a %s, and is a %s", f.FullName(), f.Message().Name(), g.Message().Name())
			}
		}
	}
	for i := range old.Services().Len() {
		s := old.Services().Get(i)
		n := now.Services().ByName(s.Name())
		if n == nil {
			say("service %s is gone", s.Name())
			continue
		}
		for k := range s.Methods().Len() {
			m := s.Methods().Get(k)
			g := n.Methods().ByName(m.Name())
			switch {
			case g == nil:
				say("call %s is gone", m.Name())
			case g.Input().FullName() != m.Input().FullName() || g.Output().FullName() != m.Output().FullName():
				say("call %s has other messages", m.Name())
			case g.IsStreamingServer() != m.IsStreamingServer() || g.IsStreamingClient() != m.IsStreamingClient():
				say("call %s: what was a stream is none, or the other way round", m.Name())
			}
		}
	}
	return out
}

func many(f protoreflect.FieldDescriptor) string {
	switch {
	case f.Cardinality() == protoreflect.Repeated:
		return "repeated"
	case f.HasPresence():
		return "optional"
	}
	return "single"
}
