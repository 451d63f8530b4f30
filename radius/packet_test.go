package radius

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	layeh "layeh.com/radius"
)

// attr is an attribute to be put into a test's packet.
type attr struct {
	t Type
	v []byte
}

func text(t Type, s string) attr { return attr{t, []byte(s)} }

// build makes a packet, whose Authenticator is auth repeated.
func build(c Code, id, auth byte, attrs ...attr) []byte {
	b := append([]byte{byte(c), id, 0, 0}, bytes.Repeat([]byte{auth}, 16)...)
	for _, a := range attrs {
		b = append(b, byte(a.t), byte(2+len(a.v)))
		b = append(b, a.v...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

func TestParse(t *testing.T) {
	good := build(AccessRequest, 7, 9, text(UserName, "ada"), text(State, "s1"), text(State, "s2"), attr{EAPMessage, nil})
	length := func(n int) []byte {
		b := bytes.Clone(good)
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		return b
	}
	broken := func(at int, to byte) []byte {
		b := bytes.Clone(good)
		b[at] = to
		return b
	}
	long := func(n int) []byte {
		b := build(AccessRequest, 1, 1)
		for n-len(b) > 0 {
			k := min(n-len(b), 255)
			if rest := n - len(b) - k; rest == 1 {
				k--
			}
			b = append(b, byte(EAPMessage), byte(k))
			b = append(b, make([]byte, k-2)...)
		}
		binary.BigEndian.PutUint16(b[2:], uint16(n))
		return b
	}
	tests := []struct {
		name string
		b    []byte
		want error
	}{
		{"good", good, nil},
		{"header only", build(StatusServer, 0, 0), nil},
		{"longest", long(4096), nil},
		{"too long", long(4097), ErrLength},
		{"empty", nil, ErrShort},
		{"cut header", good[:19], ErrShort},
		{"cut attribute", good[:len(good)-1], ErrShort},
		{"length 19", length(19), ErrLength},
		{"length over the datagram", length(len(good) + 1), ErrShort},
		{"length within an attribute", length(len(good) - 3), ErrAttribute},
		{"one byte behind the attributes", length(21), ErrAttribute},
		{"attribute of length 0", broken(21, 0), ErrAttribute},
		{"attribute of length 1", broken(21, 1), ErrAttribute},
		{"attribute beyond the packet", broken(21, 255), ErrAttribute},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Parse(tt.b); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestPacketView(t *testing.T) {
	b := build(AccessRequest, 7, 9, text(UserName, "ada"), text(State, "s1"), text(State, "s2"))
	p, err := Parse(append(bytes.Clone(b), "padding"...))
	if err != nil {
		t.Fatal(err)
	}
	if p.Code() != AccessRequest || p.Identifier() != 7 || p.Authenticator() != [16]byte(bytes.Repeat([]byte{9}, 16)) {
		t.Errorf("header: %v %v %v", p.Code(), p.Identifier(), p.Authenticator())
	}
	if !bytes.Equal(p.Bytes(), b) {
		t.Error("the padding is still there")
	}
	if v, ok := p.Lookup(State); !ok || string(v) != "s1" {
		t.Errorf("State is %q, %v", v, ok)
	}
	if _, ok := p.Lookup(Class); ok || p.Count(State) != 2 || p.Count(Class) != 0 {
		t.Error("attributes are miscounted")
	}
	var got []Type
	for typ := range p.Attributes() {
		if got = append(got, typ); typ == State {
			break
		}
	}
	if len(got) != 2 {
		t.Errorf("walked %v", got)
	}
	var zero Packet
	if _, ok := zero.Lookup(State); ok || zero.Code() != 0 || zero.Identifier() != 0 || zero.Authenticator() != [16]byte{} {
		t.Error("the zero Packet isn't empty")
	}
}

func TestEAP(t *testing.T) {
	id := []byte{2, 5, 0, 8, 1, 'a', 'd', 'a'}
	tests := []struct {
		name  string
		parts [][]byte
		want  EAPHeader
		ok    bool
	}{
		{"identity", [][]byte{id}, EAPHeader{EAPResponse, 5, 8, EAPIdentity}, true},
		{"in pieces", [][]byte{id[:1], id[1:4], nil, id[4:]}, EAPHeader{EAPResponse, 5, 8, EAPIdentity}, true},
		{"success", [][]byte{{3, 9, 0, 4}}, EAPHeader{EAPSuccess, 9, 4, 0}, true},
		{"start", [][]byte{nil}, EAPHeader{}, false},
		{"none", nil, EAPHeader{}, false},
		{"cut off", [][]byte{id[:7]}, EAPHeader{}, false},
		{"request without a type", [][]byte{{1, 9, 0, 4}}, EAPHeader{}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			attrs := []attr{text(UserName, "ada")}
			for _, p := range tt.parts {
				attrs = append(attrs, attr{EAPMessage, p}, text(Class, "between"))
			}
			p, err := Parse(build(AccessRequest, 1, 1, attrs...))
			if err != nil {
				t.Fatal(err)
			}
			if h, ok := p.EAPHeader(); h != tt.want || ok != tt.ok {
				t.Errorf("got %+v, %v", h, ok)
			}
			if got := p.AppendEAP(nil); !bytes.Equal(got, bytes.Join(tt.parts, nil)) {
				t.Errorf("EAP is %x", got)
			}
		})
	}
}

// FuzzParse compares with the independent parser of layeh.com/radius.
func FuzzParse(f *testing.F) {
	f.Add(build(AccessRequest, 7, 9, text(UserName, "ada"), text(State, "s"), attr{EAPMessage, []byte{2, 5, 0, 5, 1}}))
	f.Add(build(AccessChallenge, 0, 0, attr{EAPMessage, bytes.Repeat([]byte{1}, 253)}, attr{MessageAuthenticator, make([]byte, 16)}))
	f.Add(append(build(AccountingRequest, 1, 2, text(AcctSessionID, "1")), 0, 0, 0))
	f.Add(make([]byte, 20))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		theirs, terr := layeh.Parse(b, []byte("secret"))
		if err != nil {
			if terr == nil {
				t.Fatalf("%v, but layeh.com/radius accepts %x", err, b)
			}
			return
		}
		if terr != nil {
			t.Fatalf("layeh.com/radius says %v of %x", terr, b)
		}
		if byte(p.Code()) != byte(theirs.Code) || p.Identifier() != theirs.Identifier || p.Authenticator() != theirs.Authenticator {
			t.Fatal("the headers differ")
		}
		i := 0
		for typ, v := range p.Attributes() {
			if a := theirs.Attributes[i]; int(typ) != int(a.Type) || !bytes.Equal(v, a.Attribute) {
				t.Fatalf("attribute %d differs", i)
			}
			i++
		}
		if i != len(theirs.Attributes) {
			t.Fatalf("%d attributes, want %d", i, len(theirs.Attributes))
		}
		if again, err := Parse(p.Bytes()); err != nil || !bytes.Equal(again.Bytes(), p.Bytes()) {
			t.Fatal("the packet without its padding isn't the same")
		}
		if h, ok := p.EAPHeader(); ok && h.Len != len(p.AppendEAP(nil)) {
			t.Fatalf("%+v", h)
		}
	})
}
