package builtin

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/aovlb/aovlb/plugins"
	"github.com/aovlb/aovlb/radius"
)

// ownSecrets are the secrets of RADIUS servers that don't have the one of the others,
// by their addresses. A server knows this machine by one secret, so what a proxy has
// for it is what a check must have.
type ownSecrets map[netip.Addr][]byte

// ownSecretsOf reads those of a pool, which stand in the groups that use it.
func ownSecretsOf(site *plugins.Site, at string, spec *plugins.Pool) (ownSecrets, error) {
	own := make(ownSecrets)
	for i := range site.Groups {
		g := &site.Groups[i]
		if g.Pool != spec.Name || !g.Proxies() {
			continue
		}
		for j := range g.RADIUS.Servers {
			s := &g.RADIUS.Servers[j]
			ref := plugins.Secret{File: s.SecretFile, Env: s.SecretEnv}
			k := slices.IndexFunc(spec.Backends, func(b plugins.Backend) bool { return b.Name == s.Backend })
			if ref.IsZero() || k < 0 {
				continue
			}
			secret, err := ref.Read()
			if err != nil {
				return nil, &plugins.FieldError{Path: fmt.Sprintf("%s.groups[%d].radius.servers[%d].%s", at, i, j, secretField(ref)), Err: err}
			}
			own[spec.Backends[k].Address.Unmap()] = secret
		}
	}
	return own, nil
}

// of returns the secret of a server, or the zero Secret.
func (o ownSecrets) of(server netip.Addr) radius.Secret {
	if b := o[server]; len(b) > 0 {
		return radius.NewSecret(b)
	}
	return radius.Secret{}
}

// hash writes all that matters, so that a change is known.
func (o ownSecrets) hash(w io.Writer) {
	for _, a := range slices.SortedFunc(maps.Keys(o), netip.Addr.Compare) {
		fmt.Fprintf(w, "%v %d\n", a, len(o[a]))
		_, _ = io.Copy(w, bytes.NewReader(o[a])) // a hash takes all
	}
}
