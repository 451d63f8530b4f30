package radius

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretHidesItself(t *testing.T) {
	const plain = "xyzzy-plugh"
	s := NewSecret([]byte(plain))
	within := struct{ hidden Secret }{s}
	p := Prober{Secret: s}
	var out bytes.Buffer
	for _, v := range []any{s, &s, within, &within, p, &p, []Secret{s}, map[string]Secret{"s": s}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%c", "%U", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("x", "v", v)
		}
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			out.Write(b)
		}
	}
	got := out.String()
	for _, bad := range []string{plain, "plugh", fmt.Sprintf("%x", plain), fmt.Sprintf("%X", plain), "120 121 122", "U+0078"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q can be read", bad)
		}
	}
	if !strings.Contains(got, hidden) || s.String() != hidden || s.GoString() != hidden {
		t.Error("the secret doesn't say that it is one")
	}
}

func TestSecret(t *testing.T) {
	b := []byte("abc")
	s := NewSecret(b)
	b[0] = 'x'
	if !s.Equal(NewSecret([]byte("abc"))) || s.Equal(NewSecret([]byte("abd"))) || s.Equal(Secret{}) || s.IsZero() {
		t.Error("secrets are compared wrongly")
	}
	if !NewSecret(nil).IsZero() || !NewSecret(nil).Equal(Secret{}) {
		t.Error("no bytes are a secret")
	}
	got, err := ParseSecret([]byte("a b c \r\n\n"))
	if err != nil || !got.Equal(NewSecret([]byte("a b c "))) {
		t.Errorf("file: %v", err)
	}
	if _, err := ParseSecret([]byte("\n")); err == nil {
		t.Error("an empty file holds a secret")
	}
}
