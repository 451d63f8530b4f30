package sstp

import "fmt"

// unmarshalName sets x to the value below n whose name is b.
func unmarshalName[T interface {
	~uint8
	String() string
}](x *T, n T, what string, b []byte) error {
	for v := range n {
		if v.String() == string(b) {
			*x = v
			return nil
		}
	}
	return fmt.Errorf("sstp: %q is no %s", b, what)
}

// UnmarshalText reads what MarshalText returns.
func (s *Stage) UnmarshalText(b []byte) error { return unmarshalName(s, StageOpaque+1, "stage", b) }

// UnmarshalText reads what MarshalText returns.
func (p *Peer) UnmarshalText(b []byte) error { return unmarshalName(p, PeerBalancer+1, "peer", b) }

// UnmarshalText reads what MarshalText returns.
func (a *AuthResult) UnmarshalText(b []byte) error {
	return unmarshalName(a, AuthFailed+1, "result of an authentication", b)
}

// UnmarshalText reads what MarshalText returns.
func (m *Mode) UnmarshalText(b []byte) error { return unmarshalName(m, ModePassthrough+1, "mode", b) }

// UnmarshalText reads what MarshalText returns.
func (f *Finding) UnmarshalText(b []byte) error { return unmarshalName(f, findings, "finding", b) }

// UnmarshalText reads what MarshalText returns.
func (g *Gravity) UnmarshalText(b []byte) error {
	return unmarshalName(g, GravityFatal+1, "gravity", b)
}

// UnmarshalText reads what MarshalText returns.
func (r *Resource) UnmarshalText(b []byte) error {
	return unmarshalName(r, ResourceIPHTTPS+1, "resource", b)
}
