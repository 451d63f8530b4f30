package builtin

import (
	"testing"

	"github.com/aovlb/aovlb/plugins"
)

// A client whose answers nothing protects is named, and no other.
func TestLegacyClientsAreNamed(t *testing.T) {
	g := &plugins.Group{RADIUS: &plugins.RADIUS{Clients: []plugins.RADIUSClient{
		{Name: "new", MessageAuthenticator: plugins.MessageRequire}, {Name: "usual"}, {Name: "old", MessageAuthenticator: plugins.MessageLegacy},
	}}}
	var paths []string
	warn := func(path, summary, detail, fix string) { paths = append(paths, path) }
	adviseRADIUS(g, ".groups[0]", warn)
	adviseRADIUS(new(plugins.Group), ".groups[1]", warn)
	if want := ".groups[0].radius.clients[2].message_authenticator"; len(paths) != 1 || paths[0] != want {
		t.Errorf("warned of %q, want %q", paths, want)
	}
}
